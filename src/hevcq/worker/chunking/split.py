"""Split a video: decide whether that pays, write its plan, and queue its chunks.

The order, and what a kill after each step leaves:

| step | a kill after it leaves |
|---|---|
| the plan's object is put | an unused object: the next attempt splits under its own fence |
| the job is SPLIT, its subjobs exist | a SPLIT job not announced: the task returns, and sends |
| the chunks' tasks are sent | the same; a chunk's second task finds its subjob held or done |
| the split is announced | the job's task returns, and is acknowledged |
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hevcq.domain.chunking.planner import ChunkPlan, WholeFile, costliest_first, plan_chunks
from hevcq.domain.chunking.split_plan import SplitPlan
from hevcq.domain.job import JobState, Split, Task, TaskKind
from hevcq.domain.keys import work_folder, work_key
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.verdict import Done, Release
from hevcq.errors import StorageError, TransientError
from hevcq.util.log import get_logger
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.job import SplitRequest, SplittableJob
from hevcq.worker.delivery.settle import LedgerTransitions
from hevcq.worker.delivery.split_leftovers import sweep

PLAN = "plan.json"
LATER_S = 5.0
"""Seconds before a split that could not be announced is tried again."""


class Splitter:
    """Split the video of one claimed job."""

    def __init__(
        self, context: WorkerContext, claimed: ClaimedTask, transitions: LedgerTransitions
    ) -> None:
        self._context, self._claimed, self._transitions = context, claimed, transitions
        self._task, self._profile = claimed.task, claimed.profile

    def plan(self, location: str, info: MediaInfo, plan: EncodePlan) -> ChunkPlan | None:
        """Return where to cut the video, or None if it is to be encoded whole."""
        ledger = self._context.backend.ledger
        job = self._context.retry_control_call(lambda: ledger.get(self._task.job_id))
        if job is not None and job.do_not_split_reason:
            # The worker that abandoned the split may have been killed before its sweep.
            sweep(self._context, job)
            return None
        index = self._context.encoder.keyframes(
            location, info, stop=self._claimed.lease.stop, ladder=plan.ladder
        )
        slots_per_job = self._context.slots_per_job(self._profile)
        made = plan_chunks(self._profile, info, plan, index, workers_hint=slots_per_job)
        if isinstance(made, WholeFile):
            get_logger(job=self._task.job_id).info("video_whole", why=made.reason)
            return None
        return made

    def carry_out(self, chunks: ChunkPlan, request: SplitRequest) -> Done | Release:
        """Split the job and queue its chunks; return Release if they are not queued yet.

        Raises StaleFence if this attempt no longer owns the job, and Unavailable or
        StorageError if store or ledger does not answer.
        """
        name = f"{chunks.digest}-{self._claimed.fence.number}"
        video = SplitPlan(
            job_id=self._task.job_id,
            split=name,
            recipe=self._profile,
            source_sha256=request.source_sha256,
            info=request.info,
            plan=request.plan,
            measured=request.measured,
            duration_s=request.duration_s,
            chunks=chunks,
        )
        content = video.model_dump_json().encode()
        split = Split(
            name=name,
            chunks=len(chunks.chunks),
            frames=chunks.frames,
            seconds=sum(chunks.seconds(chunk) for chunk in chunks.chunks),
            plan_sha256=hashlib.sha256(content).hexdigest(),
        )
        folder = work_folder(video.job_id, video.recipe.name)
        self._put(work_key(folder, name, PLAN), content)
        self._transitions.split(split, [chunk.frames for chunk in chunks.chunks])
        log = get_logger(job=video.job_id, split=name)
        log.info("video_split", chunks=split.chunks, frames=split.frames)
        try:
            enqueue_chunks(self._context, self._task, split, costliest_first(chunks))
        except (TransientError, StorageError) as error:
            # The job is already split, so this must not count as a failure.
            log.warning("split_not_announced", reason=str(error))
            return Release(reason=str(error), delay_s=LATER_S)
        return Done()

    def _put(self, key: str, content: bytes) -> None:
        self._claimed.lease.check()
        store = self._context.backend.store
        self._context.retry_control_call(
            lambda: store.put(key, content, metadata={"job": self._task.job_id})
        )
        self._claimed.lease.check()


def split_video(
    context: WorkerContext, job: SplittableJob, request: SplitRequest
) -> Done | Release | None:
    """Split a job's video into chunks for many workers if it can be cut, else return None.

    Release means that the job is split but its chunks are not queued yet. Raises StaleFence if
    this attempt no longer owns the job, and Unavailable or StorageError if store or ledger does not
    answer.
    """
    splitter = Splitter(context, job.claimed, job.transitions)
    chunks = splitter.plan(request.location, request.info, request.plan)
    return None if chunks is None else splitter.carry_out(chunks, request)


def enqueue_chunks(
    context: WorkerContext, task: Task, split: Split, order: Sequence[int] = ()
) -> None:
    """Send the tasks of the queued subjobs of a split; duplicates are harmless.

    `order` lists chunk numbers; by default they go in the order of the video. All tasks of a video
    share its fair-share group, so that short jobs get through between them.
    """
    subjobs = context.backend.subjobs
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
    """Return the task of a chunk, or of the join if `chunk` is None."""
    return Task(
        kind=TaskKind.JOIN if chunk is None else TaskKind.CHUNK,
        source=task.source,
        profile=task.profile,
        chunk=chunk,
        group=task.source.source_id,
        split=split,
    )
