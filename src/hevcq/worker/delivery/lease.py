"""The lease: the right to work on one delivery until a deadline that the lease computes itself.

A queue does not report that a lease expired, so the deadline is the last *successful* extension
plus the visibility timeout, less a margin. After it, or once the queue or the ledger reports
another owner, the job's stop event is set and nothing may be published or settled.
"""

import contextvars
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from hevcq.domain.profile import QueueNumbers
from hevcq.errors import (
    HevcqError,
    Interruption,
    LeaseLost,
    LimitExceeded,
    StaleFence,
    StorageError,
    TransientError,
)
from hevcq.ports.encoder import StopEvent
from hevcq.ports.ledger import Ledger
from hevcq.ports.queue import Delivery, Queue
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.retry import RetryPolicy

MARGIN_SHARE = 0.1
MAX_MARGIN_S = 5.0
"""The lease counts as lost this many seconds before its true end (a tenth of the visibility, at
most 5 s): time to finish a publication, and for the clock skew between two machines. As heartbeat_s
is at most a third of visibility_s, two heartbeats may fail and a third still fits."""
RETRY_SHARE = 0.25
"""A failed heartbeat is tried again after this share of heartbeat_s, jittered downward by half."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A granted claim: the job in the ledger and the fence number of this attempt."""

    ledger: Ledger
    job_id: str
    number: int


class Lease:
    """The right to work on `delivery`. Once the work must end, `stop` is set and `cause` says why.

    One thread works and calls `check`; another calls `beat` periodically. Times are monotonic
    seconds of `clock`.
    """

    def __init__(
        self,
        queue: Queue,
        delivery: Delivery,
        numbers: QueueNumbers,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.stop = StopEvent()
        self._frozen_at: float | None = None
        self._queue, self.delivery, self._numbers = queue, delivery, numbers
        self._clock, self._random = clock, random
        self._margin_s = min(MAX_MARGIN_S, numbers.visibility_s * MARGIN_SHARE)
        retry_s = numbers.heartbeat_s * RETRY_SHARE
        self._retry = RetryPolicy(base_s=retry_s, cap_s=retry_s)
        self._began = clock.monotonic()
        self._queue_until = delivery.deadline
        self._fence: Fence | None = None
        self._fence_until = math.inf
        self._beating = threading.Lock()
        self._deciding = threading.Lock()
        self._cause: HevcqError | None = None
        self._lost = False
        self._log = get_logger(queue=delivery.queue, message=delivery.message_id)

    @property
    def cause(self) -> HevcqError | None:
        """Why the work must end, or None while it may go on."""
        self._end_if_expired()
        return self._cause

    @property
    def lost(self) -> bool:
        """Whether the lease expired or was taken over: nothing may be published or settled."""
        self._end_if_expired()
        return self._lost

    @property
    def deadline(self) -> float:
        """Monotonic time in seconds at which the lease counts as lost unless it is extended."""
        return min(self._queue_until, self._fence_until) - self._margin_s

    @property
    def first_beat_s(self) -> float:
        """Seconds until the first heartbeat: at most a third of the time left on the lease.

        A delivery may have waited in a batch before its turn.
        """
        left = (self.deadline - self._clock.monotonic()) / 3
        return max(0.01, min(float(self._numbers.heartbeat_s), left))

    @property
    def left_s(self) -> float:
        """Seconds of work that max_job_s still allows this delivery."""
        return self._began + self._numbers.max_job_s - self._clock.monotonic() + self._frozen_s

    @property
    def _frozen_s(self) -> float:
        """Seconds in which the work was frozen so far."""
        at = self._frozen_at
        current_s = 0.0 if at is None else self._clock.monotonic() - at
        return self.stop.held_s + current_s

    def freeze(self) -> None:
        """Suspend the programs of this work, and keep the lease alive."""
        if self._frozen_at is None:
            self._frozen_at = self._clock.monotonic()
            self.stop.held = True

    def thaw(self) -> None:
        if self._frozen_at is not None:
            self.stop.held_s, self._frozen_at = self._frozen_s, None
            self.stop.held = False

    def check(self) -> None:
        """Raise the cause if the work must end.

        Raises LeaseLost, StaleFence, Stopped, Paused, Superseded or LimitExceeded.
        """
        if self.cause is not None:
            raise self.cause

    def hold(self, fence: Fence, *, claimed_at: float) -> None:
        """From now on renew this claim too; `claimed_at` is the time *before* the claim was sent."""
        with self._beating:
            self._fence_until = claimed_at + self._numbers.visibility_s
            self._fence = fence

    def drop(self) -> None:
        """Stop renewing the claim, before its end state is written.

        Waits for a heartbeat in flight. Otherwise that would find the job settled, take this for a
        stale fence, and give up a valid lease.
        """
        with self._beating:
            self._fence, self._fence_until = None, math.inf

    def end(self, cause: HevcqError) -> None:
        """End the work for `cause`; the first cause wins, but a lost lease outranks all others."""
        loses_lease = isinstance(cause, (LeaseLost, StaleFence))
        with self._deciding:
            if self._cause is None or (loses_lease and not self._lost):
                self._cause = cause
            self._lost = self._lost or loses_lease
        self.stop.set()

    def beat(self, now: float) -> float:
        """Extend the lease once; return the seconds until the next call.

        `now` is monotonic seconds. An unanswered extension is retried soon while time remains. After
        max_job_s the work must end, and the lease is extended for one more visibility timeout only, so
        that a hanging worker does not hold a job for ever.
        """
        with self._beating:
            overtime = now - self._began - self._frozen_s - self._numbers.max_job_s
            if overtime >= 0:
                self.end(LimitExceeded(f"The job took over {self._numbers.max_job_s} s."))
            if overtime > self._numbers.visibility_s:
                self.end(LeaseLost("The job did not end after its time limit."))
            if self.lost:
                return float(self._numbers.heartbeat_s)
            try:
                self._extend()
            except Interruption as error:
                self._log.warning("lease_lost", reason=str(error))
                self.end(error)
            except (TransientError, StorageError) as error:
                self._log.warning("heartbeat_failed", reason=str(error))
                return self._cap_at_deadline(self._retry.wait_s(0, self._random))
        return self._cap_at_deadline(float(self._numbers.heartbeat_s))

    def _extend(self) -> None:
        visibility = self._numbers.visibility_s
        self._queue_until = self._queue.extend(self.delivery, visibility)
        if self._fence is not None:
            # The lease counts from before the request, because the reply may be slow.
            sent = self._clock.monotonic()
            self._fence.ledger.renew(
                self._fence.job_id, self._fence.number, lease_s=float(visibility)
            )
            self._fence_until = sent + visibility

    def _cap_at_deadline(self, seconds: float) -> float:
        """Return `seconds`, at most those until the deadline, so that the heartbeat notices it."""
        return max(0.01, min(seconds, self.deadline - self._clock.monotonic()))

    def _end_if_expired(self) -> None:
        if not self._lost and self._clock.monotonic() >= self.deadline:
            self.end(LeaseLost("The lease ran out before it could be extended."))


JOIN_S = 30.0
"""Seconds that a heartbeat in flight may take to end; one that hangs longer loses the lease."""


class Heartbeat:
    """Call `Lease.beat` in a thread. If the thread dies, the job stops: fail closed."""

    def __init__(self, lease: Lease, clock: Clock) -> None:
        self._lease, self._clock = lease, clock
        self._over = threading.Event()
        self._next = lease.first_beat_s
        # A copy of this thread's context makes its log lines name the job too.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self.run,), name="hevcq-heartbeat", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def step(self) -> bool:
        """Wait for the next heartbeat and send it; return False once `join` was called."""
        if self._clock.wait(self._over, self._next):
            return False
        self._next = self._lease.beat(self._clock.monotonic())
        return True

    def run(self) -> None:
        """Step until `join` is called; if the thread ends in any other way, end the lease."""
        try:
            while self.step():
                pass
        finally:
            if not self._over.is_set():
                get_logger().error("heartbeat_died")
                self._lease.end(LeaseLost("The heartbeat ended, so the lease cannot be kept."))

    def join(self) -> None:
        """End the thread and wait up to `JOIN_S` for it.

        A heartbeat in flight could undo a settlement: it would hide a message that was just released.
        So one that does not return loses the lease, and nothing is settled.
        """
        self._over.set()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            self._lease.end(LeaseLost("A heartbeat did not return, so nothing may be settled."))
