"""Model the events of jobs and videos that workers, use cases, logs and displays share.

`hevcq ingest --json` prints one `IngestEvent` per line (NDJSON) on stdout; a worker's log names its
lines by `EventName`. These names and the fields of `IngestEvent` are a contract: existing names and
meanings stay, new ones may be added, so a reader must ignore unknown ones. Fields that do not apply
are omitted from the line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field

from hevcq.domain.job import Progress, RenditionRef, Source
from hevcq.domain.model import Frozen
from hevcq.domain.verdict import FailureClass


class EventName(StrEnum):
    """Name of an event: the `event` field of a line in a worker's log or in `hevcq ingest --json`."""

    SCAN_STARTED = "scan_started"
    SCAN_PROGRESS = "scan_progress"
    SAMPLE_PROGRESS = "sample_progress"
    CRF_CHOSEN = "crf_chosen"
    FILE_PLANNED = "file_planned"
    FILE_UNUSABLE = "file_unusable"
    PLAN = "plan"
    UPLOAD_PROGRESS = "upload_progress"
    JOB_QUEUED = "job_queued"
    JOB_STARTED = "job_started"
    JOB_PROGRESS = "job_progress"
    JOB_NOTICE = "job_notice"
    JOB_SPLIT = "job_split"
    PART_DONE = "part_done"
    JOB_DONE = "job_done"
    JOB_SKIPPED = "job_skipped"
    JOB_RETRY = "job_retry"
    JOB_RELEASED = "job_released"
    JOB_ABANDONED = "job_abandoned"
    JOB_BURIED = "job_buried"
    JOB_FAILED = "job_failed"
    PLACED = "placed"
    PLACE_FAILED = "place_failed"
    RECOVERED = "recovered"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOPPING = "stopping"
    SUMMARY = "summary"


WorkerEventName = Literal[
    EventName.JOB_STARTED,
    EventName.JOB_PROGRESS,
    EventName.JOB_NOTICE,
    EventName.JOB_SPLIT,
    EventName.PART_DONE,
    EventName.JOB_DONE,
    EventName.JOB_SKIPPED,
    EventName.JOB_RETRY,
    EventName.JOB_RELEASED,
    EventName.JOB_ABANDONED,
    EventName.JOB_BURIED,
]
"""Events that a worker can report about a job."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A worker's report on a job. `worker` names the slot; `delay_s` is seconds to the next attempt.

    `part` is set if the event concerns only one part of a split job. JOB_DONE, JOB_SKIPPED and
    JOB_BURIED always mean the end of the whole job and have no `part`.
    """

    kind: WorkerEventName
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
"""Called from worker threads; must return quickly. Its exceptions are logged and suppressed."""


class IngestEvent(Frozen):
    """One event of an ingest. Sizes in bytes, times in seconds; `at` counts from the Unix epoch.

    `path` is the source in the library; bytes of a name that are not UTF-8 are shown as `\\xNN`.
    """

    event: EventName
    at: float
    path: str | None = None
    profile: str | None = None
    job: str | None = None
    disposition: str | None = Field(
        default=None, description="file_planned: a name of ingest_plan.Disposition"
    )
    reason: str | None = Field(default=None, description="one sentence for people")
    skip: str | None = Field(default=None, description="job_skipped: why, as one word")
    failure_class: str | None = Field(default=None, description="job_failed: why, as one word")
    size: int | None = Field(default=None, description="bytes of the source")
    output_size: int | None = Field(default=None, description="bytes of the rendition")
    target: str | None = Field(default=None, description="where the rendition goes or went")
    mode: str | None = Field(default=None, description="beside, mirror or replace")
    phase: str | None = None
    percent: float | None = None
    speed: float | None = Field(default=None, description="seconds of video per second")
    eta_s: float | None = None
    forecast_s: tuple[float, float] | None = Field(
        default=None, description="wall time to expect: least and most"
    )
    forecast_size: tuple[int, int] | None = Field(
        default=None,
        description="plan, file_planned, sample_progress: bytes of renditions to expect: least and most",
    )
    cpu_s: tuple[float, float] | None = Field(
        default=None, description="file_planned, plan: CPU seconds to expect: least and most"
    )
    search: float | None = Field(
        default=None,
        description="file_planned: CPU of the search for a quality per that of the encode",
    )
    counts: dict[str, int] | None = Field(
        default=None, description="plan: files by disposition; summary: jobs by end"
    )
    notices: tuple[str, ...] | None = Field(
        default=None, description="what will be changed or dropped, and was allowed to"
    )
    bytes_saved: int | None = None
    seconds: float | None = None
    exit_code: int | None = None

    def to_line(self) -> str:
        """Return the event as one line of JSON without the fields that do not apply."""
        return self.model_dump_json(exclude_none=True)


Listener = Callable[[IngestEvent], None]
"""Called with each event in order. Must not raise."""
