"""`hevcq libraries stats`: what was saved when, and what it took."""

import csv
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from hevcq.cli.context import AsJson, cli_of
from hevcq.cli.output import render
from hevcq.cli.output.render import day
from hevcq.errors import UsageError
from hevcq.usecases import stats as sums
from hevcq.usecases.stats import Line, Originals, Report
from hevcq.util.text import counted, duration, size
from hevcq.wiring.contexts import up_to_date_log

WIDTH = 80
FEW_DAYS = 45
"""Up to so many days there is a line for each, else for each month."""
MAX_LINES = 24
NOTHING = "Nothing was encoded yet, as far as this data folder knows."


def stats(
    ctx: typer.Context,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="First day: 90d, 6m, 2y or 2026-01-31."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the daily sums as CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was saved when, by library, profile and codec.

    "Smaller" compares renditions with their sources; only a replaced original frees space.
    Reads daily totals, which are kept permanently. On AWS they are kept on this machine; its ledger
    forgets an ended job after half a year, so run this at least that often. Days are in UTC.
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other.")
    with cli_of(ctx).app() as app:
        now = app.clock.now()
        first = sums.FIRST if since is None else sums.since_of(since, now)
        log, last = up_to_date_log(app), sums.day_of(now)
        library = sums.library_names(app.settings)
        if as_csv:
            found = sums.rows(log, first, last)
            csv.writer(sys.stdout, lineterminator="\n").writerows(
                [sums.CSV_COLUMNS, *sums.csv_rows(found, library)]
            )
            return
        made = sums.report(log, first, last, library)
        made = replace(made, originals=sums.originals_now(app.library_ports))
    if as_json:
        render.emit_json(made.to_dict())
        return
    for line in _text(made):
        render.emit(line)


def _text(made: Report) -> list[str]:
    total, kept = made.total, _kept(made.originals)
    if not (total.renditions or total.failed or made.skipped):
        return [NOTHING, *kept]
    out = [
        (
            f"Since {made.since}: {counted(total.renditions, 'rendition')} made, "
            f"{size(total.before)} became "
            f"{size(total.after)}{_share(total)}, {_cpu(total)} of CPU."
        )
    ]
    if made.replaced:
        were = "was" if made.undone == 1 else "were"
        back = f"; {made.undone} {were} put back" if made.undone else ""
        freed = _saved(made.freed)
        if made.freed >= 0:
            freed = f"{size(made.freed)} free once their originals are no longer kept"
        out.append(f"Replaced {counted(made.replaced, 'video')}: {freed}{back}.")
    elif total.renditions:
        out.append("No original was replaced, so no space is freed.")
    classes = ", ".join(f"{name or 'other'} {n}" for name, n in made.failures.items())
    failed = f"failed {total.failed} ({classes})" if total.failed else "failed none"
    out.append(f"Skipped {made.skipped}, {failed}, attempts repeated {made.retries}.")
    if total.scored:
        out.append(
            f"Quality: VMAF {total.verified:.1f} measured where {total.target:.1f} was asked for, the mean "
            f"of {counted(total.scored, 'rendition')}."
        )
    out = [line for sentence in out for line in textwrap.wrap(sentence, WIDTH)]
    days = (made.until - made.since).days < FEW_DAYS
    for title, lines in (
        ("day", made.days[-MAX_LINES:]) if days else ("month", made.months[-MAX_LINES:]),
        ("library", made.libraries),
        ("profile", made.profiles),
        ("codec", made.codecs),
    ):
        out += ["", *_table(title, lines)]
    return [*out, *kept]


def _kept(kept: Originals) -> list[str]:
    """Return what the kept originals still hold, and until when; nothing if there are none."""
    if not kept.count:
        return []
    ends = "they are kept for good"
    if kept.first_end is not None and kept.last_end is not None:
        ends = f"the first goes {day(kept.first_end)}, the last {day(kept.last_end)}"
    return ["", f"Kept: {counted(kept.count, 'original')}, {size(kept.size)}; {ends}."]


def _table(title: str, lines: Sequence[Line]) -> list[str]:
    cells, scored = [], any(line.scored for line in lines)
    for line in lines:
        sizes = (size(line.before), size(line.after), _saved(line.saved))
        quality = f"{line.verified:.1f}/{line.target:.0f}" if line.scored else ""
        row = [line.name, str(line.renditions), *sizes, _cpu(line), str(line.failed)]
        cells.append([*row, quality] if scored else row)
    columns = [title, "made", "before", "after", "smaller", "CPU", "failed"]
    columns += ["VMAF"] if scored else []
    return list(render.fit(columns, cells, WIDTH))


def _cpu(line: Line) -> str:
    return duration(line.cpu_h * 3600)


def _saved(count: int) -> str:
    return size(count) if count >= 0 else f"{size(-count)} more"


def _share(line: Line) -> str:
    if not line.before:
        return ""
    percent = 100 * line.saved / line.before
    return f" ({percent:.0f} % less)" if percent >= 0 else f" ({-percent:.0f} % more)"
