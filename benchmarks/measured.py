"""Run whole commands and account for them: wall and CPU seconds of a process and its children."""

import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

OUT = Path(__file__).resolve().parent / "out"


@dataclass(frozen=True)
class Usage:
    """What one run of a command took."""

    wall_s: float
    cpu_s: float


def run(argv: list[str], environment: dict[str, str] | None = None) -> Usage:
    """Run a command to its end; its CPU counts every descendant it waited for."""
    began = time.perf_counter()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    child = subprocess.Popen(argv, **quiet, stderr=subprocess.PIPE, env=environment)
    assert child.stderr is not None
    words = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if child.returncode:
        raise SystemExit(
            f"{' '.join(argv)}: {child.returncode}: {words.decode(errors='replace')[-2000:]}"
        )
    return Usage(wall, usage.ru_utime + usage.ru_stime)


def ratio(numerators: list[float], denominators: list[float]) -> float:
    """Return the median of pairwise ratios, which drift of the machine's speed does not move."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def report(name: str, rows: list[dict[str, object]]) -> int:
    """Print rows of figure, value, limit; write them as JSON; return 1 if a limit is missed."""
    missed = False
    for row in rows:
        value, limit = row["value"], row.get("limit")
        ok = limit is None or (
            isinstance(value, float) and isinstance(limit, float) and value <= limit
        )
        row["ok"] = ok
        missed = missed or not ok
        bound = f"limit {limit}" if limit is not None else ""
        print(
            f"{row['figure']:<58} {value:10.4g} {row.get('unit', ''):<6} {bound}{'' if ok else '  MISSED'}"
        )
    OUT.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": name,
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "rows": rows,
    }
    (OUT / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0
