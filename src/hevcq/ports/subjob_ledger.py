"""The subjob ledger port: the chunks and the join that a split job consists of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from hevcq.domain.job import JobRecord, Split
from hevcq.ports.ledger import Claim


class SubjobLedger(ABC):
    """Subjobs of split jobs. Specification, held by tests/contracts for every backend:

    - A split and its subjobs exist together or not at all, for every reader: `subjobs`
      returns those of the job's present split, and nothing else.
    - A subjob is claimed and moved like a job, by its own identity and fences (`JobLedger`).
    - A split's name is never used twice, so that a delivery or an attempt left over from an earlier
      split cannot affect a later one.
    """

    @abstractmethod
    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        """RUNNING to SPLIT: QUEUED subjobs for chunks of so many `frames`, and for the join, exist
        when it returns; those of earlier splits are of no more use. The lease ends."""

    @abstractmethod
    def mark_enqueued(self, job_id: str, split: str) -> None:
        """Record that the tasks of the split's chunks were sent; no effect once the job moved on."""

    @abstractmethod
    def abandon_split(self, job_id: str, fence: int, reason: str) -> None:
        """SPLIT to QUEUED: encode the job whole from now on because of `reason`; no failure counts.

        Raises StaleFence unless the job is SPLIT under that very fence.
        """

    @abstractmethod
    def claim_subjob(self, subjob_id: str, *, owner: str, lease_s: float) -> Claim | None:
        """Try to claim a subjob, as `JobLedger.claim` does a job; None if there is no such subjob.

        The caller checks before and after that the job is still SPLIT under the same split.
        """

    @abstractmethod
    def subjobs(self, job_id: str) -> list[JobRecord]:
        """Return the subjobs of a SPLIT job, chunks in order and the join last; else nothing."""

    def forget_subjobs(self, job_id: str) -> None:  # noqa: B027 - a hint, not a duty
        """Drop the subjobs of a job unless it is SPLIT; a backend may let them expire instead."""
