"""Claim the job of a task in the ledger."""

from dataclasses import dataclass
from typing import Any

from hevcq.domain.events import JobEvent, WorkerEventName
from hevcq.domain.job import SETTLED, JobRecord, JobState, Task, TaskKind
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import FailureClass
from hevcq.errors import BadMessage
from hevcq.ports.ledger import AlreadySettled, Claim
from hevcq.ports.queue import Delivery
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.lease import Fence, Lease


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    task: Task
    profile: Profile
    lease: Lease
    fence: Fence
    worker: str

    def event(self, kind: WorkerEventName, **facts: Any) -> JobEvent:
        task = self.task
        return JobEvent(kind, task.job_id, task.source, task.profile, self.worker, **facts)


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The answer to a claim.

    `sent` is the monotonic time in seconds before the claim was sent. `task` is the task to do,
    which may be the whole job instead of a chunk; `job` is the split job of a subjob, else None.
    """

    task: Task
    claim: Claim
    sent: float
    job: JobRecord | None = None


@dataclass(frozen=True, slots=True)
class ObsoleteTask:
    """A task whose job ended or continues without it. `part` is the subjob's record, if any is left."""

    job: JobRecord
    part: JobRecord | None


def claim_task(
    context: WorkerContext, worker: str, task: Task, delivery: Delivery, profile: Profile
) -> ClaimResult | ObsoleteTask:
    """Claim the subjob or the whole job that the task asks for.

    Raises BadMessage for a subjob without a split, and the errors of the ledger.
    """
    if task.kind is TaskKind.ENCODE:
        return _job(context, worker, task, delivery, profile)
    if not task.split or (task.kind is TaskKind.CHUNK) != (task.chunk is not None):
        raise BadMessage(f"The task of the kind {task.kind.value!r} does not say which part it is.")
    ledger = context.backend.ledger
    job = context.retry_control_call(lambda: ledger.get(task.job_id))
    if job is None or not _belongs(job, task):
        if job is not None and _superfluous(context, job, task, delivery):
            part = context.retry_control_call(lambda: ledger.get(task.unit_id))
            if not _given_up(job) or not _given_up(part):
                return ObsoleteTask(job, part)
        return _job(context, worker, task.as_whole_job(), delivery, profile)
    lease_s = float(profile.queue.visibility_s)
    sent = context.clock.monotonic()
    claim = context.retry_control_call(
        lambda: context.backend.ledger.claim_subjob(task.unit_id, owner=worker, lease_s=lease_s)
    )
    return ObsoleteTask(job, None) if claim is None else ClaimResult(task, claim, sent, job)


def _belongs(job: JobRecord, task: Task) -> bool:
    split = job.split
    return job.state is JobState.SPLIT and split is not None and split.name == task.split


def _given_up(record: JobRecord | None) -> bool:
    """Return whether the queue, and no worker, gave the record up: its message is no duplicate."""
    return (
        record is not None
        and record.state is JobState.DEAD
        and record.failure_class is FailureClass.RECEIVES
    )


def _superfluous(context: WorkerContext, job: JobRecord, task: Task, delivery: Delivery) -> bool:
    """Return whether the job certainly does not need this subjob's message.

    The worker of a job that is RUNNING under a live lease holds the job's message. That may be this
    very message, redelivered shortly before its lease ended; only a first delivery certainly is
    not. The same holds for a job that died as a whole: a subjob of an older split may have asked
    for the whole job, and its message becomes the dead letter if a kill prevented the burial.
    """
    if job.state in SETTLED:
        died_whole = job.split is None or job.split.name != task.split
        asked = died_whole and delivery.attempt > 1
        return not (job.state is JobState.DEAD and (delivery.from_dlq or asked))
    if job.state is JobState.SPLIT:
        return job.split is not None and job.split.announced
    live = job.state is JobState.RUNNING and job.lease_until > context.clock.now()
    return live and delivery.attempt == 1


def _job(
    context: WorkerContext, worker: str, task: Task, delivery: Delivery, profile: Profile
) -> ClaimResult:
    """Claim the whole job.

    A redriven dead letter (by `hevcq redrive` or in the service's console) reopens its dead job
    first: acknowledged as settled, it would be lost untried. So does any message of a job that the
    queue gave up: such a message looks unchanged after a redrive.
    """
    lease_s, ledger = float(profile.queue.visibility_s), context.backend.ledger

    def once() -> ClaimResult:
        sent = context.clock.monotonic()
        claim = ledger.claim(task.source, task.profile, owner=worker, lease_s=lease_s)
        ended = claim.record if isinstance(claim, AlreadySettled) else None
        dead = ended is not None and ended.state is JobState.DEAD
        if dead and (delivery.from_dlq or _given_up(ended)):
            ledger.reopen(task.job_id, who=worker, why="its dead letter was moved back")
            claim = ledger.claim(task.source, task.profile, owner=worker, lease_s=lease_s)
        return ClaimResult(task, claim, sent)

    # The same owner may claim again, so a claim whose reply was lost is repeated.
    return context.retry_control_call(once)
