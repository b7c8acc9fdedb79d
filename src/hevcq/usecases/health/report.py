"""Write the report of a health check as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hevcq.ports.health import Checked, Health, Spot
from hevcq.util.text import moment, printable

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Health of a library</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid #ccc; overflow-wrap: anywhere; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #eee; background: #181818; }} }}
</style></head><body>
<h1>Health of a library</h1>
<p>{when}. {summary}</p>
{table}
</body></html>
"""


def where(spots: Sequence[Spot]) -> str:
    """Return where the damage is, as `at 0:00:12.4 (byte 123)`; "" if that is not known."""
    return ", ".join(_place(spot) for spot in spots if spot.time_s is not None or spot.byte)


def summary(checked: Sequence[Checked]) -> str:
    """Return the counts as a sentence."""
    counts = Counter(each.health for each in checked)
    by_health = [f"{counts[health]:,} {health.value}" for health in Health if counts[health]]
    files = "1 file" if len(checked) == 1 else f"{len(checked):,} files"
    return f"{files} read: {', '.join(by_health)}." if checked else "No file was due."


def write_html(path: Path, checked: Sequence[Checked], at: float) -> None:
    """Write the page; every name and sentence in it is escaped. Raises OSError."""
    rows = "".join(
        f"<tr><td>{_text(each.path)}</td><td>{each.health.value}</td>"
        f"<td>{_text(each.detail)}<br>{_text(where(each.spots))}</td></tr>\n"
        for each in checked
        if each.health is not Health.SOUND
    )
    heads = "<tr><th>file</th><th>health</th><th>what and where</th></tr>"
    table = f"<table>{heads}\n{rows}</table>" if rows else "<p>Nothing is wrong.</p>"
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = PAGE.format(when=when, summary=_text(summary(checked)), table=table)
    path.write_text(page, encoding="utf-8")


def _place(spot: Spot) -> str:
    byte = "" if spot.byte is None else f"byte {spot.byte}"
    if spot.time_s is None:
        return f"at {byte}"
    time = moment(max(0.0, spot.time_s))
    return f"at {time} ({byte})" if byte else f"at {time}"


def _text(value: object) -> str:
    return html.escape(printable(value))
