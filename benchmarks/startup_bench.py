"""How long `hevcq --help`, `--version` and `status` take, as ratios to `python -c pass`.

Run as `python benchmarks/startup_bench.py [ROUNDS]`. The commands are interleaved, so that a noisy
moment hits all of them; medians are compared. Prints a table and writes benchmarks/out/startup.json.
Exits 1 when a ratio is above its limit.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path(__file__).resolve().parent / "out" / "startup.json"
HEVCQ = str(Path(sys.executable).parent / "hevcq")
LIMIT = 3.0
ROUNDS = 20
BASE = "python -c pass"


def commands() -> dict[str, tuple[list[str], float | None]]:
    """Return each measured command with its limit; `doctor`-like commands have none."""
    return {
        BASE: ([sys.executable, "-c", "pass"], None),
        "hevcq --help": ([HEVCQ, "--help"], LIMIT),
        "hevcq --version": ([HEVCQ, "--version"], LIMIT),
        "hevcq status": ([HEVCQ, "status"], LIMIT),
        "hevcq profiles list": ([HEVCQ, "profiles", "list"], None),
    }


def measure(rounds: int, environment: dict[str, str]) -> dict[str, list[float]]:
    """Return wall seconds of each command, round by round."""
    seen: dict[str, list[float]] = {name: [] for name in commands()}
    for _ in range(rounds):
        for name, (command, _limit) in commands().items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            seen[name].append(time.perf_counter() - start)
    return seen


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEVCQ_", "XDG_"))}
        environment = {**kept, "HEVCQ_DATA_DIR": folder, "HOME": folder}
        subprocess.run(
            [HEVCQ, "status", "--json"], check=True, stdout=subprocess.DEVNULL, env=environment
        )
        seen = measure(rounds, environment)
    base = statistics.median(seen[BASE])
    rows = []
    for name, (_command, limit) in commands().items():
        median = statistics.median(seen[name])
        ratio = median / base
        ok = limit is None or ratio <= limit
        rows.append({"command": name, "median_s": median, "ratio": ratio, "limit": limit, "ok": ok})
        bound = f"limit {limit}" if limit else ""
        print(
            f"{name:<22} {median * 1000:7.1f} ms  {ratio:6.2f} x  {bound}{'' if ok else '  MISSED'}"
        )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    report = {"benchmark": "startup", "rounds": rounds, "cores": os.cpu_count(), "rows": rows}
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
