"""The ledger port: what every job's state is, moved only by conditional transitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from hevcq.domain.job import JobRecord, JobState, Progress, RenditionRef, Source
from hevcq.domain.verdict import FailureClass


@dataclass(frozen=True, slots=True)
class Granted:
    """The job is ours: `fence` is the attempt number now granted.

    `failures` and `crashes` count earlier counted failures and vanished attempts, `suspected_worker_faults` the
    failures that were held to be their worker's. A claim over a RUNNING job whose lease ran out has
    already counted one crash.
    """

    fence: int
    failures: int
    crashes: int
    suspected_worker_faults: int = 0


@dataclass(frozen=True, slots=True)
class AlreadySettled:
    """The job ended earlier: acknowledge the delivery."""

    record: JobRecord


@dataclass(frozen=True, slots=True)
class Held:
    """Another worker holds a live lease until `until` (wall seconds): come back later."""

    until: float


@dataclass(frozen=True, slots=True)
class AlreadySplit:
    """The job was split: its parts are worked on. Make sure that their tasks were sent."""

    record: JobRecord


Claim = Granted | AlreadySettled | Held | AlreadySplit


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: every given condition must hold."""

    states: frozenset[JobState] = field(default_factory=frozenset)
    profile: str | None = None
    source_key: str | None = None
    key_prefix: str | None = None
    updated_after: float | None = None

    def matches(self, record: JobRecord) -> bool:
        """Return whether every given condition holds."""
        key = record.source.key
        return (
            (not self.states or record.state in self.states)
            and self.profile in (None, record.profile)
            and self.source_key in (None, key)
            and (self.key_prefix is None or key.startswith(self.key_prefix))
            and (self.updated_after is None or record.updated_at > self.updated_after)
        )


class JobLedger(ABC):
    """Job states. Specification, held by tests/contracts for every backend:

    - A state moves only along `domain.job.ALLOWED`; anything else raises StaleFence.
    - `claim` grants each fence number once; fences of a job only grow. A live lease held by
      another owner is never granted again (Held), nor is a settled job (AlreadySettled).
    - Every call with a fence raises StaleFence unless the job is RUNNING under that very fence;
      `complete`, `skip` and `bury` also end a job that is SPLIT under it.
    - A subjob (see `SubjobLedger`) is moved like a job, by its own identity and fences; it is in no
      listing and no count.
    - An attempt is written (by `claim`) before the work, so one that vanishes is seen.
    - `progress` is cheap, may be lost in a crash, and never changes a state.
    - Listing pages through 100,000 jobs without loading them all.
    """

    progress_every_s: float = 5.0
    """Shortest time between two records of progress within one phase, in seconds, by what a write
    costs here: every 5 s a job of an hour costs 720 writes. A chunk reads its job's record at the
    same times, so this is also how long a chunk runs on after its job is cancelled."""

    @abstractmethod
    def register(self, source: Source, profiles: list[str]) -> list[JobRecord]:
        """Make sure a QUEUED record exists for each profile's job; existing ones stay as they are."""

    @abstractmethod
    def claim(self, source: Source, profile: str, *, owner: str, lease_s: float) -> Claim:
        """Try to take the job for `owner` for `lease_s` seconds; registers it if it is unknown."""

    @abstractmethod
    def renew(self, job_id: str, fence: int, *, lease_s: float) -> None:
        """Extend the lease to `lease_s` from now."""

    @abstractmethod
    def progress(self, job_id: str, fence: int, progress: Progress) -> None:
        """Record how far the job is; see `progress_every_s`."""

    @abstractmethod
    def complete(self, job_id: str, fence: int, rendition: RenditionRef, *, cpu_s: float) -> None:
        """RUNNING to DONE; durable when it returns."""

    @abstractmethod
    def skip(self, job_id: str, fence: int, reason: str) -> None:
        """RUNNING to SKIPPED with the reason."""

    @abstractmethod
    def fail(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        """RUNNING to QUEUED with one more counted failure."""

    @abstractmethod
    def interrupt(
        self, job_id: str, fence: int, reason: str, *, suspected_worker_fault: bool = False
    ) -> None:
        """RUNNING to QUEUED; neither a failure nor a crash is counted, but a doubt if `suspected_worker_fault`."""

    @abstractmethod
    def bury(self, job_id: str, fence: int, reason: str, failure_class: FailureClass) -> None:
        """RUNNING to DEAD with the reason and class."""

    @abstractmethod
    def bury_unclaimed(self, job_id: str, reason: str, failure_class: FailureClass) -> bool:
        """QUEUED (or RUNNING with its lease run out) to DEAD: the queue gave the task up.

        False if the job is unknown, settled, split or held by a live lease.
        """

    @abstractmethod
    def cancel(self, job_id: str, reason: str) -> bool:
        """QUEUED, RUNNING or SPLIT to DEAD, of the class CANCELLED, whoever holds it.

        Its fence is refused from then on, so its worker stops. False if unknown or settled.
        """

    @abstractmethod
    def reopen(self, job_id: str, *, who: str, why: str) -> bool:
        """DONE, SKIPPED or DEAD to QUEUED with counts reset, recording who and why; False if not
        settled. The fence is kept, so that a late zombie stays refused. It may be split again."""

    @abstractmethod
    def get(self, job_id: str) -> JobRecord | None:
        """Return the record, or None."""

    @abstractmethod
    def jobs(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Yield matching records, most recently updated first, a page at a time."""

    @abstractmethod
    def counts(self) -> dict[tuple[str, JobState], int]:
        """Return the number of jobs by profile and state."""
