"""Process one delivery: `Handler.process` is where its whole life can be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

from hevcq.domain.job import JobRecord, JobState, Task
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import (
    REQUEUED_CHUNK_DELAY_S,
    Abandon,
    Bury,
    Done,
    FailureClass,
    Release,
    Skipped,
    Verdict,
    verdict,
)
from hevcq.errors import (
    BadMessage,
    HevcqError,
    StaleFence,
    Stopped,
    StorageError,
    TransientError,
)
from hevcq.ports.ledger import AlreadySettled, AlreadySplit, Granted, Held
from hevcq.ports.queue import Delivery, Queue
from hevcq.util.log import get_logger
from hevcq.worker.chunking.chunk_job import ChunkJob
from hevcq.worker.chunking.join_job import JoinJob
from hevcq.worker.chunking.split import enqueue_chunks, split_video
from hevcq.worker.chunking.subjob import settle_ended_subjob, settle_obsolete_subjob
from hevcq.worker.delivery.claim import ClaimedTask, ClaimResult, ObsoleteTask, claim_task
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.decide import decide, has_receives_to_spare, is_unfit
from hevcq.worker.delivery.events import emit_settled, emit_started
from hevcq.worker.delivery.fault_attribution import crashed_too_often
from hevcq.worker.delivery.job import Job
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.delivery.settle import combined, delay, settle
from hevcq.worker.encode_job import EncodeJob

NEVER_CLAIMED_FAILURES = 1 << 30
"""The failures an unclaimed job may have: it was never begun, so none of them is its own."""
REQUEUED_CHUNK = "This worker handed the chunk on a moment ago, and leaves it to others."
MAX_HELD_DELAY_S = 3600.0
"""The longest pause before a delivery whose job another worker holds is looked at again."""


@dataclass(frozen=True, slots=True)
class ProfileQueue:
    """A queue and the profile whose tasks it carries."""

    profile: Profile
    queue: Queue


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What became of a delivery. `unfit` says why this worker must take nothing more."""

    verdict: Verdict
    settled: bool
    unfit: HevcqError | None = None


class Handler:
    """Processes the deliveries of one slot, one at a time. `worker` names the slot in leases."""

    def __init__(self, context: WorkerContext, worker: str) -> None:
        self.worker = worker
        self._context = context
        self._guard = threading.Lock()
        self._lease: Lease | None = None
        self._interrupted = False
        self._unfit: HevcqError | None = None

    def interrupt(self) -> None:
        """Stop the job in hand and release it; every later delivery is released at once."""
        with self._guard:
            self._interrupted = True
            lease = self._lease
        if lease is not None:
            lease.end(Stopped())

    def process(self, profile_queue: ProfileQueue, delivery: Delivery) -> DeliveryResult:
        """Carry a delivery through its life: parse, claim, run, decide, record, settle.

        A task that fails raises nothing. What is raised is a defect or a kill: the delivery stays
        unsettled and comes back after its deadline.
        """
        context, queue, profile = self._context, profile_queue.queue, profile_queue.profile
        self._unfit = None
        verdict = parsed_verdict(delivery)
        if verdict is not None:
            return DeliveryResult(verdict, settle(context, queue, delivery, verdict))
        verdicts: list[Verdict] = []
        # Leaving the block joins the heartbeat: one in flight would hide the message again.
        with self._leased(profile_queue, delivery) as lease:
            for task in delivery.tasks:
                job = self._claim(task, delivery, lease, profile)
                if not isinstance(job, Job):
                    verdicts.append(job)
                    continue
                emit_started(context, job.claimed, delivery, part=job.part)
                try:
                    decided = crashed_too_often(job.granted, profile) or job.run()
                except Exception as error:  # noqa: BLE001 - classified, once
                    decided, unfit = decide(context, job, error, delivery)
                    self._unfit = unfit or self._unfit
                decided = self._record(job, decided)
                emit_settled(context, job.claimed, decided, job)
                verdicts.append(decided)
            verdict = combined(verdicts)
            self._mark_sources_finished(delivery, verdict, lease)
        if lease.lost:
            verdict = Abandon(reason=str(lease.cause))
        return DeliveryResult(verdict, settle(context, queue, delivery, verdict), self._unfit)

    @contextmanager
    def _leased(self, profile_queue: ProfileQueue, delivery: Delivery) -> Iterator[Lease]:
        """Hold a lease on the delivery, kept alive by a heartbeat that is joined on leaving."""
        context, profile = self._context, profile_queue.profile
        lease = Lease(profile_queue.queue, delivery, profile.queue, context.clock, context.random)
        with self._guard:
            self._lease = lease
            if self._interrupted:
                lease.end(Stopped())
        heartbeat = context.heartbeat(lease, context.clock)
        heartbeat.start()
        try:
            yield lease
        finally:
            heartbeat.join()
            with self._guard:
                self._lease = None

    def _claim(
        self, task: Task, delivery: Delivery, lease: Lease, profile: Profile
    ) -> Job | Verdict:
        """Claim a task in the ledger; return its job, or the verdict on one that is not ours to run."""
        try:
            lease.check()
            if self._leaves(task, delivery, profile):
                return Release(reason=REQUEUED_CHUNK, delay_s=REQUEUED_CHUNK_DELAY_S)
            found = claim_task(self._context, self.worker, task, delivery, profile)
            if isinstance(found, ObsoleteTask):
                return settle_obsolete_subjob(self._context, task, found.job, found.part)
            if not isinstance(found.claim, (Held, Granted)):
                return self._ended(found, found.claim, lease)
        except Exception as error:  # noqa: BLE001 - classified, once
            return self._unclaimed(error, task, delivery, lease, profile)
        if isinstance(found.claim, Held):
            return self._held(found.claim, delivery, profile)
        fence = Fence(self._context.backend.ledger, found.task.unit_id, found.claim.fence)
        lease.hold(fence, claimed_at=found.sent)
        claimed = ClaimedTask(found.task, profile, lease, fence, self.worker)
        return self._job_of(claimed, found.claim, found.job)

    def _job_of(self, claimed: ClaimedTask, granted: Granted, split_job: JobRecord | None) -> Job:
        if split_job is None:
            return EncodeJob(self._context, claimed, granted, split_video)
        kind = JoinJob if claimed.task.chunk is None else ChunkJob
        return kind(self._context, claimed, granted, split_job)

    def _leaves(self, task: Task, delivery: Delivery, profile: Profile) -> bool:
        """Return whether a chunk that this process requeued is left to other workers for now."""
        now = self._context.clock.monotonic()
        if not self._context.requeued_chunks.leaves(task.unit_id, now):
            return False
        return has_receives_to_spare(delivery, profile)

    def _ended(
        self, found: ClaimResult, claim: AlreadySettled | AlreadySplit, lease: Lease
    ) -> Verdict:
        """Return what becomes of a delivery whose work was done before, or is shared out."""
        match claim:
            case AlreadySettled(record) if found.job is not None:
                return settle_ended_subjob(self._context, lease, found.task, found.job, record)
            case AlreadySettled():
                return _settled_earlier(claim)
            case AlreadySplit(record):
                if record.split is not None and not record.split.announced:
                    enqueue_chunks(self._context, found.task, record.split)
                return Done()
            case _:
                assert_never(claim)

    def _record(self, job: Job, decided: Verdict) -> Verdict:
        """Write the verdict to the ledger; return what is left to do where that fails."""
        try:
            return job.record(decided)
        except StaleFence as error:
            return Abandon(reason=str(error))
        except (TransientError, StorageError) as error:
            # The job stays RUNNING until its lease ends, so the message must wait at least as
            # long as the queue itself would hide it; letting the deadline pass does just that.
            get_logger().error("verdict_not_recorded", reason=str(error), verdict=str(decided))
            return Abandon(reason=str(error))

    def _mark_sources_finished(self, delivery: Delivery, decided: Verdict, lease: Lease) -> None:
        """Report the sources of a delivery that ended well, before its message goes.

        A kill here brings the message back, and its tasks are found settled.
        """
        if isinstance(decided, (Done, Skipped)) and not lease.lost:
            for source in {task.source for task in delivery.tasks}:
                self._context.mark_source_finished(source)

    def _unclaimed(
        self, error: Exception, task: Task, delivery: Delivery, lease: Lease, profile: Profile
    ) -> Verdict:
        """Decide on a task whose job was not claimed: it was not begun, so it has not failed."""
        if not isinstance(error, HevcqError):
            get_logger(job=task.job_id).exception("claim_broke")
        cause = lease.cause or error
        if isinstance(cause, HevcqError) and is_unfit(cause):
            self._unfit = cause
        decided = verdict(
            cause,
            failures=delivery.attempt - 1,
            limits=profile.queue.limits.model_copy(update={"max_failures": NEVER_CLAIMED_FAILURES}),
            jitter=self._context.random(),
            attempt=delivery.attempt,
        )
        log = get_logger(job=task.job_id)
        log.warning("job_not_claimed", reason=str(cause), delay_s=delay(decided))
        # What is no task says nothing of the job it names: that one has a message of its own.
        if isinstance(decided, Bury) and not isinstance(cause, BadMessage):
            try:
                self._context.retry_control_call(
                    lambda: self._context.backend.ledger.bury_unclaimed(
                        task.job_id, decided.reason, decided.failure_class
                    )
                )
            except (TransientError, StorageError) as unrecorded:
                # The dead letter carries the reason; only the ledger's copy of it is missing.
                log.warning("verdict_not_recorded", reason=str(unrecorded))
        return decided

    def _held(self, claim: Held, delivery: Delivery, profile: Profile) -> Release:
        """Come back once the other lease may have ended: soon, if nobody renews it.

        A worker that lives has always more than half of its lease before it. Less is left by one
        that died: its message is visible again just before its claim ends, which is a call
        younger. Each look costs this message a receive, and a worker that lives may be busy for
        hours: the doubling keeps a duplicate from using up max_receives and dying of it.
        """
        left = max(1.0, claim.until - self._context.clock.now())
        if left <= profile.queue.visibility_s / 2:
            return Release(reason="Another worker held the job.", delay_s=left)
        doubled = profile.queue.visibility_s * 2.0 ** min(delivery.attempt - 1, 16)
        seconds = min(MAX_HELD_DELAY_S, max(left, doubled)) * (0.9 + self._context.random() / 10)
        return Release(reason="Another worker holds the job.", delay_s=seconds)


def parsed_verdict(delivery: Delivery) -> Verdict | None:
    """Return the verdict on a message that holds no task of ours, or None if there is work in it."""
    log = get_logger(queue=delivery.queue, message=delivery.message_id)
    if delivery.problem:
        log.warning("message_unreadable", reason=delivery.problem)
        return Bury(reason=delivery.problem, failure_class=FailureClass.MESSAGE)
    if not delivery.tasks:
        log.info("message_ignored", reason=delivery.ignored)
        return Done()
    return None


def _settled_earlier(claim: AlreadySettled) -> Verdict:
    """Return what a job that ended earlier means for this message.

    A dead job's message is buried, not acknowledged: its own bury may be what a kill prevented,
    and a second dead letter does less harm than none. One that a person cancelled needs none.
    """
    record_ = claim.record
    if record_.state is JobState.DEAD and record_.failure_class is not FailureClass.CANCELLED:
        return Bury(
            reason=record_.reason, failure_class=record_.failure_class or FailureClass.INTERNAL
        )
    return Done()
