"""Record events of jobs, slots and queues as metrics, and export them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hevcq.domain.events import EventName, JobEvent
from hevcq.domain.job import Phase
from hevcq.errors import HevcqError
from hevcq.ports.queue import QueueDepth
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.metrics import Exposition, Metrics
from hevcq.worker.monitoring.watchers import Background, PoolState

ENDS = {
    EventName.JOB_DONE: "done",
    EventName.JOB_SKIPPED: "skipped",
    EventName.JOB_RETRY: "retry",
    EventName.JOB_BURIED: "buried",
    EventName.JOB_RELEASED: "released",
    EventName.JOB_ABANDONED: "abandoned",
}
"""The events that end an attempt."""
NO_CLASS = "none"
QUEUE_METRICS = (
    "QueueReady",
    "QueueInFlight",
    "QueueDelayed",
    "QueueDeadLetters",
    "QueueOldestSeconds",
)
CLOSE_S = 10.0
"""Seconds that a stopping worker waits for the last report."""


@dataclass(slots=True)
class _Attempt:
    """A running attempt: seconds by phase, and the last speed that ffmpeg reported (1 is real time)."""

    since: float
    phase: Phase | None = None
    seconds: dict[Phase, float] = field(default_factory=dict)
    speed: float | None = None

    def enter(self, phase: Phase | None, now: float) -> None:
        if phase is self.phase:
            return
        if self.phase is not None:
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.since
        self.phase, self.since = phase, now


class EventMeter:
    """Feed `metrics`. Every method may be called from any thread and never blocks."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.metrics, self._clock = metrics, clock
        self._guard = threading.Lock()
        self._attempts: dict[tuple[str, str], _Attempt] = {}

    def note(self, event: JobEvent) -> None:
        """Record a worker's event; an `OnEvent`."""
        now, who = self._clock.monotonic(), (event.worker, event.job_id)
        if event.kind in ENDS:
            with self._guard:
                attempt = self._attempts.pop(who, None) or _Attempt(now)
            attempt.enter(None, now)
            self._ended(event, attempt)
            return
        with self._guard:
            if event.kind is EventName.JOB_STARTED:
                self._attempts[who] = _Attempt(now)
            running = self._attempts.get(who)
            if event.kind in {EventName.JOB_SPLIT, EventName.PART_DONE}:
                # The attempt ended, but the job did not.
                self._attempts.pop(who, None)
                return
            if running is not None and event.progress is not None:
                running.enter(event.progress.phase, now)
                if event.progress.phase is Phase.ENCODE and event.progress.speed is not None:
                    running.speed = event.progress.speed

    def slots(self, state: PoolState) -> None:
        """Record the state of the slots."""
        self.metrics.record("Slots", (), state.alive)
        self.metrics.record("SlotsBusy", (), state.busy)

    def queue(self, profile: str, depth: QueueDepth | None) -> None:
        """Record a queue's depth; None if unknown."""
        values: tuple[float | None, ...] = (None,) * len(QUEUE_METRICS)
        if depth is not None:
            oldest_s = depth.oldest_s if depth.ready else depth.oldest_s or 0.0
            values = depth.ready, depth.in_flight, depth.delayed, depth.dead, oldest_s
        for name, value in zip(QUEUE_METRICS, values, strict=True):
            if value is None:
                self.metrics.forget(name, (profile,))
            else:
                self.metrics.record(name, (profile,), value)

    def _ended(self, event: JobEvent, attempt: _Attempt) -> None:
        profile = event.profile
        named = event.failure_class.value if event.failure_class is not None else NO_CLASS
        self.metrics.record("JobsEnded", (profile, ENDS[event.kind], named), 1)
        if event.kind is EventName.JOB_ABANDONED:
            self.metrics.record("LeasesLost", (profile,), 1)
        if event.kind is EventName.JOB_DONE:
            self._done(event, attempt, profile)

    def _done(self, event: JobEvent, attempt: _Attempt, profile: str) -> None:
        for phase, seconds in attempt.seconds.items():
            self.metrics.record("PhaseSeconds", (profile, phase.value), seconds)
        encode = attempt.seconds.get(Phase.ENCODE, 0.0)
        if encode > 0:
            share = 100 * attempt.seconds.get(Phase.VERIFY, 0.0) / encode
            self.metrics.record("VerifyOverheadPercent", (profile,), share)
        if attempt.speed is not None:
            self.metrics.record("EncodeSpeed", (profile,), attempt.speed)
        if event.rendition is not None:
            source, rendition = event.source.size, event.rendition.size
            self.metrics.record("SourceBytes", (profile,), source)
            self.metrics.record("RenditionBytes", (profile,), rendition)
            self.metrics.record("SavedBytes", (profile,), max(0, source - rendition))


class MetricsReport:
    """Count the queues and write the lines every `every_s` seconds; a watcher.

    It runs in a thread of its own because a queue may be slow to answer.
    """

    def __init__(
        self,
        meter: EventMeter,
        queues: Sequence[ProfileQueue],
        clock: Clock,
        every_s: float,
        *,
        write: Callable[[str], None] | None = None,
        exposition: Exposition | None = None,
    ) -> None:
        """Lines go to `write`; `exposition` answers Prometheus until the report ends."""
        self._meter, self._queues, self._clock = meter, tuple(queues), clock
        self._every_s, self._write, self._exposition = every_s, write, exposition
        self._failed: set[str] = set()
        self._thread = Background("hevcq-metrics-report", self.step, clock, CLOSE_S)

    def observe(self, state: PoolState) -> None:
        """Record the state of the slots."""
        self._meter.slots(state)
        self._thread.observe(state)

    def close(self) -> None:
        """Send a last report and end."""
        self._thread.close()
        if self._exposition is not None:
            self._exposition.close()

    def step(self) -> float:
        """Count the queues and write the lines; return the seconds until the next report."""
        for served in self._queues:
            self._count(served)
        if self._write is not None:
            for line in self._meter.metrics.lines(self._clock.now()):
                self._write(line)
        return self._every_s

    def _count(self, served: ProfileQueue) -> None:
        name = served.profile.name
        try:
            depth = served.queue.depth()
        except HevcqError as error:
            if name not in self._failed:
                get_logger(profile=name).warning("queue_not_counted", reason=str(error))
            self._failed.add(name)
            self._meter.queue(name, None)
            return
        self._failed.discard(name)
        self._meter.queue(name, depth)
