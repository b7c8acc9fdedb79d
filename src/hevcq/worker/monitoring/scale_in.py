"""Protect this ECS task from scale-in while, and only while, a slot is busy."""

from __future__ import annotations

import math
from typing import Protocol

from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.monitoring.watchers import Background, PoolState

PROTECT_S = 3600.0
"""Seconds after which a protection expires if this process dies without ending it."""
RENEW_S = 1200.0
"""Seconds between renewals while work goes on: two renewals may fail."""
RETRY_S = 15.0
"""Seconds before a failed request is repeated."""
CLOSE_S = 10.0
"""Seconds that a stopping worker waits for the end of the protection."""


class Protection(Protocol):
    """ECS task protection; both calls return whether they succeeded, and must not raise."""

    def protect(self, seconds: float) -> bool:
        """Protect the task for `seconds` from now."""

    def release(self) -> bool:
        """End the protection."""


class ScaleInGuard:
    """Protect from the first busy slot until no slot is busy; a watcher.

    A thread of its own sends the requests, so an agent that does not answer delays nothing.
    """

    def __init__(self, protection: Protection, clock: Clock) -> None:
        self._protection, self._clock = protection, clock
        self._busy = False
        self._maybe_on = False
        self._due = -math.inf
        self._thread = Background("hevcq-scale-in", self.step, clock)

    def observe(self, state: PoolState) -> None:
        """Record whether any slot is busy."""
        busy = state.busy > 0
        if busy is not self._busy:
            self._busy, self._due = busy, -math.inf
            self._thread.wake()

    def close(self) -> None:
        """End the protection with the worker."""
        self._busy, self._due = False, -math.inf
        self._thread.close(CLOSE_S)

    def step(self) -> float:
        """Send the request that is due; return the seconds until the next check."""
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + self._ask()
        return self._due - now

    def _ask(self) -> float:
        """Send one request; return the seconds until the next is due."""
        if self._busy:
            # A request whose answer was lost may have been granted, so it must be ended later.
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
