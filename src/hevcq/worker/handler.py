"""Handle one delivery: work on its tasks under a lease, classify once, and settle exactly once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import assert_never

from hevcq.domain.job import JobRecord, JobState, Source, Task
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import (
    HAND_ON_S,
    Abandon,
    Bury,
    Done,
    FailureClass,
    Handling,
    Release,
    RetryIn,
    Skipped,
    Verdict,
    backoff,
    classify,
    handling,
    verdict,
)
from hevcq.errors import (
    BadMessage,
    DatabaseBusy,
    HevcqError,
    StaleFence,
    Stopped,
    StorageError,
    TransientError,
    WorkerUnfit,
)
from hevcq.ports.ledger import AlreadySettled, AlreadySplit, Granted, Held
from hevcq.ports.queue import Delivery, Queue
from hevcq.util.log import get_logger
from hevcq.worker.chunking.chunk_job import ChunkJob
from hevcq.worker.chunking.join_job import JoinJob
from hevcq.worker.chunking.split import enqueue_chunks
from hevcq.worker.chunking.subjob import Subjob, settle_ended_subjob, settle_obsolete_subjob
from hevcq.worker.delivery.claim import ClaimedTask, ClaimResult, ObsoleteTask, claim_task
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.events import emit_settled, emit_started
from hevcq.worker.delivery.fault_attribution import blame_source, suspect
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.delivery.settle import combined, delay, settle
from hevcq.worker.delivery.transitions import LedgerTransitions
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
    """Handles the deliveries of one slot, one at a time. `worker` names the slot in leases."""

    def __init__(self, context: WorkerContext, worker: str) -> None:
        self.worker = worker
        self._context = context
        self._guard = threading.Lock()
        self._lease: Lease | None = None
        self._interrupted = False
        self._unfit: HevcqError | None = None

    def interrupt(self) -> None:
        """Make the work in hand stop and go back; what comes later goes back at once."""
        with self._guard:
            self._interrupted = True
            lease = self._lease
        if lease is not None:
            lease.end(Stopped())

    def handle(self, served: ProfileQueue, delivery: Delivery) -> DeliveryResult:
        """Do what the delivery asks, and settle it.

        Nothing is raised for a task that fails. What is raised is a defect or a kill: it leaves
        the delivery unsettled, and it comes back after its deadline.
        """
        log = get_logger(queue=delivery.queue, message=delivery.message_id)
        if delivery.problem:
            log.warning("message_unreadable", reason=delivery.problem)
            why = Bury(reason=delivery.problem, failure_class=FailureClass.MESSAGE)
            return DeliveryResult(why, settle(self._context, served.queue, delivery, why))
        if not delivery.tasks:
            log.info("message_ignored", reason=delivery.ignored)
            return DeliveryResult(Done(), settle(self._context, served.queue, delivery, Done()))
        return self._work(served, delivery)

    def _work(self, served: ProfileQueue, delivery: Delivery) -> DeliveryResult:
        context, queue, profile = self._context, served.queue, served.profile
        lease = Lease(queue, delivery, profile.queue, context.clock, context.random)
        with self._guard:
            self._lease, self._unfit = lease, None
            if self._interrupted:
                lease.end(Stopped())
        heartbeat = context.heartbeat(lease, context.clock)
        heartbeat.start()
        try:
            verdicts = [self._task(task, delivery, lease, profile) for task in delivery.tasks]
            decided = combined(verdicts)
            if isinstance(decided, (Done, Skipped)) and not lease.lost:
                # Before the message goes: a kill here brings it back, to be found settled.
                for source in {task.source for task in delivery.tasks}:
                    context.let_go(source)
        finally:
            # Joined before settling: a heartbeat in flight would hide the message again.
            heartbeat.join()
            with self._guard:
                self._lease = None
        if lease.lost:
            decided = Abandon(reason=str(lease.cause))
        return DeliveryResult(decided, settle(context, queue, delivery, decided), self._unfit)

    def _task(self, task: Task, delivery: Delivery, lease: Lease, profile: Profile) -> Verdict:
        """Work on one task and write its verdict to the ledger."""
        try:
            lease.check()
            if self._leaves(task, delivery, profile):
                return Release(reason=REQUEUED_CHUNK, delay_s=HAND_ON_S)
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
        return self._claimed(claimed, found.claim, found.job, delivery)

    def _leaves(self, task: Task, delivery: Delivery, profile: Profile) -> bool:
        """Return whether a chunk that this process handed on is left to others a little longer."""
        if not self._context.requeued_chunks.leaves(task.unit_id, self._context.clock.monotonic()):
            return False
        return _to_spare(delivery, profile)

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

    def _claimed(
        self, claimed: ClaimedTask, granted: Granted, job: JobRecord | None, delivery: Delivery
    ) -> Verdict:
        work = self._work_of(claimed, job)
        emit_started(self._context, claimed, delivery, part=work.part)
        if granted.crashes >= claimed.profile.queue.max_crashes:
            reason = (
                f"The job vanished {granted.crashes} times without a word: "
                "its worker was killed, most likely for want of memory."
            )
            decided: Verdict = Bury(reason=reason, failure_class=FailureClass.CRASHED)
        else:
            decided = self._tried(work, claimed, granted, delivery)
        decided = self._recorded(work, decided)
        emit_settled(self._context, claimed, decided, work)
        return decided

    def _work_of(self, claimed: ClaimedTask, job: JobRecord | None) -> EncodeJob | Subjob:
        transitions = LedgerTransitions(self._context, claimed.lease, claimed.fence)
        if job is None:
            return EncodeJob(self._context, claimed, transitions)
        kind = JoinJob if claimed.task.chunk is None else ChunkJob
        return kind(self._context, claimed, transitions, job)

    def _tried(
        self, work: EncodeJob | Subjob, claimed: ClaimedTask, granted: Granted, delivery: Delivery
    ) -> Verdict:
        try:
            return work.run()
        except Exception as error:  # noqa: BLE001 - classified, once
            # Whatever broke when the lease was lost or the stop came, broke because of that.
            cause = claimed.lease.cause or error
            cause = blame_source(lambda: self._check(claimed.task.source), cause)
            doubted = not work.sent_back and self._context.breaker.doubtful(
                claimed.task.job_id, classify(cause), first=not granted.doubts
            )
            cause = self._diagnosed(cause, claimed)
            if not isinstance(cause, HevcqError):
                get_logger(job=claimed.task.job_id).exception("job_broke")
            numbers, jitter = claimed.profile.queue, self._context.random()
            decided = verdict(
                cause,
                failures=granted.failures,
                limits=numbers.limits,
                jitter=jitter,
                attempt=delivery.attempt,
            )
            # With too few receives to spare the queue would give it up before its failures do.
            spare = _to_spare(delivery, claimed.profile)
            if doubted and spare and isinstance(decided, (RetryIn, Bury)):
                # Had this worker waited as well, it would be the first to meet the job again.
                return Release(
                    reason=f"Perhaps this worker's fault: {decided.reason}",
                    delay_s=backoff(0, numbers.limits, jitter),
                    doubted=True,
                )
            return decided

    def _check(self, source: Source) -> None:
        self._context.retry_control_call(lambda: self._context.backend.store.check(source))

    def _diagnosed(self, error: Exception, claimed: ClaimedTask) -> Exception:
        """Return WorkerUnfit instead of `error` where this worker is to blame and not the job."""
        blame = self._tried_out(error, claimed)
        later = handling(blame) is Handling.LATER
        if later and self._context.breaker.failed(claimed.task.job_id, classify(error)):
            blame = WorkerUnfit(
                "Different jobs failed here one after another, so this worker takes no more.",
                remedy=f"See `hevcq doctor`. The last error was: {error}",
            )
        if isinstance(blame, (WorkerUnfit, StorageError)) and not isinstance(blame, DatabaseBusy):
            self._unfit = blame
        return blame

    def _tried_out(self, error: Exception, claimed: ClaimedTask) -> Exception:
        """Return what a trial of the encoder says after a failure that may be this machine's.

        So the first job that a sick worker meets pays for it no more than the others.
        """
        if handling(error) is Handling.LATER and suspect(classify(error)):
            try:
                self._context.encoder.self_test(claimed.profile, stop=claimed.lease.stop)
            except WorkerUnfit as unfit:
                get_logger(job=claimed.task.job_id).error("trial_failed", reason=str(unfit))
                return unfit
            except HevcqError as unknown:
                get_logger().info("trial_ended", reason=str(unknown))
        return error

    def _recorded(self, work: EncodeJob | Subjob, decided: Verdict) -> Verdict:
        """Write the verdict to the ledger; return what is left to do where that fails."""
        try:
            return work.record(decided)
        except StaleFence as error:
            return Abandon(reason=str(error))
        except (TransientError, StorageError) as error:
            # The job stays RUNNING until its lease ends, so the message must wait at least as
            # long as the queue itself would hide it; letting the deadline pass does just that.
            get_logger().error("verdict_not_recorded", reason=str(error), verdict=str(decided))
            return Abandon(reason=str(error))

    def _unclaimed(
        self, error: Exception, task: Task, delivery: Delivery, lease: Lease, profile: Profile
    ) -> Verdict:
        """Decide on a task whose job was not claimed: it was not begun, so it has not failed."""
        if not isinstance(error, HevcqError):
            get_logger(job=task.job_id).exception("claim_broke")
        cause = lease.cause or error
        if isinstance(cause, StorageError) and not isinstance(cause, DatabaseBusy):
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


def _to_spare(delivery: Delivery, profile: Profile) -> bool:
    """Return whether the message may come back uncounted, and its failures still fit its receives."""
    numbers = profile.queue
    return delivery.attempt < numbers.max_receives - numbers.max_failures


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
