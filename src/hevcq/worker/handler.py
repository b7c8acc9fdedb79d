"""Process one delivery; `Handler.process` shows its whole life cycle."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from hevcq.domain.job import JobRecord, JobState, Task
from hevcq.domain.profile import Profile
from hevcq.domain.quality import Asked
from hevcq.domain.schedule import Closed, RunningWork
from hevcq.domain.verdict import Abandon, Bury, Done, FailureClass, Release, Verdict, verdict
from hevcq.errors import (
    BadMessage,
    HevcqError,
    MediaRefused,
    Paused,
    StaleFence,
    Stopped,
    StorageError,
    TransientError,
)
from hevcq.ports.ledger import Granted
from hevcq.ports.queue import Delivery, Queue
from hevcq.util.log import get_logger
from hevcq.worker.chunking import ChunkJob, JoinJob, settle_ended_subjob, settle_obsolete_subjob
from hevcq.worker.delivery.claim import (
    ClaimedTask,
    ClaimResult,
    ObsoleteTask,
    WorkerContext,
    claim_task,
    combine_verdicts,
    delay_of,
    settle,
)
from hevcq.worker.delivery.job import Job, decide, emit_settled, emit_started, is_unfit
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.encode_job import EncodeJob, enqueue_chunks

NEVER_CLAIMED_FAILURES = 1 << 30
"""Practically unlimited: a job that was never claimed has not failed, so no failure counts."""
MAX_HELD_DELAY_S = 3600.0
"""Longest delay in seconds of a delivery whose job another worker holds."""


@dataclass(eq=False, slots=True)
class ProfileQueue:
    """A queue and the profile of its tasks; a job keeps the profile with which it began."""

    profile: Profile
    queue: Queue


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of a delivery. `unfit` is why this worker must take no more work, if it is unfit."""

    verdict: Verdict
    unfit: HevcqError | None = None


class Handler:
    """Process the deliveries of one slot, one at a time. `worker` is the slot's name in claims."""

    def __init__(self, context: WorkerContext, worker: str) -> None:
        self.worker = worker
        self._context = context
        self._guard = threading.Lock()
        self._lease: Lease | None = None
        self._interrupted = False
        self._unfit: HevcqError | None = None

    def interrupt(self) -> None:
        """Stop and release the running job; release every later delivery at once."""
        with self._guard:
            self._interrupted = True
            lease = self._lease
        if lease is not None:
            lease.end(Stopped())

    def obey(self, closed: Closed | None) -> None:
        """Freeze, stop or resume the running job as its closed queue (None: open queue) demands."""
        with self._guard:
            lease = self._lease
        if lease is None:
            return
        if closed is not None and closed.running is RunningWork.FREEZE:
            lease.freeze()
            return
        lease.thaw()
        if closed is not None and closed.running is RunningWork.STOP:
            lease.end(Paused(closed.reason))

    def process(self, profile_queue: ProfileQueue, delivery: Delivery) -> DeliveryResult:
        """Process a delivery: parse, claim, run, decide, record, settle.

        A failed task does not raise. An exception is a defect or a kill: the delivery stays
        unsettled and is redelivered after its deadline.
        """
        context, queue, profile = self._context, profile_queue.queue, profile_queue.profile
        self._unfit = None
        verdict = reject_unreadable(delivery)
        if verdict is not None:
            settle(context, queue, delivery, verdict)
            return DeliveryResult(verdict)
        verdicts: list[Verdict] = []
        # Leaving the block joins the heartbeat: one still in flight would hide the message again.
        with self._hold_lease(profile_queue, delivery) as lease:
            for task in delivery.tasks:
                # A process that queued jobs with CRF or quality of its own has the latest recipe itself.
                asked = None if queue.asked else task.asked
                job = self._claim(task, delivery, lease, profile, asked)
                if not isinstance(job, Job):
                    verdicts.append(job)
                    continue
                emit_started(context, job.claimed, delivery, part=job.part)
                try:
                    decided = _crashed_too_often(job.granted, profile) or job.run()
                except Exception as error:  # noqa: BLE001 - classified, once
                    decided, unfit = decide(context, job, error, delivery)
                    self._unfit = unfit or self._unfit
                decided = self._record(job, decided)
                emit_settled(context, job.claimed, decided, job.part, job.rendition)
                verdicts.append(decided)
            verdict = combine_verdicts(verdicts)
        if lease.lost:
            verdict = Abandon(reason=str(lease.cause))
        settle(context, queue, delivery, verdict)
        return DeliveryResult(verdict, self._unfit)

    @contextmanager
    def _hold_lease(self, profile_queue: ProfileQueue, delivery: Delivery) -> Iterator[Lease]:
        """Hold a lease on the delivery, which a heartbeat extends; join the heartbeat on exit."""
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
        self,
        task: Task,
        delivery: Delivery,
        lease: Lease,
        profile: Profile,
        asked: Asked | None,
    ) -> Job | Verdict:
        """Claim a task in the ledger; return its job, or a verdict if this worker must not run it."""
        try:
            lease.check()
            profile = _apply_chosen(profile, asked) if asked else profile
            result = claim_task(self._context, self.worker, task, delivery, profile)
            if isinstance(result, ObsoleteTask):
                return settle_obsolete_subjob(self._context, task, result.job, result.part)
            if isinstance(result.claim, JobRecord) and result.claim.state is not JobState.RUNNING:
                return self._verdict_on_ended(result, result.claim, lease)
        except Exception as error:  # noqa: BLE001 - classified, once
            return self._verdict_on_unclaimed(error, task, delivery, lease, profile)
        if isinstance(result.claim, JobRecord):
            return self._verdict_on_held(result.claim, delivery, profile)
        fence = Fence(self._context.backend.ledger, result.task.unit_id, result.claim.fence)
        lease.hold(fence, claimed_at=result.sent)
        claimed = ClaimedTask(result.task, profile, lease, fence, self.worker)
        if result.job is None:
            return EncodeJob(self._context, claimed, result.claim)
        kind = JoinJob if claimed.task.chunk is None else ChunkJob
        return kind(self._context, claimed, result.claim, result.job)

    def _verdict_on_ended(self, result: ClaimResult, record: JobRecord, lease: Lease) -> Verdict:
        """Return the verdict on a message whose job was split, or whose job or subjob ended earlier."""
        if record.state is JobState.SPLIT:
            if record.split is not None and not record.split.announced:
                enqueue_chunks(self._context, result.task, record.split)
            return Done()
        if result.job is not None:
            return settle_ended_subjob(self._context, lease, result.task, result.job, record)
        return self._verdict_on_ended_job(record)

    def _verdict_on_ended_job(self, job: JobRecord) -> Verdict:
        """Return the verdict on a message whose job ended earlier.

        A dead job's message is buried unless the job has its dead letter: a kill may have prevented
        the burial. A cancelled job needs no dead letter.
        """
        ledger = self._context.backend.ledger
        if job.state is not JobState.DEAD or job.failure_class is FailureClass.CANCELLED:
            return Done()
        if self._context.retry_control_call(lambda: ledger.has_letter(job.job_id)):
            get_logger(job=job.job_id).info("duplicate_of_dead_job")
            return Done()
        return Bury(reason=job.reason, failure_class=job.failure_class or FailureClass.INTERNAL)

    def _record(self, job: Job, decided: Verdict) -> Verdict:
        """Write the verdict to the ledger; return Abandon if that fails."""
        try:
            return job.record(decided)
        except StaleFence as error:
            return Abandon(reason=str(error))
        except (TransientError, StorageError) as error:
            # The job stays RUNNING until its lease ends, so the message must stay hidden at least
            # that long. Letting its deadline pass does exactly that.
            get_logger().error("verdict_not_recorded", reason=str(error), verdict=str(decided))
            return Abandon(reason=str(error))

    def _verdict_on_unclaimed(
        self, error: Exception, task: Task, delivery: Delivery, lease: Lease, profile: Profile
    ) -> Verdict:
        """Return the verdict on a task whose claim raised `error`: its job never began, so it did not fail."""
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
        log.warning("job_not_claimed", reason=str(cause), delay_s=delay_of(decided))
        # An invalid message says nothing about the job it names: that job has its own message.
        if isinstance(decided, Bury) and not isinstance(cause, BadMessage):
            try:
                self._context.retry_control_call(
                    lambda: self._context.backend.ledger.bury_unclaimed(
                        task.job_id, decided.reason, decided.failure_class
                    )
                )
            except (TransientError, StorageError) as unrecorded:
                # The dead letter carries the reason; only the ledger lacks it.
                log.warning("verdict_not_recorded", reason=str(unrecorded))
        return decided

    def _verdict_on_held(self, job: JobRecord, delivery: Delivery, profile: Profile) -> Release:
        """Return a Release until the other worker's lease may have ended.

        A live worker always has more than half of its lease left. A dead one has less: it claimed one
        call after the receive, so its message is visible again just before its claim ends. Each
        receive counts, and a live worker may be busy for hours. So the delay doubles, to keep a
        duplicate message from exhausting max_receives.
        """
        left_s = max(1.0, job.lease_until - self._context.clock.now())
        if left_s <= profile.queue.visibility_s / 2:
            return Release(reason="Another worker held the job.", delay_s=left_s)
        doubled_s = profile.queue.visibility_s * 2.0 ** min(delivery.attempt - 1, 16)
        delay_s = min(MAX_HELD_DELAY_S, max(left_s, doubled_s))
        jitter = 0.9 + self._context.random() / 10
        return Release(reason="Another worker holds the job.", delay_s=delay_s * jitter)


def reject_unreadable(delivery: Delivery) -> Verdict | None:
    """Return the verdict on a message that holds no task of this farm, else None."""
    log = get_logger(queue=delivery.queue, message=delivery.message_id)
    if delivery.problem:
        log.warning("message_unreadable", reason=delivery.problem)
        return Bury(reason=delivery.problem, failure_class=FailureClass.MESSAGE)
    if not delivery.tasks:
        log.info("message_ignored", reason=delivery.ignored)
        return Done()
    return None


def _apply_chosen(profile: Profile, asked: Asked) -> Profile:
    """Return the profile with the CRF and quality that a command chose.

    Raises MediaRefused if the profile, which may have changed since, does not allow them.
    """
    try:
        return profile.with_asked(asked)
    except ValidationError as error:
        raise MediaRefused(
            f"Its command chose CRF {asked[0]:g}, which the profile {profile.name} does not take as"
            " it is now; a retry encodes it as the profile says."
        ) from error


def _crashed_too_often(granted: Granted, profile: Profile) -> Bury | None:
    """Return the burial of a job whose worker died `max_crashes` times, else None."""
    if granted.crashes < profile.queue.max_crashes:
        return None
    reason = f"The worker died {granted.crashes} times during this job (out of memory?)."
    return Bury(reason=reason, failure_class=FailureClass.CRASHED)
