"""Locks on files that die with their holder: the only module that calls flock.

The kernel drops such a lock at any end of its process, kill -9 included, and two opens of one file
exclude each other even inside one process. A lock file may be removed while others wait for it, so
whoever gets a lock must check that the file's name still leads to the file it locked.

A lock is the descriptor of its open file: closing the descriptor releases it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
"""A link in a lock's place, which an unpacked archive may bring, is not followed."""
_MODE = 0o600


class LocksUnsupported(OSError):
    """The file system has no locks (ENOLCK, EOPNOTSUPP, or what else it answers)."""


def acquire(path: Path) -> int:
    """Lock the file at `path`, made if it is missing, waiting for whoever holds it.

    Raises OSError if the file cannot be opened or is a link, LocksUnsupported.
    """
    while True:
        descriptor = os.open(path, _FLAGS | os.O_CREAT, _MODE)
        if _locked_in_place(descriptor, path, wait=True):
            return descriptor


def try_acquire(path: Path, *, new: bool = False) -> int | None:
    """Lock the file at `path`, made if it is missing; return None if another holds it.

    `new` raises FileExistsError where the file is there already. Raises OSError as `acquire` does.
    """
    flags = _FLAGS | os.O_CREAT | (os.O_EXCL if new else 0)
    while True:
        descriptor = os.open(path, flags, _MODE)
        in_place = _locked_in_place(descriptor, path, wait=False)
        if in_place is None:
            return None
        if in_place:
            return descriptor


def take_over(path: Path) -> int | None:
    """Lock the file that a dead process left at `path`.

    Return None if another holds it, or if it is gone, is a link, or was replaced between opening
    and locking: then somebody is at work there. Raises OSError as `acquire` does.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    return descriptor if _locked_in_place(descriptor, path, wait=False) else None


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of an existing file; raises FileNotFoundError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared, so that two who look at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _locked_in_place(descriptor: int, path: Path, *, wait: bool) -> bool | None:
    """Lock an open file; None if another holds it, False if `path` no longer leads to it.

    The descriptor is closed unless this returns True.
    """
    in_place: bool | None = False
    try:
        in_place = _is_at(descriptor, path) if _flock(descriptor, path, wait=wait) else None
    finally:
        if not in_place:
            os.close(descriptor)
    return in_place


def _flock(descriptor: int, path: Path, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise LocksUnsupported(error.errno, error.strerror, str(path)) from error
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether `path` leads to the open file.

    Its last holder may have removed the name between our open and our lock: then the lock is on a
    file that nobody else will ever open, and guards nothing.
    """
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
