"""Keep a transfer or a read below a rate."""

from __future__ import annotations

import threading

from hevcq.errors import Stopped
from hevcq.util.clock import Clock


class Pace:
    """Keep below a rate in bytes a second (0: no limit), and stop when asked; `clock` measures."""

    def __init__(self, clock: Clock, stop: threading.Event, bytes_s: float = 0.0) -> None:
        self.clock, self._stop, self._rate = clock, stop, bytes_s
        self._free_at = clock.monotonic()

    def spend(self, count: int) -> None:
        """Wait until `count` more bytes fit the rate.

        Raises Stopped.
        """
        if self._rate > 0:
            now = self.clock.monotonic()
            # Time that nothing used is not saved up: after a pause there is no burst.
            self._free_at = max(self._free_at, now) + count / self._rate
            self.clock.wait(self._stop, self._free_at - now)
        if self._stop.is_set():
            raise Stopped("Stopped while a file was read; the next run goes on from there.")
