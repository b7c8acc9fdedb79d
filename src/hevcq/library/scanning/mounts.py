"""Tell whether the system reports changes below a folder, by the file system that it is on.

Changes that another machine makes on a network share are never reported here, and neither are
those behind a union or a virtual machine's shared folder, though watching them does not fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

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
