"""What happens during an ingest, as values: the display, the log and `--json` all read these.

`hevcq ingest --json` prints one of them a line (NDJSON) on stdout. The names in `EventName` and
the fields of `IngestEvent` are a contract: names and meanings stay, new ones may be added, so a
reader must ignore what it does not know. Fields that do not apply are left out of the line.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from pydantic import Field

from hevcq.domain.model import Frozen


class EventName(StrEnum):
    """What happened; the `event` of a line."""

    SCAN_STARTED = "scan_started"
    SCAN_PROGRESS = "scan_progress"
    FILE_PLANNED = "file_planned"
    PLAN = "plan"
    UPLOAD_PROGRESS = "upload_progress"
    JOB_QUEUED = "job_queued"
    JOB_PROGRESS = "job_progress"
    JOB_DONE = "job_done"
    JOB_SKIPPED = "job_skipped"
    JOB_RETRY = "job_retry"
    JOB_FAILED = "job_failed"
    PLACED = "placed"
    PLACE_FAILED = "place_failed"
    RECOVERED = "recovered"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOPPING = "stopping"
    SUMMARY = "summary"


class IngestEvent(Frozen):
    """One event. Sizes are bytes, times seconds; `at` is wall time since the Unix epoch.

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
    cpu_s: tuple[float, float] | None = Field(
        default=None, description="file_planned: CPU seconds to expect: least and most"
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
"""Told of each event in order; must not raise."""


def show_path(path: object) -> str:
    """Return a path as printable text on one line: odd bytes and control characters escaped."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
