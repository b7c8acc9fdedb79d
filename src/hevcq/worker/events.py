"""What a worker tells a display: one small value for each step of a job's life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hevcq.domain.job import Progress, RenditionRef, Source
from hevcq.domain.verdict import FailureClass


class EventKind(StrEnum):
    """What happened; the same words are the names of the log lines."""

    STARTED = "job_started"
    PROGRESS = "job_progress"
    NOTICE = "job_notice"
    DONE = "job_done"
    SKIPPED = "job_skipped"
    RETRY = "job_retry"
    BURIED = "job_buried"
    RELEASED = "job_released"
    ABANDONED = "job_abandoned"
    SPLIT = "job_split"
    PART_DONE = "part_done"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something happened to a job. `worker` names the slot; `delay_s` when it is tried again.

    `part` says that it happened to a part of a split job only. DONE, SKIPPED and BURIED are
    always the job's own end, whoever brought it about, and come without.
    """

    kind: EventKind
    job_id: str
    source: Source
    profile: str
    worker: str = ""
    progress: Progress | None = None
    reason: str = ""
    failure_class: FailureClass | None = None
    delay_s: float = 0.0
    rendition: RenditionRef | None = None
    part: str = ""


OnEvent = Callable[[JobEvent], None]
"""Called from worker threads; must be quick. What it raises is logged and goes no further."""


def ignore(_event: JobEvent) -> None:
    """Tell nobody."""
