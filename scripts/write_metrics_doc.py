"""Fill the table of docs/farm/metrics.md from the code, between `<!-- metrics -->` and its end.

Run as `python scripts/write_metrics_doc.py`; `--check` writes nothing, exits 1 when stale.
"""

import sys
from pathlib import Path

from hevcq.worker.monitoring.metrics import METRICS

TARGET = Path(__file__).resolve().parent.parent / "docs" / "farm" / "metrics.md"
START, END = "<!-- metrics -->\n", "<!-- /metrics -->"


def table() -> str:
    """Return the metrics as a Markdown table."""
    rows = [
        "| CloudWatch | Prometheus | kind | unit | labels | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for metric in METRICS.values():
        labels = ", ".join(metric.labels) or "none"
        rows.append(
            f"| `{metric.name}` | `{metric.exposed}` | {metric.kind} "
            f"| {metric.unit} | {labels} | {metric.meaning} |"
        )
    return "\n".join(rows)


def filled(page: str) -> str:
    """Return the page with its table up to date."""
    head, _, rest = page.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}{table()}\n{END}{tail}"


def main() -> int:
    """Write the file, or check it."""
    page = TARGET.read_text(encoding="utf-8")
    text = filled(page)
    if "--check" in sys.argv[1:]:
        return 0 if page == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
