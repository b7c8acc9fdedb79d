"""Report the state of a pool to watchers and to the file that `hevcq-health` reads.

The pool's own loop writes the file, so a hanging loop shows as a stale file.
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

    def observe(self, health: Health) -> None:
        """Take the state; must return quickly. Its exceptions are only logged."""

    def close(self) -> None:
        """End with the pool."""


class HealthFile:
    """Keep one process's health file fresh; a failed write is logged once, and the file turns stale."""

    def __init__(self, data_dir: Path, node: str, pid: int, clock: Clock) -> None:
        self._file, self._node = health_files.file_of(str(data_dir), node, pid), node
        self._folder = health_files.folder_of(str(data_dir))
        self._clock = clock
        self._due: float | None = None
        self._failed = False

    def observe(self, health: Health) -> None:
        """Write the file if it is due."""
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
        """Remove the file, so that no check expects the ended process."""
        try:
            Path(self._file).unlink(missing_ok=True)
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if not self._failed:
            get_logger().warning("health_not_written", file=self._file, reason=str(error))
        self._failed = True
