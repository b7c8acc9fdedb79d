"""Split jobs in DynamoDB: each subjob is an item, and the job's item names the current split."""

from __future__ import annotations

from collections.abc import Sequence

from hevcq.backends.aws.dynamodb.job_table import (
    FAILURE,
    LEASE,
    ConditionalUpdate,
    JobTable,
    absent,
    transition,
)
from hevcq.backends.aws.dynamodb.queries import JobQueries
from hevcq.backends.aws.dynamodb.schema import number, part_item, text
from hevcq.domain.job import JobRecord, JobState, Split, SubjobOf, subjob_id
from hevcq.errors import StaleFence
from hevcq.ports.ledger import Claim, SubjobLedger


class DynamoSubjobs(SubjobLedger):
    """Splits jobs and reads their subjobs.

    The subjobs of an earlier split are left to expire, because nothing refers to them any more.
    """

    _jobs: JobTable
    _queries: JobQueries

    def split(self, job_id: str, fence: int, split: Split, frames: Sequence[int]) -> None:
        """Add the subjobs, then move the job to SPLIT.

        A kill between the two leaves subjobs that nothing refers to. Raises StaleFence.
        """
        job = self._jobs.get(job_id)
        if job is None or job.state is not JobState.RUNNING or job.fence != fence:
            raise StaleFence(f"The job {job_id} is not running under fence {fence}.")
        chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]
        for chunk, held in chunks:
            part = SubjobOf(job_id=job_id, split=split.name, chunk=chunk, frames=held)
            self._add_part(job, part)
        now = self._jobs.clock.now()
        sets = {
            **transition(job_id, JobState.SPLIT, now),
            "lease_until": number(0.0),
            "split": text(split.model_dump_json()),
        }
        self._jobs.change_under(job_id, fence, sets, (*LEASE, *FAILURE))

    def _add_part(self, job: JobRecord, part: SubjobOf) -> None:
        """Add a subjob unless it exists: the name of a split is never used twice."""
        name = subjob_id(job.job_id, part.split, part.chunk)
        now = self._jobs.clock.now()
        self._jobs.create(part_item(job, name, self._jobs.pk_of(name), part, now))

    def mark_enqueued(self, job_id: str, split: str) -> None:
        job = self._jobs.get(job_id)
        if job is None or job.split is None or job.split.name != split:
            return
        enqueued = job.split.model_copy(update={"announced": True})
        as_split = {
            "state": text(JobState.SPLIT.value),
            "split": text(job.split.model_dump_json()),
        }
        self._jobs.change(
            job_id, ConditionalUpdate(as_split, {"split": text(enqueued.model_dump_json())})
        )

    def abandon_split(self, job_id: str, fence: int, reason: str) -> None:
        under = {"state": text(JobState.SPLIT.value), "fence": number(fence)}
        sets = {
            **transition(job_id, JobState.QUEUED, self._jobs.clock.now()),
            "whole": text(reason),
            "reason": text(reason),
        }
        if not self._jobs.change(
            job_id, ConditionalUpdate(under, sets, (*absent(sets, *FAILURE), "split"))
        ):
            raise StaleFence(f"The job {job_id} is not split under fence {fence}.")

    def claim_subjob(self, subjob_id: str, *, owner: str, lease_s: float) -> Claim | None:
        return self._jobs.claim(subjob_id, lambda: self._jobs.get(subjob_id), owner, lease_s)

    def subjobs(self, job_id: str) -> list[JobRecord]:
        """Return the subjobs of a split job, read 100 in a request."""
        job = self._jobs.get(job_id)
        if job is None or job.state is not JobState.SPLIT or job.split is None:
            return []
        wanted: list[int | None] = [*range(job.split.chunks), None]
        names = [subjob_id(job_id, job.split.name, chunk) for chunk in wanted]
        return self._queries.get_many([self._jobs.pk_of(name) for name in names])
