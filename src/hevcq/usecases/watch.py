"""Stay and take up new files once they stop growing.

`Settling` is the pure part: it is shown what a folder holds, as often as anyone likes, and says
which files have been the same for long enough. Signals of the file system only make the next look
come sooner; a file on a network share that sends no signal is found by the regular look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hevcq.ports.catalog import Fingerprint

SETTLE_S = 5.0
"""How long a file must not change before it counts as complete."""
LOOK_S = 30.0
"""How often folders are looked through without any signal."""


@dataclass(slots=True)
class _Seen:
    fingerprint: Fingerprint
    since: float


class Settling:
    """Tells which files stopped growing. Times are monotonic seconds."""

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        self._settle_s = settle_s
        self._growing: dict[Path, _Seen] = {}
        self._taken: dict[Path, Fingerprint] = {}

    def take(self, found: Mapping[Path, Fingerprint]) -> None:
        """Mark files as taken care of: they come again only if they change."""
        self._taken.update(found)

    def observe(self, found: Mapping[Path, Fingerprint], now: float) -> list[Path]:
        """Take in what the folders hold now; return the files that are complete and new.

        A file that is gone is forgotten; one that changed starts to settle anew.
        """
        ready = []
        for path, fingerprint in found.items():
            if self._taken.get(path) == fingerprint:
                self._growing.pop(path, None)
                continue
            seen = self._growing.get(path)
            if seen is None or seen.fingerprint != fingerprint:
                self._growing[path] = _Seen(fingerprint, now)
            elif now - seen.since >= self._settle_s:
                ready.append(path)
        self._forget(found)
        for path in ready:
            self._taken[path] = self._growing.pop(path).fingerprint
        return ready

    @property
    def unsettled(self) -> int:
        """How many files are still growing, or too fresh to tell."""
        return len(self._growing)

    def _forget(self, found: Iterable[Path]) -> None:
        here = set(found)
        for gone in self._growing.keys() - here:
            del self._growing[gone]
        for gone in self._taken.keys() - here:
            del self._taken[gone]


class Looks:
    """Decides when to look through the folders: at a signal, while files settle, and regularly."""

    def __init__(self, settle_s: float = SETTLE_S, look_s: float = LOOK_S) -> None:
        self._settle_s, self._look_s = settle_s, look_s
        self._last: float | None = None

    def due(self, now: float, *, signalled: bool, unsettled: int) -> bool:
        """Return whether to look now; a True counts as the look."""
        waited = None if self._last is None else now - self._last
        if waited is not None:
            enough = self._settle_s / 2 if (signalled or unsettled) else self._look_s
            if waited < enough:
                return False
        self._last = now
        return True
