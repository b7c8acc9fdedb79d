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


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something happened to a job. `worker` names the slot; `delay_s` when it is tried again."""

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


OnEvent = Callable[[JobEvent], None]
"""Called from worker threads; must be quick. What it raises is logged and goes no further."""


def ignore(_event: JobEvent) -> None:
    """Tell nobody."""
