"""Fill README's figures and docs/figures.md from the last benchmark run: benchmarks/out/*.json.

Run `make bench` on an idle machine first, then `python scripts/write_figures.py`. README gets the
five of IN_README; docs/figures.md gets them all, a section for each benchmark.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
DOC = ROOT / "docs" / "figures.md"
START, END = "<!-- figures -->\n", "<!-- /figures -->"
HEAD = ["| figure | measured | goal |", "|---|---|---|"]
DOC_HEAD = """# Figures

Everything that `make bench` measures, from its last run; `python scripts/write_figures.py` writes
this page from `benchmarks/out/*.json`. Ratios are medians of runs interleaved with what they are
compared to; absolute times hold for the machine named.
"""
FLEET = re.compile(r"^\d+ h, \d+ workers: (.*)$")
"""Rows of one measure for many fleets: README shows the worst of each, with its goal."""
IN_README = (
    "CPU with all default gates / bare",
    "wall of 10 files, 2 workers / xargs -P 2",
    "embedded: lost by the worst kill / longest chunk",
    "second scan / probing",
    "2 h, 64 workers: makespan / bound (the worst)",
)
WORDS = {
    "cycle_us": "send + claim + acknowledge, wall µs",
    "cycle_cpu_us": "send + claim + acknowledge, CPU µs",
    "bare_us": "three bare sqlite3 statements, wall µs",
    "cycle_speed_vs_bare": "speed of send + claim + acknowledge / three bare sqlite3 statements",
    "cycle_cpu_speed_vs_bare": "the same in CPU time",
    "cycles_per_cpu_s": "send + claim + acknowledge per CPU second",
    "send_alone_us": "one send, wall µs",
    "send_of_8_threads_vs_alone": "a send among 8 threads / a send alone",
    "send_to_held_p50_ms": "enqueue to held by a waiting worker, p50 ms",
    "send_to_held_p95_ms": "enqueue to held by a waiting worker, p95 ms",
    "idle_core_share_of_4_consumers": "share of a core that 4 idle consumers use",
    "claim_small_us": "claim from 1,000 waiting tasks, µs",
    "claim_large_us": "claim from the large backlog, µs",
    "claim_large_vs_small": "claim from the large backlog / from 1,000",
    "depth_of_large_ms": "depth of the large backlog, ms",
    "rss_growth_mib": "memory growth over the backlog, MiB",
}


def label(row: dict[str, Any]) -> str:
    """Return a row's name in words: benchmarks of commands are ratios to a bare interpreter."""
    name = row.get("figure")
    if name is None:
        return f"`{row['command']}` / `python -c pass`"
    head, colon, tail = str(name).partition(": ")
    return f"{head}: {WORDS.get(tail, tail)}" if colon else WORDS.get(head, head)


def cells(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return name, measured value and goal as printed."""
    value, limit = row.get("value", row.get("ratio")), row.get("limit")
    shown = f"{value:.3g}" if isinstance(value, int | float) else str(value)
    goal = "" if limit is None else f"{row.get('sense', '≤')} {limit:g}"
    return label(row), f"{shown} {row.get('unit', '')}".strip(), goal


def met(row: dict[str, Any]) -> bool:
    """Whether a row's value is within its limit; what is not a number is not."""
    value, limit = row.get("value", row.get("ratio")), row["limit"]
    if not isinstance(value, int | float):
        return False
    return bool(value >= limit if row.get("sense", "≤") == "≥" else value <= limit)


def line(row: dict[str, Any]) -> str:
    """Return a row of the table; a goal that was missed says so."""
    name, shown, goal = cells(row)
    missed = " (missed)" if goal and not met(row) else ""
    return f"| {name} | {shown}{missed} | {goal} |".replace("|  |", "| |")


def conditions(reports: list[dict[str, Any]]) -> str:
    """Return in words when and on what the reports were made."""
    dates = sorted({report["date"] for report in reports if "date" in report})
    cores = sorted({str(report["cores"]) for report in reports if "cores" in report})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "date unknown"
    return f"{when}, {'/'.join(cores) or '?'} shared cores"


def worst(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the fleets of one measure and goal brought down to their worst."""
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    for row in rows:
        of_fleet = FLEET.match(label(row))
        key = (of_fleet[1] if of_fleet else label(row), row["limit"])
        if key not in found or row["value"] > found[key]["value"]:
            found[key] = {**row, "figure": f"{label(row)} (the worst)"} if of_fleet else row
    return list(found.values())


def readme_block(reports: list[dict[str, Any]]) -> str:
    """Return what README shows: the figures of IN_README, met or missed."""
    goals = [row for report in reports for row in report["rows"] if row.get("limit") is not None]
    rows = [row for row in worst(goals) if label(row) in IN_README]
    rows.sort(key=lambda row: IN_README.index(label(row)))
    first = (
        f"`make bench`, {conditions(reports)}; ratios are medians of interleaved runs. "
        "[docs/figures.md](docs/figures.md) has every figure, those without a goal too."
    )
    return "\n".join([first, "", *HEAD, *map(line, rows), ""])


def page(reports: list[dict[str, Any]]) -> str:
    """Return docs/figures.md."""
    parts = [DOC_HEAD]
    for report in reports:
        name = report.get("benchmark", "")
        where = f"`python -m benchmarks {name}`, {conditions([report])}."
        parts.append(
            "\n".join([f"## {name}", "", where, "", *HEAD, *map(line, report["rows"]), ""])
        )
    return "\n".join(parts)


def main() -> int:
    """Write both; 1 if there is no report or no place for it."""
    paths = sorted(OUT.glob("*.json"))
    reports = [{"benchmark": p.stem, **json.loads(p.read_text(encoding="utf-8"))} for p in paths]
    reports = [report for report in reports if report.get("rows")]
    if not reports:
        print("no report in benchmarks/out: run `make bench` first")
        return 1
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head, opened, rest = readme.partition(START)
    _, closed, tail = rest.partition(END)
    if not opened or not closed:
        print("README.md has no figures marks")
        return 1
    block = readme_block(reports)
    (ROOT / "README.md").write_text(head + START + block + END + tail, encoding="utf-8")
    DOC.write_text(page(reports), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
