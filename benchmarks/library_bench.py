"""Wall of a 10-file library with 2 workers / the same commands under `xargs -P 2`, without gates.

Run as `python benchmarks/library_bench.py [ROUNDS]`: about a minute a round on two idle cores. Both
sides encode at the niceness that the profile gives its children, or a busy machine would weigh them
differently.
"""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import Usage, clip, encode_only, ingest, ratio, report, run

from hevcq.ffmpeg.process.limits import NICE

HERE = Path(__file__).resolve().parent
WITHOUT_GATES = [sys.executable, str(HERE / "hevcq_without_gates.py")]
FILES = 10
SECONDS, SIZE = 20, "640x360"
"""Of video a file: about 10 CPU seconds of encoding, so that a round takes two minutes."""
ROUNDS = 3


def library_of(folder: Path) -> Path:
    """Make the library: one video under ten names, each with bytes of its own."""
    library = folder / "library"
    library.mkdir()
    made = clip(folder, SECONDS, SIZE)
    for index in range(FILES):
        shutil.copy(made, library / f"{index}.mp4")
        with (library / f"{index}.mp4").open("ab") as file:
            # A free box of another length, which changes nothing in the video.
            file.write((9 + index).to_bytes(4, "big") + b"free" + bytes(1 + index))
    return library


def whole(library: Path, folder: Path) -> tuple[Usage, list[list[str]]]:
    """Ingest the library afresh; return usage and the ffmpeg commands it ran."""
    usage, found = ingest(WITHOUT_GATES, library, folder, 2)
    assert len(found) == FILES, f"{len(found)} of {FILES} renditions"
    return usage, [json.loads(path.read_text())["arguments"] for path in found]


def bare(commands: list[list[str]], folder: Path) -> Usage:
    """Run the commands two at a time, into a fresh folder."""
    outputs, lines = folder / "bare", folder / "commands"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir()
    renamed = [encode_only(c, outputs / f"{i}.mp4") for i, c in enumerate(commands)]
    lines.write_text("\n".join(shlex.quote(shlex.join(each)) for each in renamed))
    xargs = ["xargs", "-P", "2", "-n", "1", "-a", str(lines), "sh", "-c", 'exec sh -c "$0"']
    usage = run(["nice", "-n", str(NICE), *xargs])
    assert len(list(outputs.iterdir())) == FILES
    return usage


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    ours: list[Usage] = []
    theirs: list[Usage] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = library_of(folder)
        for _ in range(rounds):
            usage, commands = whole(library, folder)
            ours.append(usage)
            theirs.append(bare(commands, folder))
    walls = [used.wall_s for used in ours], [used.wall_s for used in theirs]
    cpus = [used.cpu_s for used in ours], [used.cpu_s for used in theirs]
    each = statistics.median(cpus[1]) / FILES
    return report(
        "library",
        [
            {"figure": "xargs -P 2", "value": statistics.median(walls[1]), "unit": "s"},
            {"figure": "CPU of one bare encode", "value": each, "unit": "s"},
            {"figure": "CPU of 10 files, 2 workers / xargs -P 2", "value": ratio(*cpus)},
            {
                "figure": "wall of 10 files, 2 workers / xargs -P 2",
                "value": ratio(*walls),
                "limit": 1.05,
            },
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
