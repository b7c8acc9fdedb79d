"""The ledger port: the state of every job, changed only by conditional transitions. It also holds
the subjobs of split jobs, content known not to be worth encoding, and pauses."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

from pydantic import BaseModel

from hevcq.domain.job import (
    HELD,
    SETTLED,
    Change,
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    change_by_attempt,
    decide_announcement,
    decide_burial,
    decide_cancel,
    decide_claim,
    decide_reopening,
    job_id,
    released_fields,
    settled_fields,
    subjob_id,
)
from hevcq.domain.schedule import Pause
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.util.clock import Clock


@dataclass(frozen=True, slots=True)
class Granted:
    """The claim succeeded: `fence` is the attempt number that was granted.

    `failures` counts earlier failed attempts, `crashes` attempts that ended without a report, and
    `suspected_worker_faults` failures that were attributed to the worker. When the claim takes over
    a RUNNING job whose lease expired, `crashes` already includes that attempt.
    """

    fence: int
    failures: int
    crashes: int
    suspected_worker_faults: int = 0


Claim = Granted | JobRecord
"""The answer to a claim: granted, or else the job's record. If that is settled, acknowledge the delivery.
If it is running, another worker holds a live lease, so retry later. If it is split, make sure that the
tasks of its subjobs were sent."""
MODELS = ("progress", "rendition", "split", "subjob")
"""Fields of a record that a backend stores as JSON."""


def stored_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields as a row or an item stores them: MODELS as JSON, the source by its fields."""
    stored: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Source):
            stored |= dict(value)
        else:
            stored[name] = value.model_dump_json() if isinstance(value, BaseModel) else value
    return stored


def read_record(row: Mapping[str, Any]) -> JobRecord:
    """Return the record in a row or an item of `stored_fields`; other columns are ignored."""
    fields = {name: row[name] for name in JobRecord.model_fields if row.get(name) is not None}
    fields |= {name: json.loads(fields[name]) for name in MODELS if name in fields}
    source = {name: row[name] for name in Source.model_fields}
    return JobRecord.model_validate({**fields, "source": source})


def subjob_ids(job: JobRecord | None) -> list[str]:
    """Return the ids of the subjobs of a SPLIT job, chunks in order and the join last; else none."""
    if job is None or job.state is not JobState.SPLIT or job.split is None:
        return []
    return [
        subjob_id(job.job_id, job.split.name, each) for each in (*range(job.split.chunks), None)
    ]


DURABLE_PHASES = frozenset({Phase.ENCODE, Phase.JOIN})
MAX_COUNTED = 5_000
"""Most records to read for a count of causes, if the backend cannot count by itself."""


class ListOrder(StrEnum):
    """The order of a listing: by the last change, by the source's key, or by its size."""

    NEWEST = "newest"
    OLDEST = "oldest"
    PATH = "path"
    PATH_BACK = "path-back"
    LARGEST = "largest"
    SMALLEST = "smallest"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Select jobs: a record matches if it meets every given condition.

    `updated_after` is in Unix seconds, `larger_than` in bytes of the source. An empty `states` matches
    every state, and an empty `key_prefixes` every key. `text` is a part of the path, ignoring case; `cause`
    is why a job failed; `codec` is the source's. A backend that cannot search these exactly yields other
    jobs too. `before` is the cursor of a page: the time and the id of the last job of the page before. If
    that job has moved since, jobs of its time may be repeated.
    """

    states: frozenset[JobState] = field(default_factory=frozenset)
    profile: str | None = None
    source_key: str | None = None
    key_prefixes: tuple[str, ...] = ()
    updated_after: float | None = None
    larger_than: int = 0
    text: str = ""
    cause: FailureClass | None = None
    codec: str = ""
    before: tuple[float, str] | None = None
    order: ListOrder = ListOrder.NEWEST

    def matches(self, record: JobRecord) -> bool:
        """Return whether the record meets every condition but `text`, `cause`, `codec` and `before`."""
        key = record.source.key
        return (
            (not self.states or record.state in self.states)
            and self.profile in (None, record.profile)
            and self.source_key in (None, key)
            and (not self.key_prefixes or key.startswith(self.key_prefixes))
            and (self.updated_after is None or record.updated_at > self.updated_after)
            and record.source.size > self.larger_than
        )


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier decision about the same bytes under the same recipe; `made_at` is in Unix seconds."""

    reason: str
    made_at: float


class Ledger(ABC):
    """Store the state of every job. tests/contracts checks this specification for each backend:

    - A state changes only along `domain.job.ALLOWED`; any other transition raises StaleFence.
    - `claim` grants each fence number once, and the fences of a job only grow. It does not grant a
      job under another owner's live lease (Held) or a settled job (AlreadySettled). It records an
      attempt before the work starts, so an attempt that vanishes is detected.
    - Every call with a fence raises StaleFence unless the job is RUNNING under exactly that fence;
      `certify`, `complete`, `skip` and `bury` also accept a job that is SPLIT under it.
    - A split and its subjobs exist together or not at all, for every reader. A subjob is claimed and
      changes state like a job, under its own id and fences. Listings and counts leave subjobs out.
    - A split's name is never used twice, so that a delivery or an attempt left over from an earlier
      split cannot affect a later one.
    - `progress` is cheap, may be lost in a crash, and never changes a state.
    - Listing pages through 100,000 jobs without loading all of them.
    - A skip decision holds for exactly these bytes, this profile and this revision of it. The latest
      reason wins. Forgetting costs an encode and nothing else.
    - There is at most one pause for each profile, and one for all profiles (named ""). A pause or its
      end is durable when the call returns, and every process reads it from then on.
    - Every method may raise StorageError or Unavailable.
    """

    clock: Clock
    """The clock of leases and transitions."""
    orders: frozenset[ListOrder] = frozenset({ListOrder.NEWEST})
    """What a listing can be sorted by."""
    searches: bool = False
    """Whether the backend filters a listing by `text` and `cause` itself, so that no other jobs are read."""
    pauses_read_every_s: float = 0.0
    """Seconds that a worker may reuse the pauses it read, set by the cost of a read on this backend."""
    progress_every_s: float = 5.0
    """Minimum seconds between two progress records within one phase, set by the cost of a write
    on this backend: at 5 s, a one-hour job costs 720 writes. A chunk reads its job's record at the
    same interval, so this is also how long a chunk keeps running after its job is cancelled."""

    @abstractmethod
    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        """Create a QUEUED record for each profile's job that has none, and return all the records.

        Existing records stay unchanged.
        """

    @abstractmethod
    def apply(self, job_id: str, change: Change, *, durable: bool = True) -> bool:
        """Change a job or subjob; return False if the conditions of the change do not hold.

        A change that is not `durable` survives a kill of every process but may be lost in a power cut.
        """

    @abstractmethod
    def decide(
        self, job_id: str, decision: Callable[[JobRecord], Change | None], *, durable: bool = True
    ) -> bool:
        """Apply the change that `decision` returns for the record, if the record is still the same then.

        `decision` may be called again. Return whether a change was made; False also for an unknown job.
        """

    def has_ended(self, owner: str) -> bool:
        """Return whether a lease's owner is known to have ended, so that its lease need not expire."""
        return False

    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Try to lease the job to `owner` for `lease_s` seconds; register it first if it is unknown.

        Not durable by itself: a power cut may undo it, but never after something was published under
        it. A publication is a durable commit to the same log, and so is the start of the encode.
        """
        claim = self.claim_subjob(job_id(source, profile), owner=owner, lease_s=lease_s)
        while claim is None:
            (job,) = self.register(source, [profile])
            claim = self.claim_subjob(job.job_id, owner=owner, lease_s=lease_s)
        return claim

    def claim_subjob(self, subjob_id: str, *, owner: str, lease_s: float) -> Claim | None:
        """Try to claim a subjob, as `claim` does a job; None if there is no such subjob.

        The caller checks before and after that the job is still SPLIT under the same split.
        """
        claims: list[Claim] = []

        def decision(record: JobRecord) -> Change | None:
            claim, change = self._decide_claim(record, owner, lease_s)
            claims.append(claim)
            return change

        self.decide(subjob_id, decision, durable=False)
        return claims[-1] if claims else None

    def _decide_claim(
        self, record: JobRecord, owner: str, lease_s: float
    ) -> tuple[Claim, Change | None]:
        if record.state in SETTLED | {JobState.SPLIT}:
            return record, None
        gone = record.state is JobState.RUNNING and self.has_ended(record.owner)
        change = decide_claim(record, owner, lease_s, self.clock.now(), gone=gone)
        if change is None:
            return record, None
        fence, crashes = change.to["fence"], change.to["crashes"]
        faults = record.suspected_worker_faults
        return Granted(fence, record.failures, crashes, faults), change

    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        """Extend the lease to `lease_s` seconds from now, not durably: a power cut ends it anyway."""
        until = self.clock.now() + lease_s
        self._change(job_id, change_by_attempt(fence, {"lease_until": until}), durable=False)

    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record the job's progress; see `progress_every_s`.

        The start of the work is durable, so that a crash of the machine during it is counted.
        """
        begins = progress.percent == 0.0 and progress.phase in DURABLE_PHASES
        self._change(job_id, change_by_attempt(fence, {"progress": progress}), durable=begins)

    def certify(self, job_id: str, fence: int, certificate_sha256: str) -> None:
        """Record the digest of the certificate that this attempt is about to publish.

        It stays in the job's record until another attempt certifies, even after a reopening, so that a
        later attempt recognises this farm's certificate. The publication makes it durable, so whoever
        sees the publication also finds the digest.
        """
        to = {"certificate_sha256": certificate_sha256}
        self._change(job_id, change_by_attempt(fence, to, states=HELD), durable=False)

    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        """Move the job from RUNNING to DONE, durably; `cpu_s` is the CPU seconds that it used."""
        to = settled_fields(JobState.DONE, self.clock.now()) | {
            "rendition": rendition,
            "cpu_s": cpu_s,
        }
        self._change(job_id, change_by_attempt(fence, to, states=HELD))

    def skip(self, job_id: str, fence: int, reason: str) -> None:
        """Move the job from RUNNING to SKIPPED with the reason."""
        to = settled_fields(JobState.SKIPPED, self.clock.now(), reason)
        self._change(job_id, change_by_attempt(fence, to, states=HELD))

    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        """Move the job from RUNNING to QUEUED and count one failure."""
        why = {"reason": reason, "failure_class": failure_class}
        to = released_fields(JobState.QUEUED, self.clock.now(), **why)
        self._change(job_id, change_by_attempt(fence, to, {"failures": 1}))

    def interrupt(
        self, job_id: str, fence: int, reason: str, *, suspected_worker_fault: bool = False
    ) -> None:
        """Move the job from RUNNING to QUEUED; count at most a suspected worker fault."""
        to = released_fields(JobState.QUEUED, self.clock.now(), reason=reason, failure_class=None)
        add = {"suspected_worker_faults": 1} if suspected_worker_fault else {}
        self._change(job_id, change_by_attempt(fence, to, add))

    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        """Move the job from RUNNING to DEAD with the reason and class."""
        to = settled_fields(JobState.DEAD, self.clock.now(), reason, failure_class)
        self._change(job_id, change_by_attempt(fence, to, states=HELD))

    def _change(self, job_id: str, change: Change, *, durable: bool = True) -> None:
        if not self.apply(job_id, change, durable=durable):
            fence = change.when["fence"]
            raise StaleFence(f"The job {job_id} is no longer running under fence {fence}.")

    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:
        """Move the job from QUEUED, or RUNNING with an expired lease, to DEAD.

        Return False if the job is unknown, settled, split or under a live lease. For a task that
        the queue has given up.
        """
        return self.decide(
            job_id,
            lambda record: decide_burial(
                record, reason, failure_class, self.clock.now(), gone=self.has_ended(record.owner)
            ),
        )

    def cancel(self, job_id: str, reason: str) -> bool:
        """Move the job from QUEUED, RUNNING or SPLIT to DEAD with the class CANCELLED.

        Return False if the job is unknown or settled. A live lease does not prevent it: later calls
        with the job's fence raise StaleFence, so its worker stops.
        """
        return self.decide(job_id, lambda record: decide_cancel(record, reason, self.clock.now()))

    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        """Move the job from DONE, SKIPPED or DEAD to QUEUED, reset its counts and record who and why.

        Return False if the job is not settled. The job may be split again. The fence is kept, so
        that calls of an earlier worker are still refused.
        """
        return self.decide(
            job_id, lambda record: decide_reopening(record, who, why, self.clock.now())
        )

    @abstractmethod
    def get(self, job_id: str) -> JobRecord | None:
        """Return the record of a job, or None if it is unknown."""

    @abstractmethod
    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Yield the matching records page by page, in one of `orders`."""

    def causes(self, wanted: JobFilter) -> dict[FailureClass | None, int]:
        """Count the matching jobs, at most MAX_COUNTED of them, by their class of failure."""
        return Counter(job.failure_class for job in islice(self.jobs(wanted), MAX_COUNTED))

    @abstractmethod
    def note_letter(self, job_id: str) -> None:
        """Record that the dead letter of a DEAD job is in its queue, until the job is reopened."""

    @abstractmethod
    def has_letter(self, job_id: str) -> bool:
        """Return whether the dead letter of this job is known to be in its queue."""

    @abstractmethod
    def counts(self) -> dict[tuple[str, JobState], int]:
        """Return the number of jobs by profile and state."""

    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        """Move the job from RUNNING to SPLIT, and end its lease.

        It adds a QUEUED subjob for each chunk, of so many `frames`, and for the join. Subjobs of earlier
        splits become invalid.
        """
        chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]
        parts = [
            SubjobOf(job_id=job_id, split=split.name, chunk=chunk, frames=held)
            for chunk, held in chunks
        ]
        cleared = {"reason": "", "failure_class": None}
        to = released_fields(JobState.SPLIT, self.clock.now(), split=split, **cleared)
        if not self.add_parts(job_id, change_by_attempt(fence, to), parts):
            raise StaleFence(f"The job {job_id} is no longer running under fence {fence}.")

    @abstractmethod
    def add_parts(self, job_id: str, change: Change, parts: Sequence[SubjobOf]) -> bool:
        """Add QUEUED subjobs and split their job by `change`; return False if that does not apply.

        For every reader, the subjobs and the split exist together or not at all.
        """

    def mark_enqueued(self, job_id: str, split: str) -> None:
        """Record that the tasks of the split's chunks were sent; no effect once the job moved on."""
        self.decide(job_id, lambda record: decide_announcement(record, split))

    def abandon_split(self, job_id: str, fence: int, reason: str) -> None:
        """Move the job from SPLIT to QUEUED, to be encoded whole because of `reason`; count no failure.

        Raises StaleFence unless the job is SPLIT under exactly that fence.
        """
        why = {"reason": reason, "failure_class": None, "do_not_split_reason": reason}
        to = released_fields(JobState.QUEUED, self.clock.now(), split=None, **why)
        self._change(job_id, change_by_attempt(fence, to, states=frozenset({JobState.SPLIT})))

    @abstractmethod
    def subjobs(self, job_id: str) -> list[JobRecord]:
        """Return the subjobs of a SPLIT job, chunks in order and the join last; else nothing."""

    def forget_subjobs(self, job_id: str) -> None:
        """Drop the subjobs of a job unless it is SPLIT; a backend may let them expire instead."""

    @abstractmethod
    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        """Record that these bytes under this recipe are not worth encoding again."""

    @abstractmethod
    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        """Return the decision recorded for these bytes under this recipe, or None."""

    @abstractmethod
    def pauses(self) -> tuple[Pause, ...]:
        """Return every pause that has not ended by now, that of all profiles first."""

    @abstractmethod
    def pause(self, pause: Pause) -> None:
        """Set the pause of its profile, in place of the one it had."""

    @abstractmethod
    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        """End the pause of this profile, or with None every pause; return those that had not ended."""
