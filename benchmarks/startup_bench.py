"""How long `hevcq --help`, `--version` and `status` take, as ratios to `python -c pass`.

Run as `python benchmarks/startup_bench.py [ROUNDS]`. The commands are interleaved, so that a noisy
moment hits all of them; medians of wall and CPU time are compared. Prints a table and writes
benchmarks/out/startup.json. Exits 1 when a ratio is above its limit.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path(__file__).resolve().parent / "out" / "startup.json"
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


def measure(
    rounds: int, folder: str, environment: dict[str, str]
) -> dict[str, list[tuple[float, float]]]:
    """Return wall and CPU seconds of each command, round by round."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands(folder)}
    for _ in range(rounds):
        for name, (command, _limit) in commands(folder).items():
            start, before = time.perf_counter(), children_cpu_s()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            seen[name].append((time.perf_counter() - start, children_cpu_s() - before))
    return seen


def children_cpu_s() -> float:
    """Return the CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Measure, print, write, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEVCQ_", "XDG_"))}
        environment = {**kept, "HOME": folder}
        known = commands(folder)
        subprocess.run(
            known["hevcq status"][0], check=True, stdout=subprocess.DEVNULL, env=environment
        )
        seen = measure(rounds, folder, environment)
    base, base_cpu = (statistics.median(column) for column in zip(*seen[BASE], strict=True))
    rows = []
    for name, (_command, limit) in known.items():
        median, cpu = (statistics.median(column) for column in zip(*seen[name], strict=True))
        ratio, cpu_ratio = median / base, cpu / base_cpu
        ok = limit is None or max(ratio, cpu_ratio) <= limit
        row = {"command": name, "median_s": median, "ratio": ratio, "limit": limit, "ok": ok}
        rows.append({**row, "cpu_s": cpu, "cpu_ratio": cpu_ratio})
        bound = f"limit {limit}" if limit else ""
        print(
            f"{name:<22} {median * 1000:7.1f} ms  {ratio:6.2f} x  CPU {cpu_ratio:6.2f} x  "
            f"{bound}{'' if ok else '  MISSED'}"
        )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    report = {"benchmark": "startup", "rounds": rounds, "cores": os.cpu_count(), "rows": rows}
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
