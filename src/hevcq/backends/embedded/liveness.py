"""Detect dead processes: each holds a lock on its own file, which the kernel drops when it dies.

A process id proves nothing: ids are reused and differ between containers. A lock held through an
open file ends exactly when its process does, however it ended.

A process that died while another one lived, or while memory ran out, may have been killed by its job.
One that ended with all others (kill -9 of the whole program, a restart of the machine) was not.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from hevcq.backends.embedded.errors import file_errors
from hevcq.util import file_lock
from hevcq.util.clock import Clock
from hevcq.util.host import oom_kills

OWNER = re.compile(r"[0-9a-f]{16}(?![0-9a-f])")
"""An owner name starts with 16 hexadecimal digits; callers may append `:<slot>` or the like."""
SUFFIX = ".alive"
REAP_INTERVAL_S = 0.5
"""Seconds between checks of the others: a death is noticed within this plus one poll interval."""


class Liveness:
    """Hold this process's lock file and check the others'. Thread-safe."""

    def __init__(self, folder: Path, clock: Clock, *, interval_s: float = REAP_INTERVAL_S) -> None:
        self._folder = folder
        self._clock = clock
        self._interval_s = interval_s
        self._next_reap = 0.0
        self._reaping = threading.Lock()
        self._seen_alive: set[str] = set()
        self.owner = secrets.token_hex(8)
        with file_errors("written", folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor: int | None = self._hold()
            self._here_before = set(self._owners())

    def _hold(self) -> int:
        descriptor = file_lock.acquire(self._path(self.owner))
        line = f"{os.getpid()} {self._clock.boot() or '-'} {oom_kills() or 0}\n"
        os.write(descriptor, line.encode())
        return descriptor

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner}{SUFFIX}"

    def close(self, *, forget: bool = False) -> None:
        """Release the lock; others may free at once what this process still holds.

        `forget` also removes the file; only if this process holds no delivery, lease or version.
        """
        if self._descriptor is not None:
            if forget:
                self._path(self.owner).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def dead(self, owner: str) -> bool:
        """Return whether the owner is known to be gone; an unknown name is not.

        The file of a dead owner stays until `reap` has freed what it held, so a missing file
        means "freed already, or never one of ours": then the lease's own deadline decides.
        """
        match = OWNER.match(owner)
        if match is None or match.group() == self.owner:
            return False
        return self._unlocked(self._path(match.group()))

    @staticmethod
    def _unlocked(path: Path) -> bool:
        try:
            return not file_lock.is_locked(path)
        except FileNotFoundError:
            return False

    def _owners(self) -> list[str]:
        return [path.stem for path in self._folder.iterdir() if path.suffix == SUFFIX]

    def dead_owners(self) -> list[str]:
        """Return the owners whose file is there and unlocked."""
        with file_errors("read", self._folder):
            owners = self._owners()
            dead = [owner for owner in owners if self.dead(owner)]
            self._seen_alive.update(set(owners) - set(dead) - {self.owner})
            return dead

    def _died_alone(self, owner: str) -> bool:
        """Return whether this process outlived the owner, or memory ran out meanwhile.

        It outlived whoever came after it, even between two looks, and whoever it saw alive.
        """
        if owner not in self._here_before or owner in self._seen_alive:
            return True
        try:
            words = self._path(owner).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError):
            return False
        known = len(words) == 3 and words[1] == (self._clock.boot() or "-") and words[2].isdigit()
        return known and (oom_kills() or 0) > int(words[2])

    def reap(self, free: Callable[[str, bool], None], *, now: bool = False) -> None:
        """Call `free` for each dead owner, then forget it; at most every `interval_s` unless `now`.

        `free` also gets whether the owner died alone: then its jobs may have killed it. If this
        process dies in between, the owner is found and freed again.
        """
        if not now and self._clock.monotonic() < self._next_reap:
            return
        if not self._reaping.acquire(blocking=now):
            return
        try:
            self._next_reap = self._clock.monotonic() + self._interval_s
            for owner in self.dead_owners():
                free(owner, self._died_alone(owner))
                self._seen_alive.discard(owner)
                self._path(owner).unlink(missing_ok=True)
        finally:
            self._reaping.release()
