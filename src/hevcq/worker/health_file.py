"""Write the file that `hevcq-health` reads, from the pool's own loop: a loop that hangs shows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from hevcq import vitals
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.watch import Health


class HealthFile:
    """Keeps one process's file fresh. What cannot be written is logged once, and shows as stale."""

    def __init__(self, data_dir: Path, node: str, pid: int, clock: Clock) -> None:
        self._file, self._node = vitals.file_of(str(data_dir), node, pid), node
        self._folder = vitals.folder_of(str(data_dir))
        self._clock = clock
        self._due: float | None = None
        self._failed = False

    def look(self, health: Health) -> None:
        """Write the file, if it is time to."""
        now = self._clock.monotonic()
        if self._due is not None and now < self._due:
            return
        first, self._due = self._due is None, now + vitals.EVERY_S
        facts = {**asdict(health), "at": now, "written": self._clock.now()}
        try:
            if first:
                vitals.sweep(self._folder, self._node, vitals.running)
            vitals.write(self._file, facts)
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
