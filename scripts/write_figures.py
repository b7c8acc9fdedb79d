"""Fill README's figures from the last benchmark run: benchmarks/out/*.json between the marks.

Run `make bench` on an idle machine first, then `python scripts/write_figures.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
START, END = "<!-- figures -->\n", "<!-- /figures -->"


def rows(report: dict[str, Any]) -> list[str]:
    """Return the table rows of one benchmark's report."""
    found = []
    for row in report["rows"]:
        name = row.get("figure") or f"{row['command']} / bare python"
        value = row.get("value", row.get("ratio"))
        limit = row.get("limit")
        goal = "" if limit is None else f"{row.get('sense', '≤')} {limit:g}"
        unit = row.get("unit", "")
        found.append(f"| {name} | {value:.3g} {unit} | {goal} |".replace("  |", " |"))
    return found


def main() -> int:
    """Write the table; 1 if there is no report."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(OUT.glob("*.json"))]
    if not reports:
        print("no report in benchmarks/out: run `make bench` first")
        return 1
    dates = sorted({report["date"] for report in reports if "date" in report})
    cores = {report["cores"] for report in reports}
    lines = [
        (
            f"`make bench`, {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, "
            f"{'/'.join(str(c) for c in sorted(cores))} shared cores; ratios are medians of interleaved runs."
        ),
        "",
        "| figure | measured | goal |",
        "|---|---|---|",
        *[row for report in reports for row in rows(report)],
        "",
    ]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    head, opened, rest = readme.partition(START)
    _, closed, tail = rest.partition(END)
    if not opened or not closed:
        print("README.md has no figures marks")
        return 1
    (ROOT / "README.md").write_text(head + START + "\n".join(lines) + END + tail, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
