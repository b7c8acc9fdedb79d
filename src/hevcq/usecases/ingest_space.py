"""Say that work pauses for want of disk space, and that it goes on again."""

from __future__ import annotations

from hevcq.clock import Clock
from hevcq.ports.store import Store
from hevcq.usecases.ingest_events import EventName, IngestEvent, Listener

EVERY_S = 5.0
MIB = 1 << 20


class SpaceWatch:
    """Looks at the free space now and then; the workers themselves refuse to start below it."""

    def __init__(self, store: Store, min_free_mib: int, tell: Listener, clock: Clock) -> None:
        self._store, self._least = store, min_free_mib * MIB
        self._tell, self._clock = tell, clock
        self._next = clock.monotonic()
        self._paused = False

    def step(self) -> None:
        """Look once, if it is time."""
        if self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + EVERY_S
        free = self._store.free_bytes()
        short = free is not None and free < self._least
        if short == self._paused:
            return
        self._paused = short
        name = EventName.PAUSED if short else EventName.RESUMED
        words = (
            f"only {(free or 0) // MIB} MiB are free where renditions go, and "
            f"{self._least // MIB} MiB are kept free; free some space and work goes on by itself."
            if short
            else "There is enough free space again; work goes on."
        )
        self._tell(IngestEvent(event=name, at=self._clock.now(), reason=words))
