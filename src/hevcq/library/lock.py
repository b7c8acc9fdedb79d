"""Locks that die with their holder: one swap at a time on a root, one placement at a time of a job.

They are `flock` locks on files below `<root>/.hevcq`, so that two processes on one library, and two
threads of one process, see each other; the system drops them at any end, kill -9 included.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.errors import SwapRefused, Unavailable
from hevcq.library.names import own_folder
from hevcq.util import file_lock
from hevcq.util.atomic_file import fsync_folder
from hevcq.util.file_lock import LocksUnsupported
from hevcq.util.text import printable

BUSY = "busy"


@contextmanager
def root_lock(root: Path) -> Iterator[None]:
    """Hold the root's swap lock, waiting for whoever has it.

    Raises SwapRefused if the root cannot be written, or its file system has no locks.
    """
    folder = own_folder(root)
    try:
        folder.mkdir(exist_ok=True)
        descriptor = file_lock.acquire(folder / "lock")
    except LocksUnsupported as error:
        raise _no_locks(folder, error) from error
    except OSError as error:
        raise SwapRefused(
            f"Nothing in {printable(root)} can be replaced: {printable(folder)} cannot be written"
            f" ({error.strerror}).",
            remedy="Give this user rights there, or use --output.",
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def job_lock(root: Path, job_id: str, note: bytes) -> Iterator[Callable[[], None]]:
    """Hold the right to place one job below `root`; `note` is what a sweep needs after a kill.

    Yields the call that removes the file `<root>/.hevcq/busy/<job id>` with the note: for when
    there is nothing left to sweep. Raises Unavailable if another holder is alive.
    """
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
    """Take over the note of a dead holder (None if it lives or left none); ends its file after."""
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
    """Return the jobs with a note below `root`, whether their holders live or not.

    What is no plain file is no note of ours, and stays as it is.
    """
    folder = own_folder(root) / BUSY
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if entry.is_file(follow_symlinks=False))


def _sync_names(root: Path, path: Path) -> None:
    """Make the note's name durable before what it names, so that no power cut leaves that alone."""
    for folder in (path.parent, path.parent.parent, root):
        fsync_folder(folder)


def _own(path: Path) -> int | None:
    """Open and lock the file at `path`; None if somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return file_lock.try_acquire(path)
    except LocksUnsupported as error:
        raise _no_locks(path, error) from error


def _no_locks(path: Path, error: OSError) -> SwapRefused:
    return SwapRefused(
        f"The file system of {printable(path)} has no locks ({error.strerror}), so two hevcq"
        " could work on one file.",
        remedy="Mount it with locks, or use --output.",
    )
