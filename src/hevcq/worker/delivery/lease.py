"""The lease: the right to work on one delivery, with a deadline of its own that nobody has to tell.

A queue does not say that a lease ran out, so the lease keeps its own deadline: the last
*successful* extension plus the visibility, less a margin. Past it, or once the queue or the
ledger says that somebody else holds the work, the job's stop event is set and nothing may be
published or settled.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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
from hevcq.ports.ledger import JobLedger
from hevcq.ports.queue import Delivery, Queue
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.retry import RetryPolicy

MARGIN_SHARE = 0.1
MAX_MARGIN_S = 5.0
"""The lease counts as lost this long before its true end (a tenth of the visibility, at most 5 s):
time for a publication that began to end, and for the skew between two machines' clocks. As
heartbeat_s is at most a third of visibility_s, two heartbeats may fail and a third still fits."""
RETRY_SHARE = 0.25
"""A failed heartbeat is tried again after this share of heartbeat_s, jittered downward by half."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A granted claim: which job of the ledger is ours, under which attempt number."""

    ledger: JobLedger
    job_id: str
    number: int


class Lease:
    """The right to work on `delivery`; `stop` is set once the work must end, and `cause` says why.

    One thread works and asks `check`; another calls `beat` now and then. Times are monotonic
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
        self.stop = threading.Event()
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
        self._notice()
        return self._cause

    @property
    def lost(self) -> bool:
        """Whether the lease ran out or was taken: nothing may be published or settled."""
        self._notice()
        return self._lost

    @property
    def deadline(self) -> float:
        """When the lease counts as lost unless it is extended."""
        return min(self._queue_until, self._fence_until) - self._margin_s

    @property
    def first_beat_s(self) -> float:
        """In how many seconds to beat first: what was left of the lease when it came, by thirds.

        A delivery may have waited in a batch before its turn.
        """
        left = (self.deadline - self._clock.monotonic()) / 3
        return max(0.01, min(float(self._numbers.heartbeat_s), left))

    @property
    def left_s(self) -> float:
        """How long this delivery may still be worked on before max_job_s."""
        return self._began + self._numbers.max_job_s - self._clock.monotonic()

    def alive(self) -> bool:
        """Return whether publishing and settling are still ours to do."""
        return not self.lost

    def check(self) -> None:
        """Raise the cause if the work must end: LeaseLost, StaleFence, Stopped or LimitExceeded."""
        if self.cause is not None:
            raise self.cause

    def hold(self, fence: Fence, *, claimed_at: float) -> None:
        """Renew this claim too from now on; `claimed_at` is the time *before* the claim was sent."""
        with self._beating:
            self._fence_until = claimed_at + self._numbers.visibility_s
            self._fence = fence

    def drop(self) -> None:
        """Renew the claim no more: its end state is about to be written.

        Waits for a heartbeat on its way, which would otherwise find the job settled, take that
        for a stale fence and give up a lease that is ours.
        """
        with self._beating:
            self._fence, self._fence_until = None, math.inf

    def end(self, cause: HevcqError) -> None:
        """Make the work end because of `cause`; a lost lease outranks any other, the first wins."""
        lost = isinstance(cause, (LeaseLost, StaleFence))
        with self._deciding:
            if self._cause is None or (lost and not self._lost):
                self._cause = cause
            self._lost = self._lost or lost
        self.stop.set()

    def beat(self, now: float) -> float:
        """Extend the lease once; return in how many seconds to call again.

        A service that does not answer is asked again soon while time remains. After max_job_s the
        work is told to end, and the lease is still extended while it does, for one visibility
        time more: a worker that hangs must not hold a job for good.
        """
        with self._beating:
            overtime = now - self._began - self._numbers.max_job_s
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
                return self._soon(self._retry.wait_s(0, self._random))
        return self._soon(float(self._numbers.heartbeat_s))

    def _extend(self) -> None:
        visibility = self._numbers.visibility_s
        self._queue_until = self._queue.extend(self.delivery, visibility)
        if self._fence is not None:
            # The lease runs from before the request: its reply may take long to arrive.
            sent = self._clock.monotonic()
            self._fence.ledger.renew(
                self._fence.job_id, self._fence.number, lease_s=float(visibility)
            )
            self._fence_until = sent + visibility

    def _soon(self, seconds: float) -> float:
        """Return `seconds`, or the time to the deadline where that comes first: it is noticed."""
        return max(0.01, min(seconds, self.deadline - self._clock.monotonic()))

    def _notice(self) -> None:
        if not self._lost and self._clock.monotonic() >= self.deadline:
            self.end(LeaseLost("The lease ran out before it could be extended."))


JOIN_S = 30.0
"""How long a heartbeat in flight may take to end; one that hangs longer costs the lease."""


class Beating(Protocol):
    """Something that keeps a lease alive between `start` and `join`."""

    def start(self) -> None:
        """Begin."""

    def join(self) -> None:
        """End, and return only when no heartbeat is in flight any more."""


class Heartbeat:
    """Calls `Lease.beat` in a thread. If that thread dies, the job stops: fail closed."""

    def __init__(self, lease: Lease, clock: Clock) -> None:
        self._lease, self._clock = lease, clock
        self._over = threading.Event()
        self._next = lease.first_beat_s
        # In a copy of this thread's context, so that its log lines name the job as well.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self.run,), name="hevcq-heartbeat", daemon=True
        )

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._thread.start()

    def step(self) -> bool:
        """Wait until the next heartbeat is due and send it; False once told to end."""
        if self._clock.wait(self._over, self._next):
            return False
        self._next = self._lease.beat(self._clock.monotonic())
        return True

    def run(self) -> None:
        """Step until told to end; however this ends otherwise, the lease ends with it."""
        try:
            while self.step():
                pass
        finally:
            if not self._over.is_set():
                get_logger().error("heartbeat_died")
                self._lease.end(LeaseLost("The heartbeat ended, so the lease cannot be kept."))

    def join(self) -> None:
        """End the thread and wait for it.

        A heartbeat in flight could undo a settling (it may hide a message that was just
        released), so one that does not return makes the lease lost, and nothing is settled.
        """
        self._over.set()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            self._lease.end(LeaseLost("A heartbeat did not return, so nothing may be settled."))
