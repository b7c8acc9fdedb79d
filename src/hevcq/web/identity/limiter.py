"""Slow down whoever guesses passwords and tokens."""

from __future__ import annotations

from collections import OrderedDict

from hevcq.util.clock import Clock

TRIES = 10
PER_S = 60.0
MOST_NAMES = 10_000
"""Names remembered at most; the one seen longest ago is forgotten first."""


class Limiter:
    """Allow `tries` failures in `per_s` seconds for each name, then refuse until they wear off."""

    def __init__(self, clock: Clock, *, tries: int = TRIES, per_s: float = PER_S) -> None:
        self._clock, self._tries, self._per_s = clock, tries, per_s
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, *names: str) -> float:
        """Return the seconds until another try is allowed for all of these names; 0 if it is now."""
        return max((self._wait(name) for name in names), default=0.0)

    def note_failure(self, *names: str) -> None:
        """Count a failed try for each name."""
        now = self._clock.monotonic()
        for name in names:
            self._failures[name] = (self._level(name, now) + 1.0, now)
            self._failures.move_to_end(name)
        while len(self._failures) > MOST_NAMES:
            self._failures.popitem(last=False)

    def forget(self, *names: str) -> None:
        """Forget the failures of names that signed in."""
        for name in names:
            self._failures.pop(name, None)

    def _wait(self, name: str) -> float:
        over = self._level(name, self._clock.monotonic()) - (self._tries - 1)
        return max(0.0, over * self._per_s / self._tries)

    def _level(self, name: str, now: float) -> float:
        level, at = self._failures.get(name, (0.0, now))
        return max(0.0, level - (now - at) * self._tries / self._per_s)
