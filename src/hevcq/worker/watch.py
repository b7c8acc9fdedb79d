"""How a pool is, and who is told: the health file, the scale-in protection, the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Health:
    """How a pool is.

    `busy` slots have work in hand; `oldest_poll_s` is how long ago the slowest idle slot last got
    an answer from a queue; `stopping` says that the pool was told to end.
    """

    slots: int
    alive: int
    handled: int
    oldest_poll_s: float
    busy: int = 0
    stopping: bool = False


class Watcher(Protocol):
    """Something that wants to know how the pool is, some times a second."""

    def look(self, health: Health) -> None:
        """Take note; must be quick. What it raises is logged and goes no further."""

    def close(self) -> None:
        """The pool has ended."""
