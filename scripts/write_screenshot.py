"""Draw docs/home/screenshot.svg: a dry run and a running ingest, as a terminal of 80 columns shows them.

Run as `python scripts/write_screenshot.py` (`make screenshot`); `--check` writes nothing, exits 1
when stale. The library is made up, the lines are drawn by the code that draws them for a person.
"""

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from hevcq.cli.output.ingest_report import plan_lines, plan_total
from hevcq.cli.output.live import Board, live_table
from hevcq.cli.output.render import sentence
from hevcq.domain.events import EventName, IngestEvent
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item
from hevcq.usecases.ingest.forecast import Range

TARGET = Path(__file__).resolve().parent.parent / "docs" / "home" / "screenshot.svg"
FOLDER = Path("/home/ann/Videos")
WIDTH = 80
GB = 1e9
NAMES = {
    "Holidays/2014 Norway - the whole trip, uncut.mp4": 18.4,
    "Holidays/2017 Lisbon.mov": 9.7,
    "Concerts/School orchestra, summer concert 2019.mts": 7.9,
    "Family/Grandma tells of the farm.mp4": 6.3,
    "Family/First steps.mp4": 1.2,
}
NOW = 5_000.0


def plan() -> IngestPlan:
    """Return the plan of the made-up library."""
    items = [
        Item(
            path=FOLDER / name,
            size=int(size * GB),
            disposition=Disposition.QUEUE,
            cpu=Range(size * 900, size * 2100),
            output=Range(size * GB * 0.3, size * GB * 0.52),
        )
        for name, size in NAMES.items()
    ]
    for number in range(12):
        path = FOLDER / f"Phone/VID_{number}.mp4"
        items.append(Item(path, int(0.2 * GB), Disposition.SKIP, reason="Already HEVC."))
    broken = FOLDER / "Family/Old tape 3.avi"
    items.append(Item(broken, 0, Disposition.UNREADABLE, reason="It is empty; copy it here again."))
    size = sum(NAMES.values()) * GB
    return IngestPlan(tuple(items), Range(11 * 3600, 19 * 3600), Range(size * 0.35, size * 0.46))


def board() -> Board:
    """Return what is shown in the middle of the ingest."""
    found = Board()
    for name in NAMES:
        path = str(FOLDER / name)
        planned = {"path": path, "profile": "hevc", "cpu_s": (900.0, 2100.0)}
        found.apply(_event(EventName.FILE_PLANNED, **planned))
    found.apply(_event(EventName.PLAN, forecast_s=(39_600.0, 68_400.0)))
    for name in NAMES:
        found.apply(_event(EventName.JOB_QUEUED, path=str(FOLDER / name), profile="hevc"))
    found.apply(_done())
    for name, phase, percent, speed, left in (
        ("Family/Grandma tells of the farm.mp4", "encode", 81.0, 0.62, 1260.0),
        ("Holidays/2017 Lisbon.mov", "encode", 23.0, 0.58, 6480.0),
    ):
        facts = {"phase": phase, "percent": percent, "speed": speed, "eta_s": left}
        path = str(FOLDER / name)
        found.apply(_event(EventName.JOB_PROGRESS, path=path, profile="hevc", **facts))
    return found


def _done() -> IngestEvent:
    path = str(FOLDER / "Family/First steps.mp4").replace("/home/ann", "~")
    sizes = {"size": int(1.2 * GB), "output_size": int(0.49 * GB), "bytes_saved": int(0.71 * GB)}
    return _event(EventName.JOB_DONE, path=path, seconds=1502.0, **sizes)


def _event(name: EventName, **fields: object) -> IngestEvent:
    return IngestEvent.model_validate({"event": name, "at": 1_000.0} | fields)


def drawn() -> str:
    """Return the SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    _prompt(console, "hevcq ingest ~/Videos --dry-run")
    for line in (*plan_lines(plan(), WIDTH, listed=True, every=False), plan_total(plan())):
        console.print(line, markup=False, highlight=False)
    _prompt(console, "hevcq ingest ~/Videos --replace")
    console.print(sentence(_done()), markup=False, highlight=False)
    console.print(live_table(board(), NOW, WIDTH))
    return console.export_svg(title="hevcq", unique_id="hevcq")


def _prompt(console: Console, command: str) -> None:
    console.print(Text.assemble(("$ ", "green"), (command, "bold")))


def main() -> int:
    """Write the picture, or check it."""
    picture_text = drawn()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == picture_text else 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(picture_text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
