"""Claim the job of a task in the ledger, and settle it: the ledger first, then the queue, each once.

What a kill between the two leaves:

| verdict | ledger, then queue | a kill between leaves |
|---|---|---|
| Done | DONE, ack | a message of a DONE job: the next delivery acks it |
| Skipped | SKIPPED, ack | the same |
| Bury | DEAD, bury, letter noted | a message of a DEAD job: the next delivery buries it unless a letter is noted |
| RetryIn | QUEUED and counted, release | a message hidden until its deadline: it returns later |
| Release | QUEUED, release | the same |
| Abandon | nothing | a message that returns by itself |

The other order could lose the job: no message, while the ledger says RUNNING.
"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar, assert_never

from hevcq.domain.events import JobEvent, OnEvent, WorkerEventName
from hevcq.domain.job import SETTLED, JobRecord, JobState, RenditionRef, Split, Task, TaskKind
from hevcq.domain.planning.encode_plan import Planner
from hevcq.domain.profile import Profile
from hevcq.domain.schedule import Closed
from hevcq.domain.verdict import (
    Abandon,
    Bury,
    Done,
    FailureClass,
    Release,
    RetryIn,
    Skipped,
    Verdict,
)
from hevcq.errors import (
    BadMessage,
    DatabaseBusy,
    DiskFull,
    HevcqError,
    StaleFence,
    StorageError,
    TransientError,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import Encoder
from hevcq.ports.ledger import Claim
from hevcq.ports.queue import Delivery, Queue
from hevcq.util.capacity import disk_shortage
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.retry import retry_control_call
from hevcq.worker.admission import Admission, CircuitBreaker, Scratch
from hevcq.worker.delivery.lease import Fence, Heartbeat, Lease

Result = TypeVar("Result")


@dataclass(frozen=True)
class WorkerContext:
    """The ports and settings of a worker process.

    `min_free_bytes` stay free on the disks of scratch and store. `threads` is the encoder's thread
    count if the profile sets none. `random` returns numbers in [0, 1). `slots_per_job` returns how
    many slots may share a video of a profile. With `sweep_on_start`, a start removes what killed
    workers left in the store for split videos. `admission` says whether work may begin (None:
    always). `full` says whether slots that are free take nothing all the same. `notify` is called with an
    event of this machine and its reason. `label` tells the slots of a joined machine apart from this
    process's own.
    """

    backend: Backend
    encoder: Encoder
    plan: Planner
    scratch: Scratch
    clock: Clock
    min_free_bytes: int = 0
    threads: int = 0
    random: Callable[[], float] = random.random
    on_event: OnEvent = lambda _event: None
    heartbeat: Callable[[Lease, Clock], Heartbeat] = Heartbeat
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    slots_per_job: Callable[[Profile], int] = lambda _profile: 1
    sweep_on_start: bool = False
    admission: Admission | None = None
    full: Callable[[], bool] = lambda: False
    notify: Callable[[str, str], None] = lambda _event, _reason: None
    label: str = ""

    def closed(self, profile: str, *, now: bool = False) -> Closed | None:
        """Return why no work of this profile may begin, or None; see `admission`."""
        return None if self.admission is None else self.admission.closed(profile, now=now)

    def require_tested(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Return why ffmpeg cannot make this profile here, or None; see `admission`."""
        return None if self.admission is None else self.admission.require_tested(profile, stop)

    def emit(self, event: JobEvent) -> None:
        """Pass an event to the display; log its exceptions, which must not break the work."""
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001 - a display may raise anything
            get_logger(job=event.job_id).exception("observer_failed", event_kind=event.kind.value)

    def retry_control_call(self, action: Callable[[], Result]) -> Result:
        """Call an idempotent `action` until it is answered; return its result.

        Raises the error of the last attempt. A stop does not shorten the waits, because a stop needs
        these calls to release work.
        """

        def note(error: Exception, attempt: int) -> None:
            get_logger().info("call_repeated", reason=str(error), attempt=attempt)

        again = (Unavailable, DatabaseBusy)
        return retry_control_call(action, self.clock, self.random, retryable=again, on_retry=note)

    def require_scratch(self) -> None:
        """Raise WorkerUnfit if the disk is smaller than `min_free_bytes`: no work could ever begin.

        A disk that is only full now may become free again.
        """
        total = self.scratch.total_bytes()
        if total < self.min_free_bytes:
            raise WorkerUnfit(
                f"The disk of the scratch folder {self.scratch.folder} has {total >> 20} MiB, and "
                f"{self.min_free_bytes >> 20} MiB must stay free (min_free_mib).",
                remedy="Give it more space, or set scratch_dir to a folder on a larger disk.",
            )

    def require_free_space(self, size: int, name: str) -> None:
        """Raise DiskFull unless scratch and store have `size` bytes free beyond the reserve."""
        needed = size + self.min_free_bytes
        scratch = self.scratch.free_bytes()
        store = self.retry_control_call(self.backend.store.free_bytes)
        free = scratch if store is None else min(scratch, store)
        if free < needed:
            least = -(-needed >> 20)  # rounded up, or it might seem to be enough
            raise DiskFull(
                f"{name} needs {least} MiB free, and there are {free >> 20} MiB.",
                remedy="The work goes on by itself once there is room.",
            )

    def disk_shortage(self) -> str:
        """Return a sentence that says why new work must wait for disk space, or an empty string."""
        free = {"scratch folder": self.scratch.free_bytes()}
        store = self.backend.store.free_bytes()
        if store is not None:
            free["store"] = store
        return disk_shortage(free, self.min_free_bytes)


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
    if job is None or not belongs(job, task):
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


def belongs(job: JobRecord, task: Task) -> bool:
    """Return whether a part is of the job's present split."""
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
        ended = claim if isinstance(claim, JobRecord) else None
        dead = ended is not None and ended.state is JobState.DEAD
        if dead and (delivery.from_dlq or _given_up(ended)):
            ledger.reopen(task.job_id, who=worker, why="its dead letter was moved back")
            claim = ledger.claim(task.source, task.profile, owner=worker, lease_s=lease_s)
        return ClaimResult(task, claim, sent)

    # The same owner may claim again, so a claim whose reply was lost is repeated.
    return context.retry_control_call(once)


P = ParamSpec("P")


class LedgerTransitions:
    """Write the end of one attempt under its fence.

    Every method raises StaleFence if this attempt no longer owns the job, and Unavailable or
    StorageError if the ledger did not answer any call: the state is then unknown.
    """

    def __init__(self, context: WorkerContext, lease: Lease, fence: Fence) -> None:
        self._context, self._lease, self._fence = context, lease, fence
        self._ledger = fence.ledger

    def complete(self, rendition: RenditionRef, *, cpu_s: float) -> None:
        """Write DONE: the rendition is published; `cpu_s` is its CPU time in seconds."""
        self._move(JobState.DONE, self._ledger.complete, rendition, cpu_s=cpu_s)

    def split(self, split: Split, frames: Sequence[int]) -> None:
        """Write SPLIT: the job has chunks of these frame counts."""
        self._move(JobState.SPLIT, self._ledger.split, split, frames)

    def abandon_split(self, reason: str) -> None:
        """Queue the split job again, to be encoded whole."""
        self._move(JobState.QUEUED, self._ledger.abandon_split, reason)

    def record(self, decided: Verdict) -> None:
        """Write a verdict; the job itself wrote DONE."""
        match decided:
            case Skipped():
                self._move(JobState.SKIPPED, self._ledger.skip, decided.reason)
            case RetryIn():
                why = decided.reason, decided.failure_class
                self._move(JobState.QUEUED, self._ledger.fail, *why)
            case Bury():
                why = decided.reason, decided.failure_class
                self._move(JobState.DEAD, self._ledger.bury, *why)
            case Release():
                fault = decided.suspected_worker_fault
                self._interrupt(decided.reason, suspected_worker_fault=fault)
            case Abandon():
                # The lease is lost. If the fence is still valid, the next claim would else find the
                # job RUNNING with an expired lease, and count a crash that never happened.
                try:
                    self._interrupt(decided.reason)
                except HevcqError as error:
                    get_logger().debug("claim_not_given_back", reason=str(error))
            case Done():
                pass
            case _:
                assert_never(decided)

    def _interrupt(self, reason: str, *, suspected_worker_fault: bool = False) -> None:
        """Queue the job again; count no failure, only a suspected worker fault."""
        self._move(
            JobState.QUEUED,
            self._ledger.interrupt,
            reason,
            suspected_worker_fault=suspected_worker_fault,
        )

    def _move(
        self,
        goal: JobState,
        action: Callable[Concatenate[str, int, P], None],
        *args: P.args,
        **named: P.kwargs,
    ) -> None:
        self._lease.drop()
        attempts, stale = 0, None

        def attempt() -> None:
            nonlocal attempts, stale
            attempts += 1
            try:
                action(self._fence.job_id, self._fence.number, *args, **named)
            except StaleFence as error:
                if attempts == 1:
                    raise
                stale = error

        self._context.retry_control_call(attempt)
        # A stale fence after an unanswered attempt: that attempt may itself have ended the fence.
        if stale is not None and not self._arrived(goal):
            raise stale

    def seen(self) -> JobRecord | None:
        return self._context.retry_control_call(lambda: self._ledger.get(self._fence.job_id))

    def _arrived(self, goal: JobState) -> bool:
        record = self._ledger.get(self._fence.job_id)
        return record is not None and record.state is goal and record.fence == self._fence.number


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a delivery with several tasks.

    Its message may be removed only once all are settled: waiting tasks keep it; else it is buried
    if a task is dead, and done otherwise. A redelivery finds the finished tasks settled.
    """
    for verdict in verdicts:
        if isinstance(verdict, Abandon):
            return verdict
    waiting = [v for v in verdicts if isinstance(v, (RetryIn, Release))]
    if waiting:
        return max(waiting, key=delay)
    dead = [v for v in verdicts if isinstance(v, Bury)]
    if dead:
        return dead[0]
    return verdicts[0] if len(verdicts) == 1 else Done()


def delay(decided: Verdict) -> float:
    if isinstance(decided, RetryIn):
        return decided.seconds
    return decided.delay_s if isinstance(decided, Release) else 0.0


def settle(context: WorkerContext, queue: Queue, delivery: Delivery, decided: Verdict) -> bool:
    """Ack, release or bury the delivery; do nothing if the work was abandoned.

    Returns whether that took effect. If the queue does not answer, the message stays hidden until
    its deadline and is redelivered; its tasks are then found settled, so nothing is lost.
    """
    match decided:
        case Abandon():
            return False
        case Done() | Skipped():
            return _carry(context, "ack", delivery, lambda: queue.ack(delivery))
        case Release() if decided.afresh:
            return _carry(context, "send-afresh", delivery, lambda: send_afresh(queue, delivery))
        case RetryIn() | Release():
            seconds = delay(decided)
            return _carry(
                context, "release", delivery, lambda: queue.release(delivery, delay_s=seconds)
            )
        case Bury():
            buried = _carry(
                context, "bury-delivery", delivery, lambda: queue.bury(delivery, decided)
            )
            if buried:
                _note_letters(context, delivery)
            return buried
        case _:
            assert_never(decided)


def send_afresh(queue: Queue, delivery: Delivery) -> bool:
    """Put a new message with the same tasks in place of this one.

    In this order a kill between the two leaves a message too many, which finds its job held or done.
    """
    queue.send(delivery.tasks)
    return queue.ack(delivery)


def _note_letters(context: WorkerContext, delivery: Delivery) -> None:
    """Record the dead letter with its jobs, so that a duplicate of the message leaves no other."""
    for job in {task.job_id for task in delivery.tasks}:
        try:
            context.backend.ledger.note_letter(job)
        except (TransientError, StorageError) as error:
            # A second letter of one job does less harm than a lost one.
            get_logger(job=job).info("letter_not_noted", reason=str(error))


def _carry(
    context: WorkerContext, step: str, delivery: Delivery, action: Callable[[], bool]
) -> bool:
    log = get_logger(queue=delivery.queue, message=delivery.message_id, attempt=delivery.attempt)
    try:
        took_effect = context.retry_control_call(action)
    except (TransientError, StorageError) as error:
        log.warning("settle_failed", step=step, reason=str(error))
        return False
    if not took_effect:
        log.info("settle_stale", step=step)
    return took_effect
