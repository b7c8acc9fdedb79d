"""Carry out verdicts: the ledger first, then the queue, each exactly once.

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

from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, assert_never

from hevcq.domain.job import JobRecord, JobState, RenditionRef, Split
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
from hevcq.errors import HevcqError, StaleFence, StorageError, TransientError
from hevcq.ports.queue import Delivery, Queue
from hevcq.util.log import get_logger
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.lease import Fence, Lease

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

    def skip(self, reason: str) -> None:
        self._move(JobState.SKIPPED, self._ledger.skip, reason)

    def split(self, split: Split, frames: Sequence[int]) -> None:
        """Write SPLIT: the job has chunks of these frame counts."""
        self._move(JobState.SPLIT, self._ledger.split, split, frames)

    def abandon_split(self, reason: str) -> None:
        """Queue the split job again, to be encoded whole."""
        self._move(JobState.QUEUED, self._ledger.abandon_split, reason)

    def fail(self, reason: str, failure_class: FailureClass) -> None:
        self._move(JobState.QUEUED, self._ledger.fail, reason, failure_class)

    def interrupt(self, reason: str, *, suspected_worker_fault: bool = False) -> None:
        """Queue the job again; count no failure, only a suspected worker fault."""
        self._move(
            JobState.QUEUED,
            self._ledger.interrupt,
            reason,
            suspected_worker_fault=suspected_worker_fault,
        )

    def bury(self, reason: str, failure_class: FailureClass) -> None:
        """Write DEAD: the job is given up."""
        self._move(JobState.DEAD, self._ledger.bury, reason, failure_class)

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


def record_verdict(transitions: LedgerTransitions, decided: Verdict) -> None:
    """Write a claimed job's verdict to the ledger; the job itself wrote DONE.

    Raises StaleFence if this attempt no longer owns the job, and Unavailable or
    StorageError if the ledger does not answer.
    """
    match decided:
        case Skipped():
            transitions.skip(decided.reason)
        case RetryIn():
            transitions.fail(decided.reason, decided.failure_class)
        case Bury():
            transitions.bury(decided.reason, decided.failure_class)
        case Release():
            transitions.interrupt(
                decided.reason, suspected_worker_fault=decided.suspected_worker_fault
            )
        case Abandon():
            _release_claim(transitions, decided.reason)
        case Done():
            pass
        case _:
            assert_never(decided)


def _release_claim(transitions: LedgerTransitions, reason: str) -> None:
    """Release the claim of a delivery whose lease is lost, if the fence is still valid.

    Otherwise the next claim would find the job RUNNING with an expired lease, and count a crash
    that never happened. A stale fence refuses the release.
    """
    try:
        transitions.interrupt(reason)
    except HevcqError as error:
        get_logger().debug("claim_not_given_back", reason=str(error))


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
