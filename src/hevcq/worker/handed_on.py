"""Which chunks this process handed on: it leaves them to others for a moment.

A queue gives to any worker that waits, and at the end of a film the one that handed a chunk on
waits like all others. Taken back, the chunk would stay where it is slow.
"""

from __future__ import annotations

import threading

from hevcq.domain.verdict import HAND_ON_S

LEAVE_S = 2.75 * HAND_ON_S
"""Long enough to be offered the chunk twice and to leave it; each offer costs its message a receive."""


class HandedOn:
    """Remembers what was handed on, and until when; shared by all slots of a process."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, unit_id: str, now: float) -> None:
        """Note that a chunk is handed on, and forget those that were long ago."""
        with self._lock:
            left = {unit: until for unit, until in self._until.items() if now < until}
            self._until = {**left, unit_id: now + LEAVE_S}

    def leaves(self, unit_id: str, now: float) -> bool:
        """Return whether the chunk is still left to others."""
        with self._lock:
            return now < self._until.get(unit_id, now)
