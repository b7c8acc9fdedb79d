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
from functools import partial
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
from hevcq.worker.admission import Admission, Scratch
from hevcq.worker.delivery.lease import Fence, Heartbeat, Lease
from hevcq.worker.out_of_service import CircuitBreaker

Result = TypeVar("Result")


@dataclass(frozen=True)
class WorkerContext:
    """The ports and settings of a worker process.

    `min_free_bytes` stay free on the disks of scratch and store. `threads` is the encoder's thread
    count if the profile sets none. `random` returns numbers in [0, 1). `slots_per_job` returns how
    many slots may share a video of a profile. With `sweep_on_start`, a start removes the objects of
    split videos that killed workers left in the store. `admission` says whether work may begin (None:
    always). While `full` returns True, free slots receive nothing. `notify` is called with the name of
    an event of this machine and its reason. `label` distinguishes the slots of a joined machine from
    this process's own.
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

    def why_closed(self, profile: str, *, now: bool = False) -> Closed | None:
        """Return why no work of this profile may begin, or None; see `Admission.why_closed`."""
        return None if self.admission is None else self.admission.why_closed(profile, now=now)

    def require_tested(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Return why ffmpeg cannot make this profile here, or None; see `Admission.require_tested`."""
        return None if self.admission is None else self.admission.require_tested(profile, stop)

    def emit(self, event: JobEvent) -> None:
        """Pass an event to the display; log the display's exceptions, which must not break the work."""
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001 - a display may raise anything
            get_logger(job=event.job_id).exception("observer_failed", event_kind=event.kind.value)

    def retry_control_call(self, action: Callable[[], Result]) -> Result:
        """Call an idempotent `action` until the service answers; return its result.

        Raises the error of the last attempt. A stop does not shorten the waits, because a stop needs
        these calls to release work.
        """

        def log_retry(error: Exception, attempt: int) -> None:
            get_logger().info("call_repeated", reason=str(error), attempt=attempt)

        retryable = (Unavailable, DatabaseBusy)
        return retry_control_call(
            action, self.clock, self.random, retryable=retryable, on_retry=log_retry
        )

    def require_scratch(self) -> None:
        """Raise WorkerUnfit if the scratch disk is smaller than `min_free_bytes`: no work could ever begin.

        A disk that is only full now may have space again later.
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
        """Return why new work must wait for disk space, or ""."""
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
    """A task whose job ended or continues without it. `part` is the subjob's record, if it still exists."""

    job: JobRecord
    part: JobRecord | None


def claim_task(
    context: WorkerContext, worker: str, task: Task, delivery: Delivery, profile: Profile
) -> ClaimResult | ObsoleteTask:
    """Claim the subjob or the whole job that the task asks for.

    Raises BadMessage for a subjob without a split, and the errors of the ledger.
    """
    if task.kind is TaskKind.ENCODE:
        return _claim_job(context, worker, task, delivery, profile)
    if not task.split or (task.kind is TaskKind.CHUNK) != (task.chunk is not None):
        raise BadMessage(f"The task of the kind {task.kind.value!r} does not say which part it is.")
    ledger = context.backend.ledger
    job = context.retry_control_call(lambda: ledger.get(task.job_id))
    if job is None or not is_current_part(job, task):
        if job is not None and _is_superfluous(context, job, task, delivery):
            part = context.retry_control_call(lambda: ledger.get(task.unit_id))
            if not _was_given_up_by_queue(job) or not _was_given_up_by_queue(part):
                return ObsoleteTask(job, part)
        return _claim_job(context, worker, task.as_whole_job(), delivery, profile)
    lease_s = float(profile.queue.visibility_s)
    sent = context.clock.monotonic()
    claim = context.retry_control_call(
        lambda: ledger.claim_subjob(task.unit_id, owner=worker, lease_s=lease_s)
    )
    return ObsoleteTask(job, None) if claim is None else ClaimResult(task, claim, sent, job)


def is_current_part(job: JobRecord, task: Task) -> bool:
    """Return whether the task is a part of the job's current split."""
    split = job.split
    return job.state is JobState.SPLIT and split is not None and split.name == task.split


def _was_given_up_by_queue(record: JobRecord | None) -> bool:
    """Return whether the queue and no worker gave the job or subjob up: its message is no duplicate."""
    return (
        record is not None
        and record.state is JobState.DEAD
        and record.failure_class is FailureClass.RECEIVES
    )


def _is_superfluous(context: WorkerContext, job: JobRecord, task: Task, delivery: Delivery) -> bool:
    """Return whether the job certainly does not need this subjob's message.

    The worker of a job that is RUNNING under a live lease holds the job's message. That may be this
    very message, redelivered shortly before its lease ended; only a first delivery certainly is a
    different one. The same holds for a job that died as a whole: a subjob of an older split may have
    asked for the whole job, and its message becomes the dead letter if a kill prevented the burial.
    """
    if job.state in SETTLED:
        died_whole = job.split is None or job.split.name != task.split
        may_have_asked = died_whole and delivery.attempt > 1
        return not (job.state is JobState.DEAD and (delivery.from_dlq or may_have_asked))
    if job.state is JobState.SPLIT:
        return job.split is not None and job.split.announced
    is_leased = job.state is JobState.RUNNING and job.lease_until > context.clock.now()
    return is_leased and delivery.attempt == 1


def _claim_job(
    context: WorkerContext, worker: str, task: Task, delivery: Delivery, profile: Profile
) -> ClaimResult:
    """Claim the whole job.

    A dead letter that was redriven (by `hevcq redrive` or in the service's console) first reopens its
    dead job; otherwise it would be acknowledged as settled, and lost untried. Every message of a job
    that the queue gave up does the same: after a redrive such a message looks unchanged.
    """
    lease_s, ledger = float(profile.queue.visibility_s), context.backend.ledger

    def claim_once() -> ClaimResult:
        sent = context.clock.monotonic()
        claim = ledger.claim(task.source, task.profile, owner=worker, lease_s=lease_s)
        record = claim if isinstance(claim, JobRecord) else None
        is_dead = record is not None and record.state is JobState.DEAD
        if is_dead and (delivery.from_dlq or _was_given_up_by_queue(record)):
            ledger.reopen(task.job_id, who=worker, why="its dead letter was moved back")
            claim = ledger.claim(task.source, task.profile, owner=worker, lease_s=lease_s)
        return ClaimResult(task, claim, sent)

    # The same owner may claim again, so a claim whose reply was lost is repeated.
    return context.retry_control_call(claim_once)


P = ParamSpec("P")


class LedgerTransitions:
    """Write the end of one attempt to the ledger, under its fence.

    Every method raises StaleFence if this attempt no longer owns the job, and Unavailable or
    StorageError if the ledger did not answer any call, so that the state is unknown.
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
        """Write a verdict, except Done: the job itself wrote DONE."""
        match decided:
            case Skipped():
                self._move(JobState.SKIPPED, self._ledger.skip, decided.reason)
            case RetryIn(reason=reason, failure_class=failure_class):
                self._move(JobState.QUEUED, self._ledger.fail, reason, failure_class)
            case Bury(reason=reason, failure_class=failure_class):
                self._move(JobState.DEAD, self._ledger.bury, reason, failure_class)
            case Release():
                fault = decided.suspected_worker_fault
                self._interrupt(decided.reason, suspected_worker_fault=fault)
            case Abandon():
                # The lease is lost. If the fence is still valid, queue the job: otherwise the next claim
                # would find it RUNNING with an expired lease, and count a crash that never happened.
                try:
                    self._interrupt(decided.reason)
                except HevcqError as error:
                    get_logger().debug("claim_not_given_back", reason=str(error))
            case Done():
                pass
            case _:
                assert_never(decided)

    def _interrupt(self, reason: str, *, suspected_worker_fault: bool = False) -> None:
        """Queue the job again without counting a failure, at most a suspected worker fault."""
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
        calls, stale = 0, None

        def call() -> None:
            nonlocal calls, stale
            calls += 1
            try:
                action(self._fence.job_id, self._fence.number, *args, **named)
            except StaleFence as error:
                if calls == 1:
                    raise
                stale = error

        self._context.retry_control_call(call)
        if stale is None:
            return
        # After a call without an answer the fence may be stale because that call took effect.
        record = self._ledger.get(self._fence.job_id)
        if record is None or (record.state, record.fence) != (goal, self._fence.number):
            raise stale

    def read(self) -> JobRecord | None:
        return self._context.retry_control_call(lambda: self._ledger.get(self._fence.job_id))


def combine_verdicts(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a delivery with several tasks.

    Its message may be removed only once all tasks are settled. So a waiting task keeps it; otherwise
    a dead task buries it. A redelivery finds the finished tasks settled.
    """
    for verdict in verdicts:
        if isinstance(verdict, Abandon):
            return verdict
    waiting = [v for v in verdicts if isinstance(v, (RetryIn, Release))]
    if waiting:
        return max(waiting, key=delay_of)
    dead = [v for v in verdicts if isinstance(v, Bury)]
    if dead:
        return dead[0]
    return verdicts[0] if len(verdicts) == 1 else Done()


def delay_of(decided: Verdict) -> float:
    if isinstance(decided, RetryIn):
        return decided.seconds
    return decided.delay_s if isinstance(decided, Release) else 0.0


def settle(context: WorkerContext, queue: Queue, delivery: Delivery, decided: Verdict) -> bool:
    """Ack, release or bury the delivery; do nothing if the work was abandoned.

    Return whether the queue did it. If the queue does not answer, the message stays hidden until its
    deadline. The redelivery then finds its tasks settled, so nothing is lost.
    """
    match decided:
        case Abandon():
            return False
        case Done() | Skipped():
            return _call_queue(context, "ack", delivery, lambda: queue.ack(delivery))
        case Release() if decided.afresh:
            resend = partial(send_afresh, queue, delivery)
            return _call_queue(context, "send-afresh", delivery, resend)
        case RetryIn() | Release():
            release = partial(queue.release, delivery, delay_s=delay_of(decided))
            return _call_queue(context, "release", delivery, release)
        case Bury():
            bury = partial(queue.bury, delivery, decided)
            is_buried = _call_queue(context, "bury-delivery", delivery, bury)
            if is_buried:
                _note_letters(context, delivery)
            return is_buried
        case _:
            assert_never(decided)


def send_afresh(queue: Queue, delivery: Delivery) -> bool:
    """Replace this message by a new one with the same tasks.

    It is sent first: a kill in between leaves one message too many, which finds its job held or done.
    """
    queue.send(delivery.tasks)
    return queue.ack(delivery)


def _note_letters(context: WorkerContext, delivery: Delivery) -> None:
    """Record in the ledger that the jobs have a dead letter, so that a duplicate message adds no other."""
    for job in {task.job_id for task in delivery.tasks}:
        try:
            context.backend.ledger.note_letter(job)
        except (TransientError, StorageError) as error:
            # A second letter of one job does less harm than a lost one.
            get_logger(job=job).info("letter_not_noted", reason=str(error))


def _call_queue(
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
