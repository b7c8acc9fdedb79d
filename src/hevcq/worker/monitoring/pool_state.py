"""Report the state of a pool to watchers, and in its process's row that `hevcq-health` reads.

The pool's own loop writes the row, so a hanging loop shows as an old row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

from hevcq.alive import EVERY_S
from hevcq.util.clock import Clock
from hevcq.util.processes import Processes


@dataclass(frozen=True, slots=True)
class PoolState:
    """The state of a pool.

    `slots`, `alive` and `busy` count slots, `handled` counts deliveries. `oldest_poll_s` is the
    seconds since the slowest idle slot last got an answer from a queue. `stopping` says that a stop
    was requested.
    """

    slots: int
    alive: int
    handled: int
    oldest_poll_s: float
    busy: int = 0
    stopping: bool = False


class Watcher(Protocol):
    """Receives the state of the pool several times a second."""

    def observe(self, state: PoolState) -> None:
        """Take the state; must return quickly. Its exceptions are only logged."""

    def close(self) -> None:
        """End with the pool."""


class SignOfLife:
    """Write the state of the pool into its process's row now and then.

    A row that grows old means a loop that hangs.
    """

    def __init__(self, processes: Processes, clock: Clock) -> None:
        self._processes, self._clock = processes, clock
        self._due: float | None = None

    def observe(self, state: PoolState) -> None:
        """Write the row if it is due."""
        now = self._clock.monotonic()
        if self._due is None or now >= self._due:
            self._due = now + EVERY_S
            self._processes.tell(**asdict(state), at=now)

    def close(self) -> None:
        """Say that no worker is left, also if the process goes on."""
        self._processes.tell(slots=0)
