"""Listen to changes below library folders, where the system reports any, and find who writes there.

Changes that another machine makes on a network share are never reported here, and neither are
those behind a union or a virtual machine's shared folder, though watching them does not fail.
"""

import os
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from hevcq.util.log import get_logger
from hevcq.util.text import reason_of

_LOCAL = (
    "apfs bcachefs btrfs exfat ext2 ext3 ext4 f2fs fuseblk hfs hfsplus jfs ntfs ntfs3 overlay"
    " ramfs reiserfs tmpfs ufs vfat xfs zfs"
)
LOCAL = frozenset(_LOCAL.split())
"""File systems whose changes all pass this machine's kernel. Any other one is rescanned."""


class _Mounted(Protocol):
    @property
    def mountpoint(self) -> str: ...

    @property
    def fstype(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system of a folder, and whether its changes are reported."""

    kind: str

    @property
    def gives_events(self) -> bool:
        """Whether changes are reported; an unknown file system counts as one that does not."""
        return self.kind in LOCAL


def _system_mounts() -> Sequence[_Mounted]:
    with suppress(OSError, psutil.Error):
        return psutil.disk_partitions(all=True)
    return ()


def mount_of(folder: Path, mounts: Callable[[], Sequence[_Mounted]] = _system_mounts) -> Mount:
    """Return the mount that holds `folder`; of several at one place the last mounted one."""
    path = Path(os.path.realpath(folder))
    best, kind = -1, ""
    for each in mounts():
        place = Path(each.mountpoint)
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), each.fstype.lower()
    return Mount(kind)


QUIET_MS = 500
"""Milliseconds to collect changes before the flag is set: a copy makes thousands a second."""


class ChangeListener:
    """Set `flag` at each change below the roots, from a thread of its own.

    If the system cannot watch them (too many folders, a network share), `failed` is set, a warning is
    logged and the regular scan finds new files.
    """

    def __init__(self, roots: Sequence[Path], flag: threading.Event) -> None:
        self._roots, self._flag = roots, flag
        self._stop = threading.Event()
        self.failed = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from watchfiles import watch

        try:
            changes = watch(
                *self._roots,
                stop_event=self._stop,
                step=QUIET_MS,
                rust_timeout=1000,
                yield_on_timeout=False,
                raise_interrupt=False,
                watch_filter=None,
                ignore_permission_denied=True,
            )
            for _ in changes:
                self._flag.set()
        except (OSError, RuntimeError) as error:
            self.failed = True
            get_logger().warning("folders_not_watched", reason=reason_of(error))


def open_for_writing(paths: Collection[Path]) -> frozenset[Path]:
    """Return which of these files a process of this machine has open for writing.

    Only what this user may see is reported: a writer of another user, another container or another
    machine is not found, for which there is the time that a file must stay unchanged.
    """
    wanted = {os.path.realpath(path): path for path in paths}
    found = set[Path]()
    if not wanted:
        return frozenset()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for each in process.open_files():
                mode = getattr(each, "mode", "r")  # known on Linux alone
                if each.path in wanted and ("w" in mode or "a" in mode or "+" in mode):
                    found.add(wanted[each.path])
    return frozenset(found)
