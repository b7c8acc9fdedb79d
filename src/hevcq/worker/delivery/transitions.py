"""The ledger transitions of one claimed job, each certain of its effect even if a reply is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hevcq.domain.job import JobRecord, JobState, RenditionRef, Split
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.lease import Fence, Lease


class LedgerTransitions:
    """Writes the end of one attempt under its fence.

    Every method raises StaleFence if the job is no longer ours, and Unavailable or StorageError
    if the ledger did not answer after some tries: whether it moved is then unknown.
    """

    def __init__(self, context: WorkerContext, lease: Lease, fence: Fence) -> None:
        self._context, self._lease, self._fence = context, lease, fence
        self._ledger = fence.ledger

    def complete(self, rendition: RenditionRef, *, cpu_s: float) -> None:
        """Write that the rendition is published."""
        self._move(
            JobState.DONE,
            lambda job, fence: self._ledger.complete(job, fence, rendition, cpu_s=cpu_s),
        )

    def skip(self, reason: str) -> None:
        """Write that there is nothing to do."""
        self._move(JobState.SKIPPED, lambda job, fence: self._ledger.skip(job, fence, reason))

    def split(self, split: Split, frames: Sequence[int]) -> None:
        """Write that the job is split into chunks of so many frames each."""
        self._move(
            JobState.SPLIT,
            lambda job, fence: self._context.backend.subjobs.split(job, fence, split, frames),
        )

    def abandon_split(self, reason: str) -> None:
        """Write that the job is to be encoded whole after all."""
        self._move(
            JobState.QUEUED,
            lambda job, fence: self._context.backend.subjobs.abandon_split(job, fence, reason),
        )

    def fail(self, reason: str, failure_class: FailureClass) -> None:
        """Count a failure and queue the job again."""
        self._move(
            JobState.QUEUED,
            lambda job, fence: self._ledger.fail(job, fence, reason, failure_class),
        )

    def interrupt(self, reason: str, *, suspected_worker_fault: bool = False) -> None:
        """Queue the job again, counting nothing but the doubt."""
        self._move(
            JobState.QUEUED,
            lambda job, fence: self._ledger.interrupt(
                job, fence, reason, suspected_worker_fault=suspected_worker_fault
            ),
        )

    def bury(self, reason: str, failure_class: FailureClass) -> None:
        """Write that the job is dead."""
        self._move(
            JobState.DEAD,
            lambda job, fence: self._ledger.bury(job, fence, reason, failure_class),
        )

    def _move(self, goal: JobState, action: Callable[[str, int], None]) -> None:
        self._lease.drop()
        attempts, stale = 0, None

        def attempt() -> None:
            nonlocal attempts, stale
            attempts += 1
            try:
                action(self._fence.job_id, self._fence.number)
            except StaleFence as error:
                if attempts == 1:
                    raise
                stale = error

        self._context.retry_control_call(attempt)
        # A stale fence after an attempt without an answer: that attempt may have ended it itself.
        if stale is not None and not self._arrived(goal):
            raise stale

    def seen(self) -> JobRecord | None:
        """Return the job as it is now."""
        return self._context.retry_control_call(lambda: self._ledger.get(self._fence.job_id))

    def _arrived(self, goal: JobState) -> bool:
        record = self._ledger.get(self._fence.job_id)
        return record is not None and record.state is goal and record.fence == self._fence.number
