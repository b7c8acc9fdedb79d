"""A job that is ours: what to do, and the rights to do it."""

from __future__ import annotations

from dataclasses import dataclass

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
    """A task whose job the ledger granted. `worker` names the slot that works on it."""

    task: Task
    profile: Profile
    lease: Lease
    fence: Fence
    worker: str


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The answer to a claim, and the time before it was sent.

    `task` is what is really to be done; `job` is the split job that it is a part of, if it is one.
    """

    task: Task
    claim: Claim
    sent: float
    job: JobRecord | None = None


@dataclass(frozen=True, slots=True)
class ObsoleteTask:
    """The job ended or goes on without this part, whose record is `part` if it has one still."""

    job: JobRecord
    part: JobRecord | None


def claim_task(
    context: WorkerContext, worker: str, task: Task, delivery: Delivery, profile: Profile
) -> ClaimResult | ObsoleteTask:
    """Claim what the task asks for; raise BadMessage for a part of no split, or what the ledger raises."""
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
        lambda: context.backend.subjobs.claim_subjob(task.unit_id, owner=worker, lease_s=lease_s)
    )
    return ObsoleteTask(job, None) if claim is None else ClaimResult(task, claim, sent, job)


def _belongs(job: JobRecord, task: Task) -> bool:
    split = job.split
    return job.state is JobState.SPLIT and split is not None and split.name == task.split


def _given_up(record: JobRecord | None) -> bool:
    """Return whether the queue gave it up and no worker: its message is no other's copy."""
    return (
        record is not None
        and record.state is JobState.DEAD
        and record.failure_class is FailureClass.RECEIVES
    )


def _superfluous(context: WorkerContext, job: JobRecord, task: Task, delivery: Delivery) -> bool:
    """Return whether the job surely does not need this message of a part.

    A job that is RUNNING under a live lease has the message that its worker holds. It may be this
    very one, come back a little before its lease ended, so only a first delivery is sure not to be.
    Likewise a job that died whole, for a part of an older split may have asked for it: that message
    is its dead letter, if a kill kept it from becoming one.
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

    A letter that the service moved back (`hevcq redrive`, or somebody in its console) reopens
    its dead job first: acknowledged as settled, it would be gone without having been tried. So
    does any message of a job that the queue gave up: moved back, it looks as it did before.
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

    # The same owner may claim again, so a claim whose reply was lost is simply repeated.
    return context.retry_control_call(once)
