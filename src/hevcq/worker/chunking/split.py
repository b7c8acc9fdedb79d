"""Split a video: decide whether that pays, write its plan, queue its chunks; sweep what splits leave.

The order, and what a kill after each step leaves:

| step | a kill after it leaves |
|---|---|
| the plan's object is put | an unused object: the next attempt splits under its own fence |
| the job is SPLIT, its subjobs exist | a SPLIT job not announced: the task returns, and sends |
| the chunks' tasks are sent | the same; a chunk's second task finds its subjob held or done |
| the split is announced | the job's task returns, and is acknowledged |
"""

import hashlib
from collections.abc import Sequence

from hevcq.domain.chunking.model import ChunkPlan, SplitPlan, WholeFile
from hevcq.domain.chunking.planner import costliest_first, plan_chunks
from hevcq.domain.job import JobRecord, JobState, Split, Task, TaskKind
from hevcq.domain.keys import SETS, WORK, parse_work_key, work_folder, work_key
from hevcq.domain.planning.encode_plan import Work
from hevcq.domain.verdict import Done, Release
from hevcq.errors import HevcqError, StorageError, TransientError
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.job import Job

PLAN = "plan.json"
LATER_S = 5.0
"""Seconds before a split that could not be announced is tried again."""


def split_video(
    context: WorkerContext, job: Job, work: Work, location: str
) -> Done | Release | None:
    """Split a job's video into chunks for many workers if it can be cut, else return None.

    Release means that the job is split but its chunks are not queued yet. Raises StaleFence if
    this attempt no longer owns the job, and Unavailable or StorageError if store or ledger does not
    answer.
    """
    chunks = _planned(context, job.claimed, work, location)
    if chunks is None:
        return None
    claimed, task = job.claimed, job.claimed.task
    name = f"{chunks.digest}-{claimed.fence.number}"
    plan = SplitPlan.model_validate({**dict(work), "chunks": chunks})
    content = plan.model_dump_json().encode()
    split = Split(
        name=name,
        chunks=len(chunks.chunks),
        frames=chunks.frames,
        seconds=sum(chunks.seconds(chunk) for chunk in chunks.chunks),
        plan_sha256=hashlib.sha256(content).hexdigest(),
    )
    key = work_key(work_folder(task.job_id, work.recipe.name), name, PLAN)
    claimed.lease.check()
    context.retry_control_call(
        lambda: context.backend.store.put(key, content, metadata={"job": task.job_id})
    )
    claimed.lease.check()
    job.transitions.split(split, [chunk.frames for chunk in chunks.chunks])
    log = get_logger(job=task.job_id, split=name)
    log.info("video_split", chunks=split.chunks, frames=split.frames)
    try:
        enqueue_chunks(context, task, split, costliest_first(chunks))
    except (TransientError, StorageError) as error:
        # The job is already split, so this must not count as a failure.
        log.warning("split_not_announced", reason=str(error))
        return Release(reason=str(error), delay_s=LATER_S)
    return Done()


def _planned(
    context: WorkerContext, claimed: ClaimedTask, work: Work, location: str
) -> ChunkPlan | None:
    ledger, job_id = context.backend.ledger, claimed.task.job_id
    job = context.retry_control_call(lambda: ledger.get(job_id))
    if job is not None and job.do_not_split_reason:
        # The worker that abandoned the split may have been killed before its sweep.
        sweep(context, job)
        return None
    stop, ladder = claimed.lease.stop, work.plan.ladder
    index = context.encoder.keyframes(location, work.info, stop=stop, ladder=ladder)
    slots = context.slots_per_job(work.recipe)
    made = plan_chunks(work.recipe, work.info, work.plan, index, workers_hint=slots)
    if isinstance(made, WholeFile):
        get_logger(job=job_id).info("video_whole", why=made.reason)
        return None
    return made


def enqueue_chunks(
    context: WorkerContext, task: Task, split: Split, order: Sequence[int] = ()
) -> None:
    """Send the tasks of the queued subjobs of a split; duplicates are harmless.

    `order` lists chunk numbers; by default they go in the order of the video. All tasks of a video
    share its fair-share group, so that short jobs get through between them.
    """
    subjobs = context.backend.ledger
    parts = context.retry_control_call(lambda: subjobs.subjobs(task.job_id))
    waiting = [p.subjob.chunk for p in parts if p.subjob and p.state is JobState.QUEUED]
    chunks = [chunk for chunk in order or range(split.chunks) if chunk in waiting]
    tasks = [subjob_task(task, split.name, chunk) for chunk in chunks]
    done = sum(p.state is JobState.DONE for p in parts)
    if parts and done == len(parts) - 1 and None in waiting:
        tasks = [subjob_task(task, split.name, None)]
    if tasks:
        context.retry_control_call(lambda: context.backend.queues[task.profile].send(tasks))
    context.retry_control_call(lambda: subjobs.mark_enqueued(task.job_id, split.name))


def subjob_task(task: Task, split: str, chunk: int | None) -> Task:
    return Task(
        kind=TaskKind.JOIN if chunk is None else TaskKind.CHUNK,
        source=task.source,
        profile=task.profile,
        chunk=chunk,
        group=task.source.source_id,
        split=split,
        asked=task.asked,
    )


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
    if job is None:
        return False
    if job.state is JobState.SPLIT:
        return job.split is not None and job.split.name == split
    # The plan of a job that is being split is in the store before the ledger has the split.
    return job.state is JobState.RUNNING and split.endswith(f"-{job.fence}")
