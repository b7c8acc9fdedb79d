"""Protect this task from scaling in while it has work in hand, and only then."""

from __future__ import annotations

import math
from typing import Protocol

from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.monitoring.health import Health
from hevcq.worker.monitoring.periodic import Background

PROTECT_S = 3600.0
"""How long a protection lasts by itself, should this process not live to end it."""
RENEW_S = 1200.0
"""How often it is renewed while work goes on: two renewals may fail."""
RETRY_S = 15.0
"""How soon a request that failed is repeated."""
CLOSE_S = 10.0
"""How long the end of the protection may take when the worker ends."""


class Protection(Protocol):
    """What ECS offers a task; both calls return whether it is as asked, and raise nothing."""

    def protect(self, seconds: float) -> bool:
        """Protect for so long from now."""

    def release(self) -> bool:
        """Protect no longer."""


class ScaleInGuard:
    """A watcher that protects from the first busy slot on, and ends it with the last.

    The requests are sent by a thread of its own: an agent that does not answer holds up nothing.
    """

    def __init__(self, protection: Protection, clock: Clock) -> None:
        self._protection, self._clock = protection, clock
        self._busy = False
        self._maybe_on = False
        self._due = -math.inf
        self._thread = Background("hevcq-scale-in", self.step, clock)

    def look(self, health: Health) -> None:
        """Take note of whether there is work in hand."""
        busy = health.busy > 0
        if busy is not self._busy:
            self._busy, self._due = busy, -math.inf
            self._thread.wake()

    def close(self) -> None:
        """End the protection with the worker."""
        self._busy, self._due = False, -math.inf
        self._thread.close(CLOSE_S)

    def step(self) -> float:
        """Ask for what is due; return in how many seconds to look again."""
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + self._ask()
        return self._due - now

    def _ask(self) -> float:
        """Send one request, and return in how many seconds the next is due."""
        if self._busy:
            # A request whose answer was lost may have been granted, so it will have to be ended.
            began, self._maybe_on = not self._maybe_on, True
            if not self._protection.protect(PROTECT_S):
                return RETRY_S
            if began:
                get_logger().info("scale_in_protected", seconds=PROTECT_S)
            return RENEW_S
        if self._maybe_on:
            if not self._protection.release():
                return RETRY_S
            self._maybe_on = False
            get_logger().info("scale_in_allowed")
        return RENEW_S
