"""Which slots may take a message, and which may encode, where sources and renditions travel.

A worker whose slots each fetch, encode and publish in turn leaves its encoder idle while bytes
travel. So a pool has more slots than it encodes at a time, and what is bounded is not the slots but
the stages: while one job encodes, the next is fetched and looked at, and the last is published.
Each is a delivery like any other, with a lease, a fence and a heartbeat of its own, so that a kill
or a lost lease at any moment means what it means without this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

from hevcq.errors import Stopped
from hevcq.util.clock import Clock

AHEAD_S = 60.0
"""A message is taken ahead only when an encode is expected to end this soon: time to download some
GB. Taken earlier it would be kept from idle workers, for hours at worst."""
LOOK_S = 0.25
"""How often a job that waits for its encode looks whether it is still to be done."""
EXTRA_SLOTS = 2
"""One job that is fetched ahead, and one that is published."""


class _At(Enum):
    """Where a slot is; one that publishes, settles or rests is at none of these."""

    POLLING = auto()
    READYING = auto()
    ENCODING = auto()


class EncodeSlots:
    """The stages of one pool, which encodes `encoders` jobs at a time. Slots go by their names."""

    def __init__(self, encoders: int, clock: Clock) -> None:
        self._encoders, self._clock = encoders, clock
        self._changed = threading.Condition()
        self._at: dict[str, _At] = {}
        self._eta: dict[str, float] = {}
        self._closed = False
        self._listeners: list[Callable[[], None]] = []

    def listen(self, ring: Callable[[], None]) -> None:
        """Call `ring` whenever a slot that may not take a message should ask again."""
        self._listeners.append(ring)

    def enter(self, slot: str) -> bool:
        """Return whether the slot may look for a message now; if so, it must `leave`.

        As many as encode at a time may always; one more, once all of them encode and one of them
        is expected to end soon.
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

    def took(self, slot: str) -> None:
        """Note that the slot has a delivery in hand."""
        with self._changed:
            self._at[slot] = _At.READYING

    def leave(self, slot: str) -> None:
        """Note that the slot found nothing, or that its delivery is settled."""
        self._forget(slot)

    @contextmanager
    def encoding(self, slot: str, check: Callable[[], None]) -> Iterator[None]:
        """Hold one of the encodes inside the context; wait for it if all are held.

        `check` is called now and then meanwhile, and may raise. Raises Stopped, instead of waiting
        on, once the pool takes nothing new: the job goes back for another worker.
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
        """Note in how many seconds the slot's encode should end."""
        with self._changed:
            if self._at.get(slot) is not _At.ENCODING:
                return
            before = self._eta.get(slot, AHEAD_S + 1)
            self._eta[slot] = seconds
        if before > AHEAD_S >= seconds:
            self._ring()

    def close(self) -> None:
        """Have jobs that wait for their encode go back; what encodes goes on."""
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
