"""Carry out verdicts: the ledger first, then the queue, each exactly once.

What a kill between the two leaves, and why this order:

| verdict | ledger, then queue | a kill between leaves |
|---|---|---|
| Done | DONE, ack | a message of a DONE job: the next delivery acks it |
| Skipped | SKIPPED, ack | the same |
| Bury | DEAD, bury | a message of a DEAD job: the next delivery buries it with the same reason |
| RetryIn | QUEUED and counted, release | a message hidden until its deadline: back a little later |
| Release | QUEUED, release | the same |
| Abandon | nothing | a message that comes back by itself |

The other order would lose the job: a message that is gone while the ledger says RUNNING.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

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


class LedgerTransitions:
    """Writes the end of one attempt under its fence.

    Every method raises StaleFence if the job is no longer ours, and Unavailable or StorageError
    if the ledger did not answer after some tries: whether it moved is then unknown.
    """

    def __init__(self, context: WorkerContext, lease: Lease, fence: Fence) -> None:
        self._context, self._lease, self._fence = context, lease, fence
        self._ledger = fence.ledger

    def complete(self, rendition: RenditionRef, *, cpu_s: float) -> None:
        """Write that the rendition is published."""
        self._move(
            JobState.DONE,
            lambda job, fence: self._ledger.complete(job, fence, rendition, cpu_s=cpu_s),
        )

    def skip(self, reason: str) -> None:
        """Write that there is nothing to do."""
        self._move(JobState.SKIPPED, lambda job, fence: self._ledger.skip(job, fence, reason))

    def split(self, split: Split, frames: Sequence[int]) -> None:
        """Write that the job is split into chunks of so many frames each."""
        self._move(
            JobState.SPLIT,
            lambda job, fence: self._context.backend.subjobs.split(job, fence, split, frames),
        )

    def abandon_split(self, reason: str) -> None:
        """Write that the job is to be encoded whole after all."""
        self._move(
            JobState.QUEUED,
            lambda job, fence: self._context.backend.subjobs.abandon_split(job, fence, reason),
        )

    def fail(self, reason: str, failure_class: FailureClass) -> None:
        """Count a failure and queue the job again."""
        self._move(
            JobState.QUEUED,
            lambda job, fence: self._ledger.fail(job, fence, reason, failure_class),
        )

    def interrupt(self, reason: str, *, suspected_worker_fault: bool = False) -> None:
        """Queue the job again, counting nothing but the doubt."""
        self._move(
            JobState.QUEUED,
            lambda job, fence: self._ledger.interrupt(
                job, fence, reason, suspected_worker_fault=suspected_worker_fault
            ),
        )

    def bury(self, reason: str, failure_class: FailureClass) -> None:
        """Write that the job is dead."""
        self._move(
            JobState.DEAD,
            lambda job, fence: self._ledger.bury(job, fence, reason, failure_class),
        )

    def _move(self, goal: JobState, action: Callable[[str, int], None]) -> None:
        self._lease.drop()
        attempts, stale = 0, None

        def attempt() -> None:
            nonlocal attempts, stale
            attempts += 1
            try:
                action(self._fence.job_id, self._fence.number)
            except StaleFence as error:
                if attempts == 1:
                    raise
                stale = error

        self._context.retry_control_call(attempt)
        # A stale fence after an attempt without an answer: that attempt may have ended it itself.
        if stale is not None and not self._arrived(goal):
            raise stale

    def seen(self) -> JobRecord | None:
        """Return the job as it is now."""
        return self._context.retry_control_call(lambda: self._ledger.get(self._fence.job_id))

    def _arrived(self, goal: JobState) -> bool:
        record = self._ledger.get(self._fence.job_id)
        return record is not None and record.state is goal and record.fence == self._fence.number


def record_verdict(transitions: LedgerTransitions, decided: Verdict) -> None:
    """Write a claimed job's verdict to the ledger; DONE was written by the job itself.

    Raises StaleFence if the job is no longer ours, Unavailable or StorageError if the ledger
    does not answer.
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
    """Give a claim back whose lease on the message is lost, where the fence is still ours.

    Without this the job's next claim would find it RUNNING with its lease run out, and count a
    crash although nothing crashed. The fence refuses it wherever the job moved on.
    """
    try:
        transitions.interrupt(reason)
    except HevcqError as error:
        get_logger().debug("claim_not_given_back", reason=str(error))


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return what becomes of a delivery with several tasks.

    It may only go once all are settled: work that waits keeps it, then a dead letter's reason,
    and with neither it is done. A delivery that comes back finds its finished tasks settled.
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
    """Return after how many seconds the delivery is to come back."""
    if isinstance(decided, RetryIn):
        return decided.seconds
    return decided.delay_s if isinstance(decided, Release) else 0.0


def settle(context: WorkerContext, queue: Queue, delivery: Delivery, decided: Verdict) -> bool:
    """Do exactly one of ack, release and bury; none if the work was abandoned.

    Returns whether it took effect. A queue that does not answer leaves the message hidden until
    its deadline; it is then delivered again and its tasks are found settled, so nothing is lost.
    """
    match decided:
        case Abandon():
            return False
        case Done() | Skipped():
            return _carry(context, "ack", delivery, lambda: queue.ack(delivery))
        case RetryIn() | Release():
            seconds = delay(decided)
            return _carry(
                context, "release", delivery, lambda: queue.release(delivery, delay_s=seconds)
            )
        case Bury():
            return _carry(context, "bury-delivery", delivery, lambda: queue.bury(delivery, decided))
        case _:
            assert_never(decided)


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
