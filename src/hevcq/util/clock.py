"""The clock: the only module that reads the time; all other code receives a Clock."""

import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

EARLIEST = 1_735_689_600.0
"""2025-01-01T00:00:00Z: a clock before the first release of hevcq is wrong."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(ABC):
    """Read wall and monotonic time, and wait.

    Wall time (`now`) is for values that other processes or people read: deadlines in a database,
    displayed ages. Monotonic time is for intervals within one process and never goes back.
    """

    @abstractmethod
    def now(self) -> float:
        """Return wall time as seconds since the Unix epoch."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return monotonic seconds since an arbitrary start."""

    def uptime(self) -> float:
        """Return monotonic seconds that include the machine's sleep, if the system counts those."""
        return self.monotonic()

    def boot(self) -> str:
        """Return an id of this boot of the machine, or "" if the system has none."""
        return ""

    @abstractmethod
    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for `event` for at most `timeout_s` seconds; return whether it is set."""

    @abstractmethod
    def wait_on(self, condition: threading.Condition, timeout_s: float) -> bool:
        """Wait on a held `condition` for at most `timeout_s` seconds; return False on timeout."""


class SystemClock(Clock):
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def uptime(self) -> float:
        source = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if source is None else time.clock_gettime(source)

    def boot(self) -> str:
        """Return the kernel's id of this boot; containers share their host's."""
        try:
            return BOOT_ID.read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(max(0.0, timeout_s))

    def wait_on(self, condition: threading.Condition, timeout_s: float) -> bool:
        return condition.wait(max(0.0, timeout_s))
