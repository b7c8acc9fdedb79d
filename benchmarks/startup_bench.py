"""How long `hevcq --help`, `--version` and `status` take, as ratios to `python -c pass`.

Run as `python benchmarks/startup_bench.py [ROUNDS]`. The commands are interleaved, so that a noisy
moment hits all of them; medians of wall and CPU time are compared. Prints a table and writes
benchmarks/out/startup.json. Exits 1 when a ratio is above its limit.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measured import Usage, ratio, report, run

HEVCQ = str(Path(sys.executable).parent / "hevcq")
LIMIT = 8.0
STATUS_LIMIT = 32.0
"""typer and pydantic alone take 11; the settings, the profiles, the models and SQLite the rest."""
ROUNDS = 20
BASE = "python -c pass"


def commands(folder: str) -> dict[str, tuple[list[str], float | None]]:
    """Return each measured command, on the data folder `folder`, with its limit or None."""
    hevcq = [HEVCQ, "--data-dir", folder]
    return {
        BASE: ([sys.executable, "-c", "pass"], None),
        "hevcq --help": ([HEVCQ, "--help"], LIMIT),
        "hevcq --version": ([HEVCQ, "--version"], LIMIT),
        "hevcq status": ([*hevcq, "status"], STATUS_LIMIT),
        "hevcq profiles list": ([*hevcq, "profiles", "list"], None),
    }


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEVCQ_", "XDG_"))}
        environment = {**kept, "HOME": folder}
        known = commands(folder)
        run(known["hevcq status"][0], environment)  # makes the data folder
        seen: dict[str, list[Usage]] = {name: [] for name in known}
        for _ in range(rounds):
            for name, (command, _limit) in known.items():
                seen[name].append(run(command, environment))
    rows: list[dict[str, object]] = []
    for name, (_command, limit) in known.items():
        for kind in ("wall_s", "cpu_s"):
            of, base = ([getattr(usage, kind) for usage in seen[each]] for each in (name, BASE))
            figure = f"{kind.removesuffix('_s')} of {name} / {BASE}"
            rows.append({"figure": figure, "value": ratio(of, base), "limit": limit})
    return report("startup", rows)


if __name__ == "__main__":
    sys.exit(main())
