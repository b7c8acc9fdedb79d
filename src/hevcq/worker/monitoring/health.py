"""How a pool is, who is told, and the file of it that `hevcq-health` reads.

The file is written from the pool's own loop, so that a loop that hangs shows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from hevcq import health as health_files
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger


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


class HealthFile:
    """Keeps one process's file fresh. What cannot be written is logged once, and shows as stale."""

    def __init__(self, data_dir: Path, node: str, pid: int, clock: Clock) -> None:
        self._file, self._node = health_files.file_of(str(data_dir), node, pid), node
        self._folder = health_files.folder_of(str(data_dir))
        self._clock = clock
        self._due: float | None = None
        self._failed = False

    def look(self, health: Health) -> None:
        """Write the file, if it is time to."""
        now = self._clock.monotonic()
        if self._due is not None and now < self._due:
            return
        first, self._due = self._due is None, now + health_files.EVERY_S
        facts = {**asdict(health), "at": now, "written": self._clock.now()}
        try:
            if first:
                health_files.sweep(self._folder, self._node, health_files.running)
            health_files.write(self._file, facts)
        except OSError as error:
            self._report(error)
        else:
            self._failed = False

    def close(self) -> None:
        """Remove the file: a process that ended is no longer asked for."""
        try:
            Path(self._file).unlink(missing_ok=True)
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if not self._failed:
            get_logger().warning("health_not_written", file=self._file, reason=str(error))
        self._failed = True
