"""Say that work pauses for want of disk space, and that it goes on again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.ports.store import Store
from hevcq.util.clock import Clock

EVERY_S = 5.0

DiskSpace = Callable[[], str]
"""Says which disk has too little room, in one sentence; an empty string while there is enough."""


def enough_space() -> str:
    """There is room: for where the work is done elsewhere."""
    return ""


class DiskSpaceMonitor:
    """Looks at the free space now and then; the workers themselves refuse to start below it."""

    def __init__(self, disk_space: DiskSpace, emit: Listener, clock: Clock) -> None:
        self._disk_space, self._emit, self._clock = disk_space, emit, clock
        self._next = clock.monotonic()
        self._lacking = ""

    def step(self) -> None:
        """Look once, if it is time; tell only when it turns."""
        if self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + EVERY_S
        before, self._lacking = self._lacking, self._disk_space()
        if bool(before) == bool(self._lacking):
            return
        name = EventName.PAUSED if self._lacking else EventName.RESUMED
        words = (
            f"{self._lacking} Free some space and work goes on by itself."
            if self._lacking
            else "There is enough free space again; work goes on."
        )
        self._emit(IngestEvent(event=name, at=self._clock.now(), reason=words))


def disk_space_of(store: Store, scratch: Path, least_bytes: int) -> DiskSpace:
    """Return a Room that looks at the disks of the store and of the scratch folder."""

    def lacking() -> str:
        folder = scratch
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        free = {f"scratch folder {scratch}": shutil.disk_usage(folder).free}
        stored = store.free_bytes()
        if stored is not None:
            free["store"] = stored
        for name, count in free.items():
            if count < least_bytes:
                return (
                    f"The disk of the {name} has {count >> 20} MiB free;"
                    f" {least_bytes >> 20} MiB must stay free."
                )
        return ""

    return lacking
