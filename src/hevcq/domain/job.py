"""Model sources, jobs, tasks and the state transitions of a job."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator

from hevcq.domain.keys import check_key, work_folder
from hevcq.domain.model import Frozen
from hevcq.domain.quality import Asked
from hevcq.domain.verdict import FailureClass
from hevcq.errors import BadMessage

MAX_BODY_BYTES = 262_144
"""Largest message body that hevcq reads, in bytes: SNS's default limit of 256 KiB
(https://docs.aws.amazon.com/sns/latest/api/API_Publish.html)."""

MAX_SIZE = 2**63 - 1
"""Largest file size in bytes, and the largest integer that SQLite stores."""
MAX_CHUNK = 2**31 - 1
MAX_INTERRUPTIONS = 200
"""From this number on an interruption counts as a crash. Otherwise a job that ends the program at each
attempt would be tried for ever."""
MAX_NOTICES, MAX_NOTICE = 20, 500
"""Most notices in a job's record, and most characters of each."""
ROUNDED_NS = 2_000_000_000
"""Largest rounding of modification times: FAT rounds to 2 s, SMB to 100 ns."""
ENDS_DIGITS = 32


def file_version(size: int, mtime_ns: int, inode: int) -> str:
    return f"{size}-{mtime_ns}-{inode}"


def share_version(size: int, mtime_ns: int, ends: str) -> str:
    """Return a version that is equal on all machines of a share; `ends` digests the file's first and last bytes."""
    return f"{size}-{mtime_ns // ROUNDED_NS * 2}-{ends[:ENDS_DIGITS]}"


def is_same_version(known: str, facts: os.stat_result, ends: Callable[[], str]) -> bool:
    """Return whether a file with this status is the version `known` of a library file.

    `ends` reads the digest of the file's ends; it is called only if the version contains one.
    """
    size, mtime_ns, inode = facts.st_size, facts.st_mtime_ns, facts.st_ino
    head, _, last = known.rpartition("-")
    if len(last) != ENDS_DIGITS:
        return known == file_version(size, mtime_ns, inode)
    then, _, seconds = head.partition("-")  # a time before 1970 has a minus itself
    # A time that was rounded up falls into the next step.
    near = abs(int(seconds) * 1_000_000_000 - mtime_ns // ROUNDED_NS * ROUNDED_NS) <= ROUNDED_NS
    return int(then) == size and near and last == ends()[:ENDS_DIGITS]


class Source(Frozen):
    """One immutable version of an input video.

    On S3 `version` is the version id, or the ETag if there is none. In a library folder it is the size in
    bytes, the mtime in nanoseconds and the inode; on a share, the size, the mtime in seconds and the digest
    of the file's ends. A new upload to a key is a new source.
    """

    bucket: str = Field(min_length=1, max_length=255)
    key: str
    version: str = Field(min_length=1, max_length=1024)
    size: int = Field(ge=0, le=MAX_SIZE, description="bytes")

    @field_validator("key")
    @classmethod
    def _safe_key(cls, key: str) -> str:
        try:
            return check_key(key)
        except Exception as error:
            raise ValueError(str(error)) from error

    @property
    def source_id(self) -> str:
        """The identity of this version: 32 hexadecimal digits, the same on every machine."""
        return _digest(self.bucket, self.key, self.version)


JOB_ID = re.compile(r"[0-9a-f]{32}")
"""The form of `job_id`'s results."""


def job_id(source: Source, profile: str) -> str:
    """Return the job's identity; it depends only on source and profile, so repeated events are one job."""
    return _digest(source.bucket, source.key, source.version, profile)


def subjob_id(job_id: str, split: str, chunk: int | None) -> str:
    """Return the identity of a subjob of a job under one split; `chunk` is None for the join."""
    return f"{job_id}.{split}.{'join' if chunk is None else chunk}"


def is_subjob(unit_id: str) -> bool:
    return "." in unit_id


@lru_cache(maxsize=1024)
def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class TaskKind(StrEnum):
    ENCODE = "encode"
    CHUNK = "chunk"
    JOIN = "join"


Move = Literal["first", "higher", "lower", "last"]
"""Where to move a waiting task in its queue; higher and lower change its priority by one step."""


class Task(Frozen):
    """A message in a queue that requests a whole job, or a part of one.

    `group` is the fair-share group (SQS's message group id on a standard queue): the tasks of one
    video share a group, so that they do not delay other videos. `split` names the split that a part
    belongs to; a part of an outdated split counts as a request for the whole job. `asked` stays with
    the job whichever worker takes it.
    """

    hevcq: Literal[1] = 1
    kind: TaskKind = TaskKind.ENCODE
    source: Source
    profile: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    chunk: int | None = Field(default=None, ge=0, le=MAX_CHUNK)
    group: str = Field(default="", max_length=128)
    split: str = Field(default="", pattern=r"^[0-9a-z-]{0,40}$")
    asked: Asked | None = None

    @cached_property
    def job_id(self) -> str:
        """The identity of the job this task belongs to."""
        return job_id(self.source, self.profile)

    @property
    def unit_id(self) -> str:
        """The ledger's id for this task: the job's, or that of one part."""
        if self.kind is TaskKind.ENCODE:
            return self.job_id
        return subjob_id(self.job_id, self.split, self.chunk)

    def as_whole_job(self) -> Task:
        return Task(source=self.source, profile=self.profile, asked=self.asked)

    def body(self) -> str:
        """Return the message body: one line of JSON."""
        return self.model_dump_json(exclude={n for n in ("split", "asked") if not getattr(self, n)})

    @classmethod
    def parse(cls, body: str) -> Self:
        """Parse a message body. Raises BadMessage with the reason if hevcq did not write it."""
        if len(body.encode("utf-8", "surrogatepass")) > MAX_BODY_BYTES:
            raise BadMessage(f"The message is over {MAX_BODY_BYTES} bytes.")
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            raise BadMessage(
                f"The message is not a hevcq task: {where}: {first['msg']}."
            ) from error

    @classmethod
    def parse_or_none(cls, body: str) -> Self | None:
        """Parse a message body; return None if it is invalid."""
        try:
            return cls.parse(body)
        except BadMessage:
            return None


class JobState(StrEnum):
    """The state of a job; the ledger allows only the transitions in `ALLOWED`."""

    QUEUED = "queued"
    RUNNING = "running"
    SPLIT = "split"
    DONE = "done"
    SKIPPED = "skipped"
    DEAD = "dead"


ALLOWED: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.DEAD}),
    JobState.RUNNING: frozenset(JobState),
    JobState.SPLIT: frozenset({JobState.QUEUED, JobState.DONE, JobState.SKIPPED, JobState.DEAD}),
    JobState.DONE: frozenset({JobState.QUEUED}),
    JobState.SKIPPED: frozenset({JobState.QUEUED}),
    JobState.DEAD: frozenset({JobState.QUEUED}),
}
"""Allowed transitions from each state. RUNNING to RUNNING is a new claim after a lease expired; only
redrive or reprocess leaves an end state. QUEUED to DEAD is a task that the queue itself gave up on.
A SPLIT job has no worker of its own: its parts change state instead, each like a job, and the last
part, the join, ends it. SPLIT to QUEUED abandons the split for a whole encode."""

SETTLED = frozenset({JobState.DONE, JobState.SKIPPED, JobState.DEAD})


class Phase(StrEnum):
    """The phase of a running job."""

    FETCH = "fetch"
    PROBE = "probe"
    PREFLIGHT = "preflight"
    SEARCH = "search"
    ENCODE = "encode"
    JOIN = "join"
    VERIFY = "verify"
    PUBLISH = "publish"


class Progress(Frozen):
    """The progress of a running job."""

    phase: Phase
    percent: float = Field(default=0.0, ge=0.0, le=100.0)
    speed: float | None = Field(default=None, description="seconds of video per second")
    eta_s: float | None = None


class RenditionRef(Frozen):
    """The location of a published rendition, and its size in bytes.

    `certificate_sha256` is the digest of its certificate, which proves that this farm wrote it.
    `notices` are the first MAX_NOTICES sentences of its certificate on what it does not keep of its
    source. `target` and `verified` are the requested and the measured VMAF, if a quality was searched.
    """

    key: str
    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    certificate_key: str = ""
    certificate_sha256: str = ""
    notices: tuple[str, ...] = ()
    target: float | None = None
    verified: float | None = None

    @field_validator("notices", mode="after")
    @classmethod
    def _few(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # A ledger's record is small (DynamoDB: 400 KB); the certificate has all notices.
        return tuple(each[:MAX_NOTICE] for each in value[:MAX_NOTICES])


class Split(Frozen):
    """The split of a job. Its unique `name` combines the plan's digest and the fence at the split.

    `frames` and `seconds` describe the video; `plan_sha256` is the digest of the plan's object in
    the store. `announced` means that the tasks of the chunks were sent.
    """

    name: str
    chunks: int = Field(ge=1)
    frames: int = Field(ge=1)
    seconds: float = Field(ge=0)
    plan_sha256: str
    announced: bool = False


class SubjobOf(Frozen):
    """The job and split of a subjob; `chunk` is None for the join, `frames` counts the chunk's frames."""

    job_id: str
    split: str
    chunk: int | None = None
    frames: int = 0


class JobRecord(Frozen):
    """The ledger's record of a job or subjob. Times are seconds since the Unix epoch.

    A subjob's `job_id` is its `unit_id`, and its `rendition` is the encoded chunk.
    `do_not_split_reason` is empty while the job may be split. `suspected_worker_faults` counts the
    failures attributed to their workers; no other count includes them.
    """

    job_id: str
    source: Source
    profile: str
    state: JobState
    fence: int = 0
    failures: int = 0
    crashes: int = 0
    suspected_worker_faults: int = Field(default=0, serialization_alias="doubts")
    owner: str = ""
    lease_until: float = 0.0
    progress: Progress | None = None
    reason: str = ""
    failure_class: FailureClass | None = None
    rendition: RenditionRef | None = None
    created_at: float
    updated_at: float
    started_at: float | None = None
    finished_at: float | None = None
    cpu_s: float | None = Field(default=None, description="CPU seconds of the finished attempt")
    split: Split | None = None
    subjob: SubjobOf | None = Field(default=None, serialization_alias="part")
    do_not_split_reason: str = Field(default="", serialization_alias="whole")
    certificate_sha256: str = Field(default="", exclude=True)

    def certified(self, digest: str) -> bool:
        """Return whether an attempt of this job wrote the certificate with this digest."""
        ref = self.rendition
        return digest != "" and digest in {
            self.certificate_sha256,
            "" if ref is None else ref.certificate_sha256,
        }

    @property
    def work_folder(self) -> str:
        """The key prefix of the objects of the job's split."""
        return work_folder(self.job_id, self.profile)


def new_job(source: Source, profile: str, now: float) -> JobRecord:
    """Return the record of a job queued at `now`, in Unix seconds."""
    name, queued = job_id(source, profile), JobState.QUEUED
    return JobRecord(
        job_id=name, source=source, profile=profile, state=queued, created_at=now, updated_at=now
    )


def new_subjob(job: JobRecord, part: SubjobOf, now: float) -> JobRecord:
    """Return the record of a subjob queued at `now`, in Unix seconds."""
    name = subjob_id(part.job_id, part.split, part.chunk)
    return new_job(job.source, job.profile, now).model_copy(update={"job_id": name, "subjob": part})


class SplitProgress(Frozen):
    """Progress of a split job: total chunks, finished chunks, and chunks being encoded."""

    chunks: int
    done: int
    running: int
    progress: Progress


def split_progress(job: JobRecord, parts: Sequence[JobRecord]) -> SplitProgress | None:
    """Return the progress of a SPLIT job, or None if the job is not SPLIT.

    Chunks are weighted by their frames. Once all chunks are done, it is the join's progress.
    """
    if job.split is None or job.state is not JobState.SPLIT:
        return None
    chunks = [
        (part, part.subjob) for part in parts if part.subjob and part.subjob.chunk is not None
    ]
    join = next((part for part in parts if part.subjob and part.subjob.chunk is None), None)
    shares = [_encoded_share(part) * about.frames for part, about in chunks]
    running = [part for part, _ in chunks if part.state is JobState.RUNNING]
    done = sum(part.state is JobState.DONE for part, _ in chunks)
    share = min(1.0, sum(shares) / job.split.frames)
    speeds = [p.progress.speed for p in running if p.progress and p.progress.speed]
    speed = sum(speeds) or None
    eta = (1.0 - share) * job.split.seconds / speed if speed else None
    progress = Progress(phase=Phase.ENCODE, percent=100.0 * share, speed=speed, eta_s=eta)
    if chunks and done == len(chunks):
        progress = (join.progress if join is not None else None) or Progress(phase=Phase.JOIN)
    return SplitProgress(
        chunks=job.split.chunks, done=done, running=len(running), progress=progress
    )


def _encoded_share(part: JobRecord) -> float:
    """Return the encoded share of a chunk, 0 to 1. Phases other than ENCODE are short and count as 0."""
    if part.state is JobState.DONE:
        return 1.0
    encoding = part.progress is not None and part.progress.phase is Phase.ENCODE
    if part.state is not JobState.RUNNING or part.progress is None or not encoding:
        return 0.0
    return part.progress.percent / 100.0


RUNNING = frozenset({JobState.RUNNING})
HELD = frozenset({JobState.RUNNING, JobState.SPLIT})
"""States that an attempt may end under its fence: RUNNING, or SPLIT if it made the split."""


@dataclass(frozen=True, slots=True)
class Change:
    """A conditional change of a JobRecord: new values of fields in `to`, increments of counters in `add`.

    It applies only to a job in one of `states` (empty: any) whose fields have the values in `when`.
    """

    states: frozenset[JobState]
    when: Mapping[str, Any]
    to: Mapping[str, Any]
    add: Mapping[str, int] = field(default_factory=dict)


def change_by_attempt(
    fence: int,
    to: Mapping[str, Any],
    add: Mapping[str, int] | None = None,
    states: frozenset[JobState] = RUNNING,
) -> Change:
    """Return a change that applies only while the attempt with this fence is current."""
    return Change(states, {"fence": fence}, to, add or {})


def change_if_unmoved(record: JobRecord, to: Mapping[str, Any]) -> Change:
    """Return a change that applies only if the job was not moved, claimed or renewed since it was read."""
    unmoved = {"fence": record.fence, "lease_until": record.lease_until}
    return Change(frozenset({record.state}), unmoved, to)


def released_fields(state: JobState, now: float, **facts: object) -> dict[str, Any]:
    """Return the fields of a job that no worker holds any more; `now` is Unix seconds."""
    unheld = {"owner": "", "lease_until": 0.0, "progress": None}
    return {"state": state, "updated_at": now, **unheld, **facts}


def settled_fields(
    state: JobState, now: float, reason: str = "", failure_class: FailureClass | None = None
) -> dict[str, Any]:
    """Return the fields of a settled job."""
    return released_fields(state, now, finished_at=now, reason=reason, failure_class=failure_class)


def decide_claim(
    record: JobRecord, owner: str, lease_s: float, now: float, *, gone: bool
) -> Change | None:
    """Return the change that claims a QUEUED or RUNNING job under its next fence.

    None while another owner's lease is alive. `gone` says that the process holding the job is known to
    have ended. An attempt whose lease ended before it settled the job has vanished, a crash.
    """
    running = record.state is JobState.RUNNING
    vanished = running and (record.lease_until <= now or gone)
    if running and not vanished and record.owner != owner:
        return None
    held = {
        "state": JobState.RUNNING,
        "updated_at": now,
        "fence": record.fence + 1,
        "crashes": record.crashes + int(vanished),
        "owner": owner,
        "lease_until": now + lease_s,
        "started_at": now,
        "progress": None,
    }
    return change_if_unmoved(record, held)


def decide_burial(
    record: JobRecord, reason: str, failure_class: FailureClass, now: float, *, gone: bool = False
) -> Change | None:
    """Return the change that buries a job its queue gave up; None if it is settled, split or held."""
    held = record.state is JobState.RUNNING and record.lease_until > now and not gone
    if held or record.state is JobState.SPLIT or record.state in SETTLED:
        return None
    return change_if_unmoved(record, settled_fields(JobState.DEAD, now, reason, failure_class))


def decide_cancel(record: JobRecord, reason: str, now: float) -> Change | None:
    """Return the change that cancels a job; None if it is settled or a subjob."""
    if record.state in SETTLED or record.subjob is not None:
        return None
    return change_if_unmoved(
        record, settled_fields(JobState.DEAD, now, reason, FailureClass.CANCELLED)
    )


def decide_reopening(record: JobRecord, who: str, why: str, now: float) -> Change | None:
    """Return the change that queues a settled job again under its old fence; None if it is not settled."""
    if record.state not in SETTLED:
        return None
    counts = {"failures": 0, "crashes": 0, "suspected_worker_faults": 0}
    gone = dict.fromkeys(("failure_class", "rendition", "started_at", "finished_at", "cpu_s"))
    again = released_fields(JobState.QUEUED, now, reason=f"reopened by {who}: {why}", split=None)
    return change_if_unmoved(record, {**again, **counts, **gone, "do_not_split_reason": ""})


def decide_announcement(record: JobRecord, split: str) -> Change | None:
    """Return the change that marks a split's tasks as sent; None if the job has another split or none."""
    current = record.split
    if record.state is not JobState.SPLIT or current is None or current.name != split:
        return None
    return change_if_unmoved(record, {"split": current.model_copy(update={"announced": True})})
