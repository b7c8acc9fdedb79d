"""Which folders are watched by events, and which have to be looked through."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hevcq.library.scanning.watch_folder import Mount, mount_of


@dataclass(frozen=True)
class Mounted:
    mountpoint: str
    fstype: str


def table() -> Sequence[Mounted]:
    return [
        Mounted("/", "ext4"),
        Mounted("/mnt/nas", "nfs4"),
        Mounted("/mnt/nas/fast", "XFS"),
        Mounted("/mnt/pool", "ext4"),
        Mounted("/mnt/pool", "fuse.mergerfs"),
    ]


@pytest.mark.parametrize(
    ("folder", "kind", "events"),
    [
        ("/srv/tv", "ext4", True),
        ("/mnt/nas", "nfs4", False),
        ("/mnt/nas/tv", "nfs4", False),
        ("/mnt/nas2/tv", "ext4", True),
        ("/mnt/nas/fast/tv", "xfs", True),
        ("/mnt/pool/tv", "fuse.mergerfs", False),
    ],
)
def test_the_innermost_and_last_mount_decides(folder: str, kind: str, *, events: bool) -> None:
    found = mount_of(Path(folder), table)

    assert (found.kind, found.gives_events) == (kind, events)


@pytest.mark.parametrize("kind", ["cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "new-one", ""])
def test_what_is_not_known_to_report_changes_is_looked_through(kind: str) -> None:
    assert not Mount(kind).gives_events
