"""Report the start, progress and end of a job as log lines and as events for displays."""

from collections.abc import Callable
from typing import assert_never

from structlog.typing import FilteringBoundLogger

from hevcq.domain.events import EventName, WorkerEventName
from hevcq.domain.job import Phase, Progress, RenditionRef
from hevcq.domain.verdict import (
    Abandon,
    Bury,
    Done,
    FailureClass,
    Release,
    RetryIn,
    Skipped,
    Verdict,
)
from hevcq.errors import StaleFence, StorageError, TransientError
from hevcq.ports.encoder import EncodeProgress, OnProgress
from hevcq.ports.queue import Delivery
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.settle import delay

ENDS = frozenset({EventName.JOB_DONE, EventName.JOB_SKIPPED, EventName.JOB_BURIED})
"""The events that end the whole job, even if a subjob caused them."""


def emit_started(
    context: WorkerContext, claimed: ClaimedTask, delivery: Delivery, *, part: str = ""
) -> None:
    fields = {"part": part} if part else {}
    _log(claimed).info(EventName.JOB_STARTED.value, attempt=delivery.attempt, **fields)
    context.emit(claimed.event(EventName.JOB_STARTED, part=part))


def emit_settled(
    context: WorkerContext,
    claimed: ClaimedTask,
    decided: Verdict,
    part: str,
    rendition: RenditionRef | None,
) -> None:
    """Report the verdict on a job, or on a subjob that did not end its job."""
    kind, reason, failure_class = _facts(decided)
    if kind is EventName.JOB_DONE and rendition is None:
        kind = EventName.PART_DONE if part else EventName.JOB_SPLIT
    log = _log(claimed)
    speak = log.warning if kind in {EventName.JOB_BURIED, EventName.JOB_RETRY} else log.info
    named = failure_class.value if failure_class else None
    speak(kind.value, reason=reason, failure_class=named, delay_s=delay(decided))
    event = claimed.event(
        kind,
        reason=reason,
        failure_class=failure_class,
        delay_s=delay(decided),
        rendition=rendition if kind is EventName.JOB_DONE else None,
        part="" if kind in ENDS else part,
    )
    context.emit(event)


def _log(claimed: ClaimedTask) -> FilteringBoundLogger:
    return get_logger(
        job=claimed.task.job_id,
        profile=claimed.task.profile,
        source=claimed.task.source.key,
        fence=claimed.fence.number,
        worker=claimed.worker,
    )


def _facts(decided: Verdict) -> tuple[WorkerEventName, str, FailureClass | None]:
    match decided:
        case Done():
            return EventName.JOB_DONE, "", None
        case Skipped():
            return EventName.JOB_SKIPPED, decided.reason, None
        case RetryIn():
            return EventName.JOB_RETRY, decided.reason, decided.failure_class
        case Bury():
            return EventName.JOB_BURIED, decided.reason, decided.failure_class
        case Release():
            return EventName.JOB_RELEASED, decided.reason, None
        case Abandon():
            return EventName.JOB_ABANDONED, decided.reason, None
        case _:
            assert_never(decided)


class Reporter:
    """Report one job's progress. Errors here never fail the job, but a stale fence ends it."""

    def __init__(
        self,
        context: WorkerContext,
        claimed: ClaimedTask,
        part: str = "",
        require_wanted: Callable[[], None] = lambda: None,
    ) -> None:
        """`part` labels a subjob; `require_wanted` is called after each progress in the ledger."""
        self._context, self._claimed, self._part = context, claimed, part
        self._lease, self._fence = claimed.lease, claimed.fence
        self._require_wanted = require_wanted
        self._written: tuple[Phase | None, float] = (None, 0.0)

    def phase(self, phase: Phase) -> None:
        self._report(Progress(phase=phase))

    def moved(self, phase: Phase, total: int) -> Callable[[int], None]:
        """Return a callback for a transfer of `total` bytes that takes the bytes moved so far."""
        return lambda moved: self.percent(phase, 100 * moved / total if total else 100.0)

    def encoding(self, phase: Phase, expected_s: float | None) -> OnProgress:
        """Return a callback for an encode or a verification of `expected_s` seconds of video."""

        def on_progress(now: EncodeProgress) -> None:
            eta = None
            if expected_s and now.speed:
                eta = max(0.0, expected_s - now.out_time_s) / now.speed
            self.percent(phase, now.fraction * 100, speed=now.speed, eta_s=eta)

        return on_progress

    def percent(
        self,
        phase: Phase,
        percent: float,
        *,
        speed: float | None = None,
        eta_s: float | None = None,
    ) -> None:
        """Report a percentage, clamped to 0 to 100; `eta_s` is seconds, `speed` 1 at real time."""
        bounded = min(100.0, max(0.0, percent))
        self._report(Progress(phase=phase, percent=bounded, speed=speed, eta_s=eta_s))

    def _report(self, progress: Progress) -> None:
        # Reading `cause` notices a deadline that passed while a heartbeat hangs.
        if self._lease.cause is not None:
            return
        event = self._claimed.event(EventName.JOB_PROGRESS, progress=progress, part=self._part)
        self._context.emit(event)
        now = self._context.clock.monotonic()
        phase, written_at = self._written
        if progress.phase is phase and now - written_at < self._fence.ledger.progress_every_s:
            return
        self._written = (progress.phase, now)
        try:
            self._fence.ledger.progress(self._fence.job_id, self._fence.number, progress)
        except StaleFence as error:
            self._lease.end(error)
        except (TransientError, StorageError) as error:
            get_logger(job=self._claimed.task.job_id).debug(
                "progress_not_written", reason=str(error)
            )
        self._require_wanted()
