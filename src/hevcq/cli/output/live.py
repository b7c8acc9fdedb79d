"""Displays of a running ingest: JSON lines, log lines, or a live table on a terminal.

`Board` is their model: it applies events and reads no clock.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TextIO

from hevcq.cli.output.render import (
    paragraph,
    sentence,
    shorten,
    size_range,
)
from hevcq.domain.events import EventName, IngestEvent
from hevcq.usecases.ingest.forecast import Range
from hevcq.util.clock import Clock
from hevcq.util.text import counted, duration, size

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


SHOWN_WHEN_QUIET = frozenset(
    {EventName.FILE_UNUSABLE, EventName.JOB_FAILED, EventName.PLACE_FAILED, EventName.PAUSED}
)
"""Events that --quiet still prints."""
VERBOSE_ONLY = frozenset({EventName.JOB_QUEUED, EventName.JOB_PROGRESS, EventName.UPLOAD_PROGRESS})
"""Events that only --verbose prints."""
PHASE_SHARE = {
    "fetch": (0.0, 0.02),
    "probe": (0.02, 0.01),
    "preflight": (0.03, 0.05),
    "search": (0.08, 0.0),
    "encode": (0.08, 0.70),
    "join": (0.78, 0.02),
    "verify": (0.80, 0.18),
    "publish": (0.98, 0.02),
}
"""Start and length of each phase, as shares of a job.

A search for a quality is added, as a multiple of the encode."""
FORECAST_SHARE = 0.05
"""The weight of the forecast as a share of all work: at first, the measured speed is noise."""
MIN_MEASURED = 0.1
"""Share of a video that must be done before its own speed predicts its end."""


@dataclass(slots=True)
class Row:
    """One running job.

    `percent` is that of the phase, 0 to 100; `speed` is 1 at real time; `since` is Unix seconds;
    `share` is the finished share of the whole job, 0 to 1.
    """

    path: str
    profile: str
    phase: str = "queued"
    percent: float = 0.0
    speed: float | None = None
    eta_s: float | None = None
    since: float = 0.0
    share: float = 0.0

    def advance(self, search: float) -> None:
        """Raise the finished share of the job; `search` is the length of its search, in encodes.

        It never falls: the join of chunks is a task of its own, which starts with a fetch.
        """
        start, length = PHASE_SHARE.get(self.phase, (0.0, 0.0))
        before, encode = PHASE_SHARE["encode"]
        if self.phase == "search":
            length = encode * search
        elif start >= before:
            start += encode * search
        share = (start + length * self.percent / 100.0) / (1 + encode * search)
        self.share = max(self.share, share)


@dataclass(slots=True)
class Board:
    """The model of the displays; `ended` counts jobs by the event that ended them."""

    jobs: int = 0
    ended: Counter[EventName] = field(default_factory=Counter)
    bytes_saved: int = 0
    forecast_s: tuple[float, float] | None = None
    active: dict[tuple[str, str], Row] = field(default_factory=dict)
    notice: str = ""
    scanned: int | None = None
    sampled: str = ""
    sampled_until: float = 0.0
    scan_began: float = 0.0
    _work: dict[tuple[str, str], float] = field(default_factory=dict)
    _search: dict[tuple[str, str], float] = field(default_factory=dict)
    _worked: float = 0.0
    _started: float | None = None

    def apply(self, event: IngestEvent) -> None:
        key = (event.path or "", event.profile or "")
        match event.event:
            case (
                EventName.SCAN_STARTED
                | EventName.SCAN_PROGRESS
                | EventName.SAMPLE_PROGRESS
                | EventName.PLAN
            ):
                self._scan(event)
            case EventName.FILE_PLANNED if event.cpu_s is not None:
                self._work[key] = sum(event.cpu_s) / 2
                self._search[key] = event.search or 0.0
            case EventName.JOB_QUEUED:
                self.jobs += 1
                self._started = self._started if self._started is not None else event.at
            case EventName.UPLOAD_PROGRESS | EventName.JOB_PROGRESS:
                self._progress(event, key)
            case EventName.JOB_DONE | EventName.JOB_SKIPPED | EventName.JOB_FAILED:
                self.active.pop(key, None)
                self.ended[event.event] += 1
                self._worked += self._work.get(key, 0.0)
                self.bytes_saved += max(0, event.bytes_saved or 0)
            case EventName.PLACE_FAILED:
                self.active.pop(key, None)
                self.ended[event.event] += 1
            case EventName.JOB_RETRY:
                self.active.pop(key, None)
            case EventName.PAUSED | EventName.STOPPING:
                self.notice = sentence(event) or ""
            case EventName.RESUMED:
                self.notice = ""

    def _scan(self, event: IngestEvent) -> None:
        if event.event is EventName.PLAN:
            self.scanned, self.sampled, self.forecast_s = None, "", event.forecast_s
        elif event.event is EventName.SAMPLE_PROGRESS:
            counts, sizes = event.counts or {}, Range(*(event.forecast_size or (0, 0)))
            self.sampled = (
                f"Sampled {counts.get('sampled', 0):,} of {counted(counts.get('files', 0), 'video')}:"
                f" all renditions {size_range(sizes)} ({event.reason})"
            )
            self.sampled_until = event.at + (event.eta_s or 0.0)
        elif event.event is EventName.SCAN_STARTED:
            self.scanned, self.scan_began = 0, event.at
        else:
            if self.scanned is None:  # the start of the scan was not seen
                self.scan_began = event.at
            self.scanned = (event.counts or {}).get("files", 0)

    def _progress(self, event: IngestEvent, key: tuple[str, str]) -> None:
        row = self.active.setdefault(key, Row(*key, since=event.at))
        row.phase = event.phase or "upload"
        row.percent = event.percent or 0.0
        row.speed, row.eta_s = event.speed, event.eta_s
        row.advance(self._search.get(key, 0.0))

    @property
    def open(self) -> int:
        return self.jobs - self.ended.total()

    def share(self) -> float:
        """Return the finished share of all planned work, 0 to 1."""
        whole = sum(self._work.values())
        if whole <= 0:
            return self.ended.total() / self.jobs if self.jobs else 0.0
        running = sum(self._work.get(key, 0.0) * row.share for key, row in self.active.items())
        return min(1.0, (self._worked + running) / whole)

    def eta_s(self, now: float) -> float | None:
        """Return the seconds left at `now` (Unix seconds), first by the forecast, later as measured.

        It is at least the time of the slowest running video, since nothing can speed that up.
        """
        share, took_s = self.share(), now - self._started if self._started is not None else 0.0
        if self.forecast_s is not None:
            whole_s = (took_s + FORECAST_SHARE * sum(self.forecast_s) / 2) / (
                share + FORECAST_SHARE
            )
        elif share > 0:
            whole_s = took_s / share
        else:
            return None
        return max(1.0, whole_s * (1 - share), self._tail_s(now))

    def _tail_s(self, now: float) -> float:
        """Return the seconds until the last running video ends, each at its own speed."""
        return max(
            (
                (now - row.since) * (1 - row.share) / row.share
                for row in self.active.values()
                if row.share >= MIN_MEASURED
            ),
            default=0.0,
        )


BAR = 14
MIN_PATH = 16
NARROW = 70
"""Below this many columns the bar is omitted."""
LOG_PROGRESS_S = 30.0
"""Seconds between two log lines with the total progress."""
FRAMES_PER_SECOND = 4


class JsonLines:
    """One JSON object per line on stdout, as `domain.events` specifies.

    Like every display it accepts events from any thread between enter and exit.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the printed lines stay."""

    def __call__(self, event: IngestEvent) -> None:
        with self._lock:
            self._print(event.to_line())

    def _print(self, words: str | None) -> None:
        """Print a line and flush it, so that the reader of a pipe sees it at once."""
        if words:
            self._out.write(words + "\n")
            self._out.flush()


class LogLines(JsonLines):
    """Sentences on stderr, and the total progress every LOG_PROGRESS_S: for pipes, cron and systemd."""

    def __init__(
        self, clock: Clock, *, quiet: bool = False, verbose: bool = False, out: TextIO | None = None
    ) -> None:
        super().__init__(out if out is not None else sys.stderr)
        self._clock, self._quiet, self._verbose = clock, quiet, verbose
        self._board = Board()
        self._next = clock.monotonic() + LOG_PROGRESS_S

    def __call__(self, event: IngestEvent) -> None:
        with self._lock:
            self._board.apply(event)
            if self._is_shown(event):
                self._print(sentence(event))
            if not self._quiet and self._clock.monotonic() >= self._next:
                self._next = self._clock.monotonic() + LOG_PROGRESS_S
                self._print(self._progress())

    def _progress(self) -> str | None:
        if self._board.scanned is not None:
            return scan_line(self._board, self._clock.now())
        return total_line(self._board, self._clock.now()) if self._board.open > 0 else None

    def _is_shown(self, event: IngestEvent) -> bool:
        if self._quiet:
            return event.event in SHOWN_WHEN_QUIET
        return self._verbose or not _is_routine(event)


def _is_routine(event: IngestEvent) -> bool:
    """Return whether only --verbose shows the event: one line per video is enough."""
    placed = event.event is EventName.PLACED and not event.notices
    return placed or event.event in VERBOSE_ONLY


class Live:
    """A live table on a terminal: the running jobs, and a line with the total."""

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
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: IngestEvent) -> None:
        """Apply an event; a job that ended leaves a line above the table."""
        with self._lock:
            self._board.apply(event)
        shown = EventName.JOB_QUEUED, EventName.PLACED
        if _is_routine(event) and not (self._verbose and event.event in shown):
            return
        words = sentence(event)
        if words:
            words = paragraph(_fit_line(event, words, self._console.width), self._console.width)
            self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        with self._lock:
            return live_table(self._board, self._clock.now(), self._console.width)


Display = JsonLines | LogLines | Live


def total_line(board: Board, now: float) -> str:
    """Return the total line: jobs done, skipped and failed, bytes saved, time left at `now` (Unix seconds)."""
    done, skipped = board.ended[EventName.JOB_DONE], board.ended[EventName.JOB_SKIPPED]
    bad = board.ended.total() - done - skipped
    words = [f"{done} of {board.jobs} done", f"{100 * board.share():.0f} %"]
    words += [f"{skipped} skipped"] if skipped else []
    words += [f"{bad} failed"] if bad else []
    words += [f"{size(board.bytes_saved)} smaller"] if board.bytes_saved > 0 else []
    eta = board.eta_s(now)
    words += [f"{duration(eta)} left"] if eta is not None and board.open > 0 else []
    return " · ".join(words)


def scan_line(board: Board, now: float) -> str:
    """Return the line of a running scan, or of the samples after it, at `now` (Unix seconds)."""
    if board.sampled:
        return f"{board.sampled}, about {duration(max(1.0, board.sampled_until - now))} left"
    if not board.scanned:
        return "Scanning…"
    took = duration(max(0.0, now - board.scan_began))
    return f"Scanning: {counted(board.scanned, 'video')} so far, {took}"


def live_table(board: Board, now: float, width: int) -> RenderableType:
    """Return what a terminal of `width` columns shows at `now` (Unix seconds)."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if board.scanned is not None or (board.jobs == 0 and not board.notice):
        return Text(scan_line(board, now), style="bold")
    rows = list(board.active.values())
    several = len({row.profile for row in rows}) > 1
    facts = [_facts(row, several=several) for row in rows]
    widths = [max(len(fact[i]) for fact in facts) for i in range(len(facts[0]))] if facts else []
    bar = BAR if width >= NARROW else 0
    room = width - sum(widths) - len(widths) - (bar + 1 if bar else 0)
    table = Table.grid(padding=(0, 1))
    for _ in range(1 + bool(bar)):
        table.add_column(no_wrap=True)
    for _ in widths:
        table.add_column(justify="right", no_wrap=True)
    for row, fact in zip(rows, facts, strict=True):
        shown = [ProgressBar(total=100.0, completed=row.percent, width=bar)] if bar else []
        # Without the folder, which is often the same for all rows.
        name = shorten(row.path.rpartition("/")[2] or row.path, max(MIN_PATH, room))
        table.add_row(Text(name), *shown, *map(Text, fact))
    parts: list[RenderableType] = [table, Text(total_line(board, now), style="bold")]
    if board.notice:
        parts.append(Text(board.notice, style="yellow"))
    return Group(*parts)


def _fit_line(event: IngestEvent, words: str, width: int) -> str:
    """Return a sentence about a video, with its name shortened so that the rest fits the line."""
    if not event.path or not words.startswith(event.path) or len(words) <= width:
        return words
    rest = words.removeprefix(event.path)
    return shorten(event.path, max(MIN_PATH, width - len(rest))) + rest


def _facts(row: Row, *, several: bool) -> tuple[str, ...]:
    speed = f"{row.speed:.2f}x" if row.speed is not None else ""
    profile = (row.profile,) if several else ()
    return (*profile, row.phase, f"{row.percent:.0f} %", speed, duration(row.eta_s))


def open_display(
    clock: Clock, *, as_json: bool, quiet: bool, verbose: bool, terminal: bool
) -> Display:
    if as_json:
        return JsonLines()
    if terminal and not quiet:
        from rich.console import Console

        return Live(clock, Console(stderr=True), verbose=verbose)
    return LogLines(clock, quiet=quiet, verbose=verbose)
