"""Show an ingest while it runs: live on a terminal, as lines elsewhere, as NDJSON on request."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from hevcq.cli.display_board import Board, Row
from hevcq.cli.display_text import LOUD, QUIET, about, duration, sentence, size
from hevcq.domain.events import EventName, IngestEvent
from hevcq.util.clock import Clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PATH_COLUMN = 44
LOG_PROGRESS_S = 30.0
"""How often a log line tells the progress of all, where there is no terminal."""
FRAMES_PER_SECOND = 4


class Display(ABC):
    """Takes events from any thread between enter and exit."""

    def __enter__(self) -> Self:
        """Start showing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End showing; what was said stays."""
        return

    @abstractmethod
    def __call__(self, event: IngestEvent) -> None:
        """Take in one event."""


class JsonLines(Display):
    """One JSON object a line on stdout: the contract of `domain.events`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        self._lock = threading.Lock()

    def __call__(self, event: IngestEvent) -> None:
        """Print the event and flush, so that a reader at a pipe sees it now."""
        with self._lock:
            self._out.write(event.to_line() + "\n")
            self._out.flush()


class LogLines(Display):
    """Sentences on stderr, and the progress of all now and then: for pipes, cron and systemd."""

    def __init__(
        self, clock: Clock, *, quiet: bool = False, verbose: bool = False, out: TextIO | None = None
    ) -> None:
        self._clock, self._quiet, self._verbose = clock, quiet, verbose
        self._out = out if out is not None else sys.stderr
        self._board = Board()
        self._lock = threading.Lock()
        self._next = clock.monotonic() + LOG_PROGRESS_S

    def __call__(self, event: IngestEvent) -> None:
        """Print the event's sentence, if there is one at this verbosity."""
        with self._lock:
            self._board.apply(event)
            if self._speaks(event):
                self._say(sentence(event))
            if not self._quiet and self._clock.monotonic() >= self._next and self._board.open > 0:
                self._next = self._clock.monotonic() + LOG_PROGRESS_S
                self._say(overall(self._board, self._clock.now()))

    def _speaks(self, event: IngestEvent) -> bool:
        if self._quiet:
            return event.event in QUIET
        return self._verbose or event.event not in LOUD

    def _say(self, words: str | None) -> None:
        if words:
            self._out.write(words + "\n")
            self._out.flush()


class Live(Display):
    """A rich display on a terminal: the jobs that run, and a line for the whole."""

    def __init__(self, clock: Clock, console: Console, *, verbose: bool = False) -> None:
        from rich.live import Live as RichLive

        self._clock, self._console, self._verbose = clock, console, verbose
        self._board = Board()
        self._lock = threading.Lock()
        self._live = RichLive(
            console=console,
            refresh_per_second=FRAMES_PER_SECOND,
            get_renderable=self._draw,
            transient=True,
        )

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing and leave the terminal as it was."""
        self._live.stop()

    def __call__(self, event: IngestEvent) -> None:
        """Take in one event; what ended stays above the display as a line."""
        with self._lock:
            self._board.apply(event)
        if event.event in LOUD and not (self._verbose and event.event is EventName.JOB_QUEUED):
            return
        words = sentence(event)
        if words:
            self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        with self._lock:
            return picture(self._board, self._clock.now())


def overall(board: Board, now: float) -> str:
    """Return the line of the whole: done, failed, skipped, saved, time left."""
    totals = board.totals
    bad = totals.failed + totals.not_placed
    words = [f"{totals.done} of {totals.jobs} done", f"{100 * board.share():.0f} %"]
    words += [f"{totals.skipped} skipped"] if totals.skipped else []
    words += [f"{bad} failed"] if bad else []
    words += [f"{size(totals.bytes_saved)} saved"] if totals.bytes_saved > 0 else []
    eta = board.eta_s(now)
    words += [f"{duration(eta)} left"] if eta is not None and board.open > 0 else []
    return " · ".join(words)


def picture(board: Board, now: float) -> RenderableType:
    """Return what the terminal shows now."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(max_width=PATH_COLUMN, no_wrap=True, overflow="ellipsis")
    for _ in range(3):
        table.add_column(no_wrap=True)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    for row in list(board.active.values()):
        bar = ProgressBar(total=100.0, completed=row.percent, width=24)
        table.add_row(Text(_short(row)), Text(row.profile), Text(row.phase), bar, *_numbers(row))
    parts: list[RenderableType] = [table, Text(overall(board, now), style="bold")]
    if board.notice:
        parts.append(Text(f"Paused: {board.notice}", style="yellow"))
    return Group(*parts)


def _short(row: Row) -> str:
    if len(row.path) <= PATH_COLUMN:
        return row.path
    return "…" + row.path[-(PATH_COLUMN - 1) :]


def _numbers(row: Row) -> tuple[str, str, str]:
    speed = f"{row.speed:.2f}x" if row.speed is not None else ""
    return f"{row.percent:.0f} %", speed, duration(row.eta_s)


def forecast_words(event: IngestEvent) -> str:
    """Return the sentence of how long it will take, for a PLAN event."""
    if event.forecast_s is None or event.forecast_s[1] <= 0:
        return "Nothing to encode."
    return f"Encoding will take {about(event.forecast_s)}."


def open_display(
    clock: Clock, *, as_json: bool, quiet: bool, verbose: bool, terminal: bool
) -> Display:
    """Return the display for this run; `terminal` says whether stderr is one."""
    if as_json:
        return JsonLines()
    if terminal and not quiet:
        from rich.console import Console

        return Live(clock, Console(stderr=True), verbose=verbose)
    return LogLines(clock, quiet=quiet, verbose=verbose)
