"""Watch folders for new complete files, by regular scans and by the system's change events.

`SettlingFiles` is the pure part: from repeated listings it returns the files that stayed unchanged
for long enough. A file that a process has open for writing is not complete. Change events only
bring the next scan forward; a network share without events is scanned at intervals.
"""

import math
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from hevcq.library.scanning.scan import FoundFile, Rejected
from hevcq.ports.catalog import Fingerprint
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import reason_of

SETTLE_S = 5.0
"""Seconds that a file must stay unchanged to count as complete."""
LOOK_S = 30.0
"""Seconds between scans without an event."""


class SettlingFiles:
    """Finds files that stopped growing. Times are monotonic seconds."""

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        self._settle_s = settle_s
        self._growing: dict[Path, tuple[Fingerprint, float]] = {}
        self._handled: dict[Path, Fingerprint] = {}

    def mark_handled(self, found: Mapping[Path, Fingerprint]) -> None:
        """Mark files as handled: they are returned again only if they change."""
        self._handled.update(found)

    def restart(self, path: Path, fingerprint: Fingerprint, now: float) -> None:
        """Restart the settling time of a file that `observe` returned."""
        self._handled.pop(path, None)
        self._growing[path] = fingerprint, now

    def observe(self, found: Mapping[Path, Fingerprint], now: float) -> list[Path]:
        """Record the folders' current files; return those that are complete and new.

        A missing file is forgotten; the settling time of a changed one restarts.
        """
        ready = []
        for path, fingerprint in found.items():
            if self._handled.get(path) == fingerprint:
                self._growing.pop(path, None)
                continue
            seen, since = self._growing.get(path, (None, 0.0))
            if seen != fingerprint:
                self._growing[path] = fingerprint, now
            elif now - since >= self._settle_s:
                ready.append(path)
        self._forget_missing(found.keys())
        for path in ready:
            self._handled[path], _ = self._growing.pop(path)
        return ready

    @property
    def unsettled(self) -> int:
        """Number of files whose settling time has not passed."""
        return len(self._growing)

    def _forget_missing(self, found: Collection[Path]) -> None:
        for missing in self._growing.keys() - found:
            del self._growing[missing]
        for missing in self._handled.keys() - found:
            del self._handled[missing]


SHARE_RESCAN_S = 300.0
"""Seconds between scans of folders whose changes are not reported, such as a network share."""
QUIET_MS = 500
"""Milliseconds to collect changes before the next scan: a copy makes thousands a second."""
REST = 10.0
"""Pause after a scan, as a multiple of that scan's duration."""
Look = Callable[[], Iterable[FoundFile | Rejected]]
"""Walks the folders once, without opening files."""
Busy = Callable[[Collection[Path]], Collection[Path]]
"""Returns which of the files a process has open for writing, as far as this user can see."""


class Watch:
    """Finds new complete files below the folders. `signal` brings the next scan forward."""

    def __init__(
        self,
        look: Look,
        clock: Clock,
        *,
        settle_s: float = SETTLE_S,
        look_s: float = LOOK_S,
        busy: Busy = lambda _paths: (),
    ) -> None:
        self.signal = threading.Event()
        self._look, self._clock, self._settle_s = look, clock, settle_s
        self._settling, self._busy = SettlingFiles(settle_s), busy
        self._look_s, self._last, self._took_s = look_s, -math.inf, 0.0
        self._stop = threading.Event()
        self._listener: threading.Thread | None = None

    def listen(self, roots: Sequence[Path]) -> None:
        """Start a thread that sets `signal` on each change below the roots, until `stop`.

        If the system cannot watch them (too many folders, a network share), a warning is logged and
        the regular scan finds new files.
        """
        self._listener = threading.Thread(
            target=self._listen, args=(roots,), name="watch", daemon=True
        )
        self._listener.start()

    def stop(self) -> None:
        self._stop.set()
        if self._listener is not None:
            self._listener.join()

    def _listen(self, roots: Sequence[Path]) -> None:
        from watchfiles import watch

        try:
            changes = watch(
                *roots,
                stop_event=self._stop,
                step=QUIET_MS,
                rust_timeout=1000,
                yield_on_timeout=False,
                raise_interrupt=False,
                watch_filter=None,
                ignore_permission_denied=True,
            )
            for _ in changes:
                self.signal.set()
        except (OSError, RuntimeError) as error:
            self._look_s = min(self._look_s, SHARE_RESCAN_S)
            get_logger().warning("folders_not_watched", reason=reason_of(error))

    def first(self) -> list[FoundFile | Rejected]:
        """Return all complete files: unchanged for the settling time."""
        began = self._clock.monotonic()
        listed = list(self._look())
        self._took_s = self._clock.monotonic() - began
        files = {each.path: each.fingerprint for each in listed if isinstance(each, FoundFile)}
        growing = {path for path, mark in files.items() if not self._is_old(mark)}
        growing.update(self._busy(list(files)))
        done = {path: mark for path, mark in files.items() if path not in growing}
        self._settling.mark_handled(done)
        self._settling.observe(files, self._clock.monotonic())
        return [each for each in listed if each.path not in growing]

    def step(self) -> list[FoundFile]:
        """Scan if due; return the new complete files."""
        began = self._clock.monotonic()
        soon = self.signal.is_set() or self._settling.unsettled
        wait_s = self._settle_s / 2 if soon else self._look_s
        # Frequent changes must not keep a large library under scan all day.
        if began - self._last < max(wait_s, self._took_s * REST):
            return []
        self._last = began
        self.signal.clear()
        files = {each.path: each for each in self._look() if isinstance(each, FoundFile)}
        marks = {path: each.fingerprint for path, each in files.items()}
        now = self._clock.monotonic()
        self._took_s = now - began
        ready = self._settling.observe(marks, now)
        busy = self._busy(ready) if ready else ()
        for path in busy:
            self._settling.restart(path, marks[path], now)
        return [files[path] for path in ready if path not in busy]

    def _is_old(self, fingerprint: Fingerprint) -> bool:
        """Return whether a file is older than the settling time; a camera's future date never is."""
        return self._clock.now() - fingerprint.mtime_ns / 1e9 >= self._settle_s


_LOCAL = (
    "apfs bcachefs btrfs exfat ext2 ext3 ext4 f2fs fuseblk hfs hfsplus jfs ntfs ntfs3 overlay"
    " ramfs reiserfs tmpfs ufs vfat xfs zfs"
)
LOCAL = frozenset(_LOCAL.split())
"""File systems whose changes all pass this machine's kernel. Any other or unknown one is rescanned."""


def _mounts() -> list[tuple[str, str]]:
    with suppress(OSError, psutil.Error):
        return [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]
    return []


def file_system_of(folder: Path, mounts: Callable[[], Iterable[tuple[str, str]]] = _mounts) -> str:
    """Return the type of the file system that holds `folder`; the last mount wins at equal depth."""
    path = Path(os.path.realpath(folder))
    depth, file_system = -1, ""
    for mountpoint, kind in mounts():
        place = Path(mountpoint)
        if path.is_relative_to(place) and len(place.parts) >= depth:
            depth, file_system = len(place.parts), kind.lower()
    return file_system


def open_for_writing(paths: Collection[Path]) -> frozenset[Path]:
    """Return which of these files a process of this machine has open for writing.

    A process of another user, container or machine cannot be seen; the settling time covers those.
    """
    by_real_path = {os.path.realpath(path): path for path in paths}
    written = set[Path]()
    if not by_real_path:
        return frozenset()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for each in process.open_files():
                mode = getattr(each, "mode", "r")  # known on Linux alone
                if each.path in by_real_path and ("w" in mode or "a" in mode or "+" in mode):
                    written.add(by_real_path[each.path])
    return frozenset(written)
