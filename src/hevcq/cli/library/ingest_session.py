"""Run `hevcq ingest` with its display: announce the plan, then print the table and exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import typer

from hevcq.cli.context import fitting
from hevcq.cli.exit_codes import ExitCode, exit_code, ingest_exit_code
from hevcq.cli.library.ingest_options import Options
from hevcq.cli.output import ingest_report as report
from hevcq.cli.output import table as render
from hevcq.cli.output.live import Display, open_display
from hevcq.cli.output.plan_report import problem, screen, total
from hevcq.domain.events import EventName, IngestEvent
from hevcq.errors import HevcqError, UsageError
from hevcq.running.ingest import IngestApplication
from hevcq.usecases.ingest.decide import NOT_INGESTED, TO_PROCESS, IngestPlan, Item
from hevcq.usecases.ingest.summary import IngestSummary
from hevcq.util.text import counted
from hevcq.wiring.app import App, stop_signals


def run_shown(app: App, options: Options) -> ExitCode:
    """Run an ingest with its display; return the exit code.

    Raises UsageError for --workers without the embedded backend, and any HevcqError that ends the
    ingest early.
    """
    display, began = create_display(app, options), app.clock.monotonic()
    if options.workers is not None and app.settings.backend != "embedded":
        raise UsageError(
            "--workers only works with the embedded backend; on aws the fleet encodes."
        )
    with stop_signals() as signals, ExitStack() as held:
        ingest = IngestApplication(app, options.requests(), display, signals)
        if not options.dry_run:  # recovery changes files
            held.enter_context(ingest.in_use())
            ingest.recover()
        with display:
            first = ingest.plan()
        items = _announced(ingest.summary, first, options)
        if options.watch:
            echo(options, "Watching for new files; Ctrl-C stops.")
        if options.dry_run:
            return _dry(app, ingest.summary, first, options, display)
        try:
            with display:
                ingest.work(items)
        except HevcqError as error:  # still print what was done
            print_result(app, ingest.summary, options, display, began, error)
            raise
    code = print_result(app, ingest.summary, options, display, began)
    left = ingest.others_queued()
    if left:
        tasks = counted(left, "task")
        echo(options, f"{tasks} of other folders left in the queue; `hevcq worker` does them.")
    if options.skip_upload:
        ingest.require_profiles()
    return code


def collect(app: App, options: Options) -> ExitCode:
    """Put finished renditions in place, without queueing or waiting; return the exit code."""
    display, began = create_display(app, options), app.clock.monotonic()
    with stop_signals() as signals, display:
        ingest = IngestApplication(app, options.request(), display, signals)
        with ingest.in_use():
            ingest.recover()
            ingest.collect_finished()
    if not ingest.summary.results:
        echo(options, "Nothing to collect.")
    code = print_result(app, ingest.summary, options, display, began)
    ingest.require_profiles()
    return code


def create_display(app: App, options: Options) -> Display:
    """Return the display that these options and this terminal ask for."""
    return open_display(
        app.clock,
        as_json=options.as_json,
        quiet=options.quiet,
        verbose=options.verbose,
        terminal=sys.stderr.isatty(),
    )


def _announced(
    summary: IngestSummary, first: IngestPlan | Sequence[Item], options: Options
) -> Sequence[Item]:
    """Print the plan; return its items."""
    if not isinstance(first, IngestPlan):
        echo(options, f"{len(first)} queued earlier, not in place yet.")
        return first
    summary.add_planned(first)
    if options.dry_run:
        return first.items
    if options.quiet and not options.as_json:
        for item in first.of(*NOT_INGESTED):  # they decide the exit code
            for line in problem(item):
                typer.echo(line, err=True)
    if not first.of(*TO_PROCESS) and not options.watch:
        if not first.items:
            echo(options, total(first))
        return first.items  # the closing table shows it all
    width = render.screen_width(sys.stderr)
    for line in screen(first, width, listed=options.verbose, every=options.verbose):
        echo(options, line)
    echo(options, total(first))
    return first.items


def _dry(
    app: App,
    summary: IngestSummary,
    first: IngestPlan | Sequence[Item],
    options: Options,
    display: Display,
) -> ExitCode:
    if isinstance(first, IngestPlan) and not options.as_json:
        width = render.screen_width(sys.stdout)
        for line in screen(first, width, listed=True, every=options.verbose):
            render.emit(line)
        echo(options, total(first))
    code = ingest_exit_code(summary)
    _emit_summary(app, summary, code, display, 0.0)
    return code


def print_result(
    app: App,
    summary: IngestSummary,
    options: Options,
    display: Display,
    began: float,
    error: HevcqError | None = None,
) -> ExitCode:
    """Print the closing table and totals; return the exit code, that of `error` if given.

    `began` is when the ingest began, in monotonic seconds.
    """
    code = exit_code(error) if error is not None else ingest_exit_code(summary)
    _emit_summary(app, summary, code, display, app.clock.monotonic() - began)
    if not options.as_json and summary.results:
        if not options.quiet:
            width = render.screen_width(sys.stdout)
            for line in report.table(summary.results, width, every=options.verbose):
                render.emit(line)
            for line in report.changes(summary.results, width):
                render.emit(line)
        echo(options, report.total(summary))
        for line in report.space(summary, app.clock.now()):
            echo(options, line)
    if summary.interrupted:
        echo(options, "Interrupted; run the same command to resume.")
    return code


def _emit_summary(
    app: App, summary: IngestSummary, code: ExitCode, display: Display, seconds: float
) -> None:
    display(
        IngestEvent(
            event=EventName.SUMMARY,
            at=app.clock.now(),
            counts={end.value: count for end, count in summary.counts().items()},
            bytes_saved=summary.saved,
            seconds=round(seconds, 2),
            exit_code=int(code),
        )
    )


def echo(options: Options, words: str) -> None:
    """Print a message on stderr, unless --quiet or --json."""
    if not options.quiet and not options.as_json:
        typer.echo(fitting(words), err=True)
