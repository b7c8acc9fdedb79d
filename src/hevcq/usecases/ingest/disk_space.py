"""Report when work pauses for lack of disk space, and when it resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.ports.store import Store
from hevcq.util.clock import Clock
from hevcq.util.host import disk_shortage, free_beside

EVERY_S = 5.0

DiskSpace = Callable[[], str]
"""Returns which disk is low on space, in one sentence; empty while there is enough."""


def enough_space() -> str:
    """Report enough space: for work that runs on other machines."""
    return ""


class DiskSpaceMonitor:
    """Emits an event when disk space runs low or suffices again; workers refuse jobs themselves."""

    def __init__(self, disk_space: DiskSpace, emit: Listener, clock: Clock) -> None:
        self._disk_space, self._emit, self._clock = disk_space, emit, clock
        self._next = clock.monotonic()
        self._lacking = ""

    def step(self) -> None:
        """Check once, if due; emit an event only on a change."""
        if self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + EVERY_S
        before, self._lacking = self._lacking, self._disk_space()
        if bool(before) == bool(self._lacking):
            return
        name = EventName.PAUSED if self._lacking else EventName.RESUMED
        words = (
            f"{self._lacking} Free some space; work then resumes."
            if self._lacking
            else "Enough disk space again; resuming."
        )
        self._emit(IngestEvent(event=name, at=self._clock.now(), reason=words))


def disk_space_of(store: Store, scratch: Path, least_bytes: int) -> DiskSpace:
    """Return a check of the disks of the store and of the scratch folder.

    `least_bytes` must stay free on each. The check raises OSError if a disk cannot be read.
    """

    def shortage() -> str:
        free = {f"scratch folder {scratch}": free_beside(scratch)}
        stored = store.free_bytes()
        if stored is not None:
            free["store"] = stored
        return disk_shortage(free, least_bytes)

    return shortage
