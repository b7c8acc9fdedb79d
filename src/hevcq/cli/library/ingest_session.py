"""Run `hevcq ingest` with its display: print the plan, the closing table, and return the exit code."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from hevcq.cli.context import Cli
from hevcq.cli.exit_codes import ExitCode, exit_code
from hevcq.cli.output import ingest_report as report
from hevcq.cli.output import render
from hevcq.cli.output.live import open_display
from hevcq.domain.events import EventName, IngestEvent
from hevcq.errors import HevcqError
from hevcq.running.ingest import IngestApplication
from hevcq.usecases.ingest.decide import GONE, NOT_INGESTED, TO_PROCESS, UNDONE, IngestPlan, Item
from hevcq.usecases.ingest.request import IngestRequest
from hevcq.usecases.ingest.track import IngestSummary
from hevcq.util.signals import StopSignals
from hevcq.util.text import counted
from hevcq.wiring.app import App

LEFT_ALONE = {
    UNDONE: (
        "undone",
        "name the file itself, or `hevcq retry FOLDER --state done`, then this command.",
    ),
    GONE: ("without rendition", "`hevcq retry FOLDER --missing`, then this command."),
}
"""Reasons for which an ingest leaves a video alone: how it stays, and how to encode it again."""


class Session:
    def __init__(
        self, app: App, cli: Cli, requests: Sequence[IngestRequest], *, as_json: bool, dry_run: bool
    ) -> None:
        self._app, self._cli, self._as_json, self._dry = app, cli, as_json, dry_run
        self._began = app.clock.monotonic()
        self._watch = any(each.watch for each in requests)
        self._sampled = any(each.sample_s for each in requests)
        self._display = open_display(
            app.clock,
            as_json=as_json,
            quiet=cli.quiet,
            verbose=cli.verbose,
            terminal=sys.stderr.isatty(),
        )
        self._signals = StopSignals()
        self._ingest = IngestApplication(app, requests, self._display, self._signals)
        self._summary = self._ingest.summary

    def run(self, agreed: Callable[[IngestPlan], bool] = lambda _plan: True) -> ExitCode:
        """Run the ingest to its end, if the plan has work and `agreed` accepts it.

        A HevcqError that ends it early is raised after the closing table is printed.
        """
        ingest = self._ingest
        with self._signals, ExitStack() as held:
            if not self._dry:  # recovery changes files
                held.enter_context(ingest.lock())
                ingest.recover()
            with self._display:
                first = ingest.plan()
            items = self._print_plan(first)
            if self._watch:
                self._echo("Watching for new files; Ctrl-C stops.")
            if self._dry:
                return self._dry_run(first)
            if first.of(*TO_PROCESS) and not agreed(first):
                return ExitCode.SOME_FAILED
            try:
                with self._display:
                    ingest.work(items)
            except HevcqError as error:  # still print the closing table
                self._end(error)
                raise
        return self._end()

    def collect(self) -> ExitCode:
        """Move finished renditions to their place, without queueing or waiting."""
        with self._signals, self._display, self._ingest.lock():
            self._ingest.recover()
            self._ingest.collect_finished()
        if not self._summary.results:
            self._echo("Nothing to collect.")
        return self._end()

    def _print_plan(self, first: IngestPlan) -> Sequence[Item]:
        if not self._dry:
            first = self._ingest.record_failures(first, hide_old=self._cli.quiet)
        self._summary.add_planned(first)
        if self._dry:
            return first.items
        if self._cli.quiet and not self._as_json:
            for item in first.of(*NOT_INGESTED):  # these decide the exit code
                for line in report.problem_lines(item):
                    self._cli.warn(line)
        if first.of(*TO_PROCESS) or self._watch:  # otherwise the closing table shows everything
            width, every = render.screen_width(sys.stderr), self._cli.verbose
            for line in report.plan_lines(first, width, listed=every, every=every):
                self._echo(line)
            self._print_total(first)
        elif not first.items:
            self._print_total(first)
        return first.items

    def _print_total(self, first: IngestPlan) -> None:
        self._echo(report.plan_total(first))
        if self._app.settings.on_aws and first.cpu.high:
            self._echo(report.price_sentence(first, self._app.settings.prices))

    def _dry_run(self, first: IngestPlan) -> ExitCode:
        if not self._as_json:
            width = render.screen_width(sys.stdout)
            for line in report.plan_lines(first, width, listed=True, every=self._cli.verbose):
                render.emit(line)
            self._print_total(first)
            if self._sampled and any(item.cpu for item in first.items):
                self._echo(report.sample_sentence(first))
            self._print_left_alone()
        code = ingest_exit_code(self._summary)
        self._emit_summary(code, 0.0)
        return code

    def _end(self, error: HevcqError | None = None) -> ExitCode:
        """Print the closing table and totals; return the exit code, which is that of `error` if given."""
        summary = self._summary
        code = exit_code(error) if error is not None else ingest_exit_code(summary)
        self._emit_summary(code, self._app.clock.monotonic() - self._began)
        if not self._as_json and summary.results:
            if not self._cli.quiet:
                width = render.screen_width(sys.stdout)
                for line in report.closing_table(summary.results, width, every=self._cli.verbose):
                    render.emit(line)
                for line in report.notice_lines(summary.results, width):
                    render.emit(line)
            self._echo(report.total_sentence(summary))
            self._print_left_alone()
            for line in report.space_lines(summary, self._app.clock.now()):
                self._echo(line)
        if summary.interrupted:
            self._echo("Interrupted; run the same command to resume.")
        return code

    def _print_left_alone(self) -> None:
        for reason, (left, how) in LEFT_ALONE.items():
            if count := sum(each.reason == reason for each in self._summary.results):
                videos = f"{counted(count, 'video')} stay{'s' * (count == 1)} {left}"
                self._echo(f"{videos}. To encode {'it' if count == 1 else 'them'} again: {how}")

    def _emit_summary(self, code: ExitCode, seconds: float) -> None:
        self._display(
            IngestEvent(
                event=EventName.SUMMARY,
                at=self._app.clock.now(),
                counts={end.value: count for end, count in self._summary.counts().items()},
                bytes_saved=self._summary.saved,
                seconds=round(seconds, 2),
                exit_code=int(code),
            )
        )

    def _echo(self, words: str) -> None:
        if not self._as_json:
            self._cli.echo(words)


def ingest_exit_code(summary: IngestSummary) -> ExitCode:
    """Return the exit code of a finished ingest: interrupted, some failed or refused, or ok."""
    if summary.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if summary.all_good else ExitCode.SOME_FAILED
