"""Wall of a 10-file library with 2 workers / the same commands under `xargs -P 2`, without gates."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import Usage, clip, ingest, ratio, report, run

HERE = Path(__file__).resolve().parent
WITHOUT_GATES = [sys.executable, str(HERE / "hevcq_without_gates.py")]
FILES = 10


def whole(library: Path, folder: Path) -> tuple[Usage, list[list[str]]]:
    """Ingest the library afresh; return usage and the ffmpeg commands it ran."""
    usage, found = ingest(WITHOUT_GATES, library, folder, 2)
    assert len(found) == FILES, f"{len(found)} of {FILES} renditions"
    return usage, [json.loads(path.read_text())["arguments"] for path in found]


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "library"
        library.mkdir()
        for index in range(FILES):
            made = clip(folder, 6 + index % 3, "640x360")
            shutil.copy(made, library / f"{index}.mp4")
            with (library / f"{index}.mp4").open("ab") as file:
                # A free box of another length makes each file's bytes its own.
                file.write((9 + index).to_bytes(4, "big") + b"free" + bytes(1 + index))
        _, commands = whole(library, folder)
        lines = folder / "commands"
        (folder / "bare").mkdir()
        lines.write_text(
            "\n".join(
                shlex.quote(shlex.join([*c[:-1], f"file:{folder}/bare/{i}.mp4"]))
                for i, c in enumerate(commands)
            )
        )
        xargs = ["xargs", "-P", "2", "-n", "1", "-a", str(lines), "sh", "-c", 'exec sh -c "$0"']
        walls: dict[str, list[float]] = {"bare": [], "hevcq": []}
        for _ in range(rounds):
            walls["bare"].append(run(xargs).wall_s)
            walls["hevcq"].append(whole(library, folder)[0].wall_s)
            shutil.rmtree(folder / "bare")
            (folder / "bare").mkdir()
    return report(
        "library",
        [
            {
                "figure": "xargs -P 2",
                "value": sorted(walls["bare"])[len(walls["bare"]) // 2],
                "unit": "s",
            },
            {
                "figure": "wall of 10 files, 2 workers / xargs -P 2",
                "value": ratio(walls["hevcq"], walls["bare"]),
                "limit": 1.05,
            },
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
