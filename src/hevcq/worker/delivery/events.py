"""Say what happens to a job: one log line with a stable name, and one event for the display."""

from __future__ import annotations

from typing import Protocol, assert_never

from structlog.typing import FilteringBoundLogger

from hevcq.domain.events import EventName, JobEvent, WorkerEventName
from hevcq.domain.job import RenditionRef
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
from hevcq.ports.queue import Delivery
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.settle import delay

ENDS = frozenset({EventName.JOB_DONE, EventName.JOB_SKIPPED, EventName.JOB_BURIED})
"""The events that are the job's own end, whoever brought it about."""


class SettledWork(Protocol):
    """What there is to say of work besides its verdict."""

    part: str
    rendition: RenditionRef | None


def emit_started(
    context: WorkerContext, claimed: ClaimedTask, delivery: Delivery, *, part: str = ""
) -> None:
    """Say that a job, or a part of one, was claimed."""
    said = {"part": part} if part else {}
    _log(claimed).info(EventName.JOB_STARTED.value, attempt=delivery.attempt, **said)
    task = claimed.task
    context.emit(
        JobEvent(
            kind=EventName.JOB_STARTED,
            job_id=task.job_id,
            source=task.source,
            profile=task.profile,
            worker=claimed.worker,
            part=part,
        )
    )


def emit_settled(
    context: WorkerContext, claimed: ClaimedTask, decided: Verdict, work: SettledWork
) -> None:
    """Say what became of a job, or of a part of one that did not end it."""
    kind, reason, failure_class = _facts(decided)
    if kind is EventName.JOB_DONE and work.rendition is None:
        kind = EventName.PART_DONE if work.part else EventName.JOB_SPLIT
    log = _log(claimed)
    speak = log.warning if kind in {EventName.JOB_BURIED, EventName.JOB_RETRY} else log.info
    named = failure_class.value if failure_class else None
    speak(kind.value, reason=reason, failure_class=named, delay_s=delay(decided))
    task = claimed.task
    event = JobEvent(
        kind=kind,
        job_id=task.job_id,
        source=task.source,
        profile=task.profile,
        worker=claimed.worker,
        reason=reason,
        failure_class=failure_class,
        delay_s=delay(decided),
        rendition=work.rendition if kind is EventName.JOB_DONE else None,
        part="" if kind in ENDS else work.part,
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
