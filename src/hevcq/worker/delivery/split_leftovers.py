"""Remove the objects that ended split jobs left in the store, under work/."""

from __future__ import annotations

from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.keys import SETS, WORK, parse_work_key
from hevcq.errors import HevcqError
from hevcq.util.log import get_logger
from hevcq.worker.delivery.context import WorkerContext


def sweep(context: WorkerContext, ended: JobRecord, *, forget: bool = True) -> None:
    """Remove the objects and subjob records of an ended split job; leave failures to a later sweep.

    The job is read after the listing: it may have been queued and split again since it ended, and
    the objects of that split are then known to be in use.

    `forget` must be False for a dead job, which keeps the records: if a kill prevented the burial of
    a subjob's delivery, its record marks the next delivery as one to bury.
    """
    store, ledger = context.backend.store, context.backend.ledger
    try:
        kept = list(store.list(ended.work_folder))
        job = ledger.get(ended.job_id) if kept else None
        for stored in kept:
            if not _in_use(job, parse_work_key(stored.key)[1]):
                store.delete(stored.key)
        if forget:
            context.backend.ledger.forget_subjobs(ended.job_id)
    except HevcqError as error:
        get_logger(job=ended.job_id).info("work_not_swept", reason=str(error))


def sweep_leftovers(context: WorkerContext) -> None:
    """Remove the objects of ended jobs and of abandoned splits, which a kill leaves.

    Called at the start of a worker whose store has no expiry of its own.
    """
    store, ledger = context.backend.store, context.backend.ledger
    jobs: dict[str, JobRecord | None] = {}
    try:
        for stored in list(store.list(f"{WORK}/")):
            job_id, split = parse_work_key(stored.key)
            if split == SETS:  # `worker.sets` reads these
                continue
            if job_id not in jobs:
                jobs[job_id] = ledger.get(job_id)
            if not _in_use(jobs[job_id], split):
                store.delete(stored.key)
        for job_id, job in jobs.items():
            if job is not None and job.state in {JobState.DONE, JobState.SKIPPED}:
                context.backend.ledger.forget_subjobs(job_id)
    except HevcqError as error:
        get_logger().info("leftovers_not_swept", reason=str(error))


def _in_use(job: JobRecord | None, split: str) -> bool:
    """Return whether a job uses the objects of this split."""
    if job is None:
        return False
    if job.state is JobState.SPLIT:
        return job.split is not None and job.split.name == split
    # The plan of a job that is being split is in the store before the ledger has the split.
    return job.state is JobState.RUNNING and split.endswith(f"-{job.fence}")
