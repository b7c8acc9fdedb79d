"""Lock a library root during a swap, and a job during its placement.

The locks are `flock` locks on files below `<root>/.hevcq`. They exclude two processes on one library
and two threads of one process; the kernel drops them when the holder dies, even by kill -9.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.errors import SwapRefused, Unavailable
from hevcq.library.names import RECORDS, own_folder
from hevcq.util import file_lock
from hevcq.util.atomic_file import fsync_folder
from hevcq.util.file_lock import LocksUnsupported
from hevcq.util.text import printable

BUSY = "busy"


def require_own_folders(root: Path) -> None:
    """Raise SwapRefused if `<root>/.hevcq`, or a folder of records in it, is a symbolic link.

    A library may come with a download: whoever made the link would choose what is written where.
    """
    own = own_folder(root)
    for path in (own, *(own / name for name in RECORDS)):
        if path.is_symlink():
            raise SwapRefused(
                f"{printable(path)} is a symbolic link; hevcq keeps its records only in folders of the"
                " library itself.",
                remedy="Remove the link, or put the folder itself in its place.",
            )


@contextmanager
def root_lock(root: Path) -> Iterator[None]:
    """Hold the swap lock of a root; wait while another holder has it.

    Raises SwapRefused if the root cannot be written, its file system has no locks, or its own
    folders are links.
    """
    require_own_folders(root)
    folder = own_folder(root)
    try:
        folder.mkdir(exist_ok=True)
        descriptor = file_lock.acquire(folder / "lock")
    except LocksUnsupported as error:
        raise _no_locks(folder, error) from error
    except OSError as error:
        raise SwapRefused(
            f"Files in {printable(root)} cannot be replaced: {printable(folder)} cannot be written"
            f" ({error.strerror}).",
            remedy="Give this user write permission there, or use --output.",
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def job_lock(root: Path, job_id: str, note: bytes) -> Iterator[Callable[[], None]]:
    """Hold the placement lock of one job below `root`; `note` tells a later sweep what to remove.

    Yield a function that removes the lock file `<root>/.hevcq/busy/<job id>` with the note; call it
    when nothing is left to sweep. Raises Unavailable if another holder is alive, SwapRefused if
    the file system has no locks or the root's own folders are links.
    """
    require_own_folders(root)
    path = own_folder(root) / BUSY / job_id
    descriptor = _own(path)
    if descriptor is None:
        raise Unavailable(f"Waiting: another hevcq is writing to the library {printable(root)}.")
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, note)
        os.fsync(descriptor)
        _sync_names(root, path)
        yield functools.partial(path.unlink, missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def stale_job_lock(root: Path, job_id: str) -> Iterator[bytes | None]:
    """Take over a dead holder's lock and yield its note; remove the lock file afterwards.

    Yield None if the holder is alive or left no note.
    """
    path = own_folder(root) / BUSY / job_id
    descriptor = _own(path) if path.exists() else None
    if descriptor is None:
        yield None
        return
    try:
        yield os.pread(descriptor, 1 << 16, 0)
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def noted_jobs(root: Path) -> list[str]:
    """Return the ids of jobs with a lock file below `root`, whether or not the holder is alive.

    Anything but a regular file is not ours and is ignored.
    """
    folder = own_folder(root) / BUSY
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if entry.is_file(follow_symlinks=False))


def _sync_names(root: Path, path: Path) -> None:
    """Make the note's name durable before the files it lists, or a power cut could orphan them."""
    for folder in (path.parent, path.parent.parent, root):
        fsync_folder(folder)


def _own(path: Path) -> int | None:
    """Open and lock the file at `path`; return None if another holder has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return file_lock.try_acquire(path)
    except LocksUnsupported as error:
        raise _no_locks(path, error) from error


def _no_locks(path: Path, error: OSError) -> SwapRefused:
    return SwapRefused(
        f"The file system of {printable(path)} does not support locks ({error.strerror}), so two"
        " hevcq processes could work on one file.",
        remedy="Mount it with lock support, or use --output.",
    )
