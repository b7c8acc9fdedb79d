"""The only module that reads time; everything else is handed a Clock."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod


class Clock(ABC):
    """Tells wall time, measures intervals, and waits.

    Wall time (`now`) is for what other processes read: deadlines in a database, ages in print.
    Monotonic time is for intervals inside one process and never steps back.
    """

    @abstractmethod
    def now(self) -> float:
        """Return wall time as seconds since the Unix epoch."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never steps back."""

    @abstractmethod
    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` seconds passed; return whether it is set."""

    @abstractmethod
    def wait_on(self, condition: threading.Condition, timeout_s: float) -> bool:
        """Wait on a held `condition` for at most `timeout_s`; False means the time ran out."""


class SystemClock(Clock):
    """The machine's clock."""

    def now(self) -> float:
        """Return wall time as seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never steps back."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` seconds passed; return whether it is set."""
        return event.wait(max(0.0, timeout_s))

    def wait_on(self, condition: threading.Condition, timeout_s: float) -> bool:
        """Wait on a held `condition` for at most `timeout_s`; False means the time ran out."""
        return condition.wait(max(0.0, timeout_s))
