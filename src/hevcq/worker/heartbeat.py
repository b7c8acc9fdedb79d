"""The thread that keeps a lease alive, and that must be joined before anything is settled."""

from __future__ import annotations

import contextvars
import threading
from typing import Protocol

from hevcq.errors import LeaseLost
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.lease import Lease

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
