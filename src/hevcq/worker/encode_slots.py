"""Limit which slots may receive and which may encode, where sources and renditions are transferred.

A worker whose slots each fetch, encode and publish in turn leaves its encoder idle during
transfers. So a pool has more slots than parallel encodes, and the stages are limited instead of the
slots: while one job encodes, the next is fetched and probed, and the last is published. Each is an
ordinary delivery with its own lease, fence and heartbeat, so a kill or a lost lease has no other
effect than without pipelining.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

from hevcq.errors import Stopped
from hevcq.util.clock import Clock

AHEAD_S = 60.0
"""A message is received ahead only if an encode should end within these seconds: time to download
some GB. Any earlier, idle workers would miss it, for hours at worst."""
LOOK_S = 0.25
"""Seconds between checks of a job that waits for its encode: it may be stopped meanwhile."""
EXTRA_SLOTS = 2
"""One job that is fetched ahead, and one that is being published."""


class _At(Enum):
    """The stage that a slot is in; publishing, settling and idle slots are in none."""

    POLLING = auto()
    READYING = auto()
    ENCODING = auto()


class EncodeSlots:
    """The stages of one pool with `encoders` parallel encodes. Slots are identified by name."""

    def __init__(self, encoders: int, clock: Clock) -> None:
        self._encoders, self._clock = encoders, clock
        self._changed = threading.Condition()
        self._at: dict[str, _At] = {}
        self._eta: dict[str, float] = {}
        self._closed = False
        self._listeners: list[Callable[[], None]] = []

    def listen(self, ring: Callable[[], None]) -> None:
        """Call `ring` whenever a slot that was refused should ask again."""
        self._listeners.append(ring)

    def enter(self, slot: str) -> bool:
        """Return whether the slot may receive a message now; if so, it must `leave` later.

        `encoders` slots always may; one more may if all of them encode and one should end soon.
        """
        with self._changed:
            if len(self._at) >= self._encoders and not self._next_is_due():
                return False
            self._at[slot] = _At.POLLING
            return True

    def _next_is_due(self) -> bool:
        if len(self._at) > self._encoders:
            return False
        encoding = all(at is _At.ENCODING for at in self._at.values())
        return encoding and min(self._eta.values(), default=AHEAD_S + 1) <= AHEAD_S

    def received(self, slot: str) -> None:
        """Record that the slot received a delivery."""
        with self._changed:
            self._at[slot] = _At.READYING

    def leave(self, slot: str) -> None:
        """Record that the slot received nothing or settled its delivery."""
        self._forget(slot)

    @contextmanager
    def encoding(self, slot: str, check: Callable[[], None]) -> Iterator[None]:
        """Hold one of the parallel encodes inside the context; wait while all are in use.

        `check` is called every `LOOK_S` seconds of the wait, and may raise. Raises Stopped if the
        pool is closed while the job waits: another worker gets the job.
        """
        with self._changed:
            while sum(at is _At.ENCODING for at in self._at.values()) >= self._encoders:
                if self._closed:
                    raise Stopped
                check()
                self._clock.wait_on(self._changed, LOOK_S)
            self._at[slot] = _At.ENCODING
        try:
            yield
        finally:
            self._forget(slot)

    def expect(self, slot: str, seconds: float) -> None:
        """Record the seconds until the slot's encode should end."""
        with self._changed:
            if self._at.get(slot) is not _At.ENCODING:
                return
            before = self._eta.get(slot, AHEAD_S + 1)
            self._eta[slot] = seconds
        if before > AHEAD_S >= seconds:
            self._ring()

    def close(self) -> None:
        """Make jobs that wait for an encode return to the queue; running encodes go on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _forget(self, slot: str) -> None:
        with self._changed:
            self._at.pop(slot, None)
            self._eta.pop(slot, None)
            self._changed.notify_all()
        self._ring()

    def _ring(self) -> None:
        for ring in self._listeners:
            ring()
