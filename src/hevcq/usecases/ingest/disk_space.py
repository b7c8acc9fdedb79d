"""Say that work pauses for want of disk space, and that it goes on again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.ports.store import Store
from hevcq.util.clock import Clock

EVERY_S = 5.0

Room = Callable[[], str]
"""Says which disk has too little room, in one sentence; an empty string while there is enough."""


def always_room() -> str:
    """There is room: for where the work is done elsewhere."""
    return ""


class SpaceWatch:
    """Looks at the free space now and then; the workers themselves refuse to start below it."""

    def __init__(self, room: Room, tell: Listener, clock: Clock) -> None:
        self._room, self._tell, self._clock = room, tell, clock
        self._next = clock.monotonic()
        self._lacking = ""

    def step(self) -> None:
        """Look once, if it is time; tell only when it turns."""
        if self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + EVERY_S
        before, self._lacking = self._lacking, self._room()
        if bool(before) == bool(self._lacking):
            return
        name = EventName.PAUSED if self._lacking else EventName.RESUMED
        words = (
            f"{self._lacking} Free some space and work goes on by itself."
            if self._lacking
            else "There is enough free space again; work goes on."
        )
        self._tell(IngestEvent(event=name, at=self._clock.now(), reason=words))


def room_of(store: Store, scratch: Path, least_bytes: int) -> Room:
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
