"""What hevcq adds to one long encode: CPU of everything it does / CPU of the identical bare ffmpeg.

Run as `python benchmarks/encode_bench.py [ROUNDS]`. The bare command is the one in the certificate.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import Usage, clip, ingest, ratio, report, run

HERE = Path(__file__).resolve().parent
HEVCQ = [str(Path(sys.executable).parent / "hevcq")]
WITHOUT_GATES = [sys.executable, str(HERE / "hevcq_without_gates.py")]


def one(command: list[str], library: Path, folder: Path) -> tuple[Usage, dict[str, object]]:
    """Ingest a one-file library afresh; return usage and certificate."""
    usage, (certificate,) = ingest(command, library, folder, 1)
    return usage, json.loads(certificate.read_text())


def bare(arguments: list[str], output: Path) -> list[str]:
    """Return the certificate's command with its output moved."""
    return [*arguments[:-1], f"file:{output}"]


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "library"
        library.mkdir()
        source = clip(folder, 16, "1920x1080")
        os.link(source, library / source.name) if source.parent == folder else shutil.copy(
            source, library
        )
        _, certificate = one(HEVCQ, library, folder)
        arguments = [str(a) for a in certificate["arguments"]]  # type: ignore[attr-defined]
        print("bare:", shlex.join(arguments[:1]), f"… {source.name}")
        seen: dict[str, list[Usage]] = {"bare": [], "without": [], "with": []}
        for _ in range(rounds):
            output = folder / f"bare{Path(arguments[-1]).suffix}"
            seen["bare"].append(run(bare(arguments, output)))
            output.unlink()
            seen["without"].append(one(WITHOUT_GATES, library, folder)[0])
            seen["with"].append(one(HEVCQ, library, folder)[0])
    cpu = {key: [u.cpu_s for u in values] for key, values in seen.items()}
    wall = {key: [u.wall_s for u in values] for key, values in seen.items()}
    return report(
        "encode",
        [
            {
                "figure": "bare ffmpeg",
                "value": sorted(cpu["bare"])[len(cpu["bare"]) // 2],
                "unit": "CPU s",
            },
            {
                "figure": "CPU without gates / bare",
                "value": ratio(cpu["without"], cpu["bare"]),
                "limit": 1.02,
            },
            {
                "figure": "CPU with all default gates / bare",
                "value": ratio(cpu["with"], cpu["bare"]),
                "limit": 1.10,
            },
            {"figure": "wall without gates / bare", "value": ratio(wall["without"], wall["bare"])},
            {
                "figure": "wall with all default gates / bare",
                "value": ratio(wall["with"], wall["bare"]),
            },
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
