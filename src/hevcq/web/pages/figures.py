"""Figures over time: savings, renditions, failures, quality, kept originals, and this machine's load."""

import csv
import io
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import psutil
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from hevcq.usecases import stats
from hevcq.usecases.stats import Line, Report
from hevcq.util.text import bars_svg, duration, size
from hevcq.web.rendering import page
from hevcq.web.services import OperatorRoute, services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import up_to_date_log

SPANS = {"30d": "30 days", "90d": "90 days", "1y": "a year", "all": "all time"}
DEFAULT_SPAN = "30d"
MAX_DAYS = 100
"""Up to this many days a bar is a day, otherwise a month."""


def routes() -> Sequence[BaseRoute]:
    return (
        OperatorRoute("/board/figures", figures),
        OperatorRoute("/board/figures.csv", figures_csv),
    )


def figures(request: Request) -> Response:
    app = services_of(request).app
    span, first, last = _span(request, app)
    report = stats.report(up_to_date_log(app), first, last, stats.library_names(app.settings))
    return page(
        request,
        "figures.html",
        made=report,
        originals=stats.originals_now(app.library_ports),
        charts=charts(report),
        machine=[] if app.settings.on_aws else machine(app),
        groups=(
            ("library", report.libraries),
            ("profile", report.profiles),
            ("codec", report.codecs),
        ),
        spans=SPANS,
        span=span,
        now=app.clock.now(),
    )


def machine(app: App) -> list[tuple[str, str]]:
    """Return this machine's load, and the free memory and disk space, in words."""
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    rows = [("Load of 1, 5 and 15 minutes", f"{loads} on {os.cpu_count() or 1} cores")]
    memory = psutil.virtual_memory()
    rows.append(("Memory", f"{size(memory.available)} of {size(memory.total)} free"))
    folders = [("Data folder", app.settings.data_dir)]
    for library in app.settings.libraries:
        folders.append((f"Library {library.name}", library.path))
        if library.output is not None:
            folders.append((f"Output of {library.name}", library.output))
    return rows + [(name, _room(folder)) for name, folder in folders]


def _room(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"{size(usage.free)} of {size(usage.total)} free"


def figures_csv(request: Request) -> Response:
    """Return the daily sums as `hevcq libraries stats --csv` prints them."""
    app = services_of(request).app
    span, first, last = _span(request, app)
    rows = stats.rows(up_to_date_log(app), first, last)
    out = io.StringIO()
    names = stats.library_names(app.settings)
    csv.writer(out).writerows([stats.CSV_COLUMNS, *stats.csv_rows(rows, names)])
    name = f'attachment; filename="hevcq-figures-{span}.csv"'
    return Response(out.getvalue(), media_type="text/csv", headers={"Content-Disposition": name})


def _span(request: Request, app: App) -> tuple[str, date, date]:
    now = app.clock.now()
    requested = request.query_params.get("since", "")
    span = requested if requested in SPANS else DEFAULT_SPAN
    first = stats.FIRST if span == "all" else stats.since_of(span, now)
    return span, first, stats.day_of(now)


def charts(report: Report) -> list[tuple[str, Markup, list[tuple[str, str]]]]:
    """Return each figure's title, its bars as SVG ("" if there are none), and its numbers as a table."""
    bars: list[tuple[str, Line]] = [(each.name, each) for each in report.months]
    days = (report.until - report.since).days
    if days <= MAX_DAYS:
        by_day: Mapping[str, Line] = {line.name: line for line in report.days}
        names = ((report.since + timedelta(days=n)).isoformat() for n in range(days + 1))
        bars = [(name, by_day.get(name, Line(name))) for name in names]
    figures: Sequence[tuple[str, Callable[[Line], float], Callable[[float], str]]] = (
        ("Smaller by", lambda line: line.saved, lambda value: size(round(value))),
        ("Renditions made", lambda line: line.renditions, "{:.0f}".format),
        ("CPU time", lambda line: line.cpu_h, lambda value: duration(value * 3600)),
        ("Failed", lambda line: line.failed, "{:.0f}".format),
        (
            "Measured VMAF, where a profile has a target",
            lambda line: line.verified,
            "{:.1f}".format,
        ),
    )
    return [
        (
            title,
            Markup(bars_svg([(name, of(line)) for name, line in bars], title, shown)),  # noqa: S704 - it escapes names
            [(name, shown(of(line))) for name, line in bars if of(line)],
        )
        for title, of, shown in figures
    ]
