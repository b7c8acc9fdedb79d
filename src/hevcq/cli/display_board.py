"""The state of an ingest as a person sees it: fed with events, asked for rows and sentences.

Nothing here prints, and nothing reads a clock: `now` comes with the question.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hevcq.domain.events import EventName, IngestEvent

SETTLED_WORDS = {
    EventName.JOB_DONE: "done",
    EventName.JOB_SKIPPED: "skipped",
    EventName.JOB_FAILED: "failed",
}
PHASE_SHARE = {
    "fetch": (0.0, 0.02),
    "probe": (0.02, 0.01),
    "preflight": (0.03, 0.05),
    "encode": (0.08, 0.72),
    "verify": (0.80, 0.18),
    "publish": (0.98, 0.02),
}
"""Where a phase begins and how long it is, as shares of a job: the encode is most of it."""
MIN_SHARE = 0.02
"""Below this share of all work an ETA by what was measured would only be noise."""


@dataclass(slots=True)
class Row:
    """One job that is being worked on."""

    path: str
    profile: str
    phase: str = "queued"
    percent: float = 0.0
    speed: float | None = None
    eta_s: float | None = None
    since: float = 0.0

    @property
    def share(self) -> float:
        """How much of the whole job is done, 0 to 1."""
        start, length = PHASE_SHARE.get(self.phase, (0.0, 0.0))
        return start + length * self.percent / 100.0


@dataclass(slots=True)
class Totals:
    """The line of the whole: jobs by end, bytes, and what was planned."""

    jobs: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    not_placed: int = 0
    bytes_saved: int = 0
    forecast_s: tuple[float, float] | None = None


@dataclass(slots=True)
class Board:
    """The model behind the live display."""

    totals: Totals = field(default_factory=Totals)
    active: dict[tuple[str, str], Row] = field(default_factory=dict)
    notice: str = ""
    _work: dict[tuple[str, str], float] = field(default_factory=dict)
    _worked: float = 0.0
    _started: float | None = None

    def apply(self, event: IngestEvent) -> None:
        """Take in one event."""
        key = (event.path or "", event.profile or "")
        match event.event:
            case EventName.PLAN:
                self.totals.forecast_s = event.forecast_s
            case EventName.FILE_PLANNED:
                self._plan(event, key)
            case EventName.JOB_QUEUED:
                self.totals.jobs += 1
                self._started = self._started if self._started is not None else event.at
            case EventName.UPLOAD_PROGRESS | EventName.JOB_PROGRESS:
                self._progress(event, key)
            case EventName.JOB_DONE | EventName.JOB_SKIPPED | EventName.JOB_FAILED:
                self._end(event, key)
            case EventName.PLACE_FAILED:
                self.totals.not_placed += 1
                self.active.pop(key, None)
            case EventName.JOB_RETRY:
                self.active.pop(key, None)
            case EventName.PAUSED | EventName.STOPPING:
                self.notice = event.reason or ""
            case EventName.RESUMED:
                self.notice = ""
            case _:
                return

    def _plan(self, event: IngestEvent, key: tuple[str, str]) -> None:
        if event.cpu_s is not None:
            self._work[key] = sum(event.cpu_s) / 2

    def _progress(self, event: IngestEvent, key: tuple[str, str]) -> None:
        row = self.active.setdefault(key, Row(*key, since=event.at))
        row.phase = event.phase or "upload"
        row.percent = event.percent or 0.0
        row.speed, row.eta_s = event.speed, event.eta_s
        self.notice = ""

    def _end(self, event: IngestEvent, key: tuple[str, str]) -> None:
        self.active.pop(key, None)
        self._worked += self._work.get(key, 0.0)
        word = SETTLED_WORDS[event.event]
        setattr(self.totals, word, getattr(self.totals, word) + 1)
        self.totals.bytes_saved += max(0, event.bytes_saved or 0)

    @property
    def open(self) -> int:
        """How many queued jobs have not ended."""
        totals = self.totals
        return totals.jobs - totals.done - totals.skipped - totals.failed - totals.not_placed

    def share(self) -> float:
        """How much of all planned work is done, 0 to 1."""
        whole = sum(self._work.values())
        if whole <= 0:
            ended = self.totals.jobs - self.open
            return ended / self.totals.jobs if self.totals.jobs else 0.0
        running = sum(self._work.get(key, 0.0) * row.share for key, row in self.active.items())
        return min(1.0, (self._worked + running) / whole)

    def eta_s(self, now: float) -> float | None:
        """Return the seconds still to go: by what was measured, before that by the forecast."""
        share = self.share()
        if self._started is not None and share >= MIN_SHARE:
            return (now - self._started) * (1 - share) / share
        return self.totals.forecast_s[1] if self.totals.forecast_s is not None else None
