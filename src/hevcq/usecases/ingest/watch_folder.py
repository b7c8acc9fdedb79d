"""Watch folders for new files that stopped growing.

`SettlingFiles` is the pure part: given the folder's files repeatedly, it returns those unchanged for
long enough. File-system events only bring the next scan forward; files on a network share without
events are found by the regular scan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hevcq.library.scanning.scan import Found, Rejected
from hevcq.ports.catalog import Fingerprint
from hevcq.util.clock import Clock

SETTLE_S = 5.0
"""Seconds that a file must stay unchanged to count as complete."""
LOOK_S = 30.0
"""Seconds between scans without an event."""


@dataclass(slots=True)
class _Seen:
    fingerprint: Fingerprint
    since: float


class SettlingFiles:
    """Finds files that stopped growing. Times are monotonic seconds."""

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        self._settle_s = settle_s
        self._growing: dict[Path, _Seen] = {}
        self._taken: dict[Path, Fingerprint] = {}

    def take(self, found: Mapping[Path, Fingerprint]) -> None:
        """Mark files as handled: they are returned again only if they change."""
        self._taken.update(found)

    def observe(self, found: Mapping[Path, Fingerprint], now: float) -> list[Path]:
        """Record the folders' current files; return those that are complete and new.

        `now` is monotonic seconds. A missing file is forgotten; a changed one settles again from the start.
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
        """Number of files that are still growing or too recent to tell."""
        return len(self._growing)

    def _forget(self, found: Iterable[Path]) -> None:
        here = set(found)
        for gone in self._growing.keys() - here:
            del self._growing[gone]
        for gone in self._taken.keys() - here:
            del self._taken[gone]


class ScanSchedule:
    """Decides when to scan: on events, while files settle, and regularly."""

    def __init__(self, settle_s: float = SETTLE_S, look_s: float = LOOK_S) -> None:
        self._settle_s, self._look_s = settle_s, look_s
        self._last: float | None = None

    def due(self, now: float, *, signalled: bool, unsettled: int) -> bool:
        """Return whether to scan now (monotonic seconds); True counts as a scan.

        `unsettled` is the number of files that still settle.
        """
        waited = None if self._last is None else now - self._last
        if waited is not None:
            enough = self._settle_s / 2 if (signalled or unsettled) else self._look_s
            if waited < enough:
                return False
        self._last = now
        return True


Look = Callable[[], Iterable[Found | Rejected]]
"""Walks the folders once, without opening files."""


class Watch:
    """Finds new complete files below the folders. `signal` brings the next scan forward."""

    def __init__(self, look: Look, clock: Clock, *, settle_s: float = SETTLE_S) -> None:
        self.signal = threading.Event()
        self._look, self._clock, self._settle_s = look, clock, settle_s
        self._settling = SettlingFiles(settle_s)
        self._looks = ScanSchedule(settle_s)

    def first(self) -> list[Found | Rejected]:
        """Return all complete files: unchanged for the settling time."""
        complete: list[Found | Rejected] = []
        growing: dict[Path, Fingerprint] = {}
        for each in self._look():
            if isinstance(each, Found) and not self._old(each.fingerprint):
                growing[each.path] = each.fingerprint
            else:
                complete.append(each)
        taken = {each.path: each.fingerprint for each in complete if isinstance(each, Found)}
        self._settling.take(taken)
        self._settling.observe(taken | growing, self._clock.monotonic())
        return complete

    def step(self) -> list[Found]:
        """Scan if due; return the new complete files."""
        due = self._looks.due(
            self._clock.monotonic(),
            signalled=self.signal.is_set(),
            unsettled=self._settling.unsettled,
        )
        if not due:
            return []
        self.signal.clear()
        found = {each.path: each for each in self._look() if isinstance(each, Found)}
        now = {path: each.fingerprint for path, each in found.items()}
        return [found[path] for path in self._settling.observe(now, self._clock.monotonic())]

    def _old(self, fingerprint: Fingerprint) -> bool:
        """Return whether a file is old enough by its time; one in the future (a camera's) never is."""
        return self._clock.now() - fingerprint.mtime_ns / 1e9 >= self._settle_s
