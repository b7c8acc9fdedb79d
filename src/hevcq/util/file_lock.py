"""Lock files with flock, which the kernel releases when the process ends, even by kill -9.

Only this module calls flock. Two opens of one file exclude each other even within one process. A
lock file may be removed while others wait for it, so after locking, the name must be checked to
still lead to the locked file. A lock is an open file descriptor: closing it releases the lock.
"""

import errno
import fcntl
import os
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
"""Open flags. A symbolic link at the path, as from an unpacked archive, is not followed."""
_MODE = 0o600
SHARE_TRIES = 5
"""Attempts to share a lock with a process that takes it at the same moment."""


class LocksUnsupported(OSError):
    """The file system does not support locks (ENOLCK, EOPNOTSUPP or another error of flock)."""


def acquire(path: Path) -> int:
    """Lock the file at `path`, creating it if needed; wait while another process holds the lock.

    Raises LocksUnsupported, and OSError if the file cannot be opened or is a symbolic link.
    """
    while True:
        descriptor = os.open(path, _FLAGS | os.O_CREAT, _MODE)
        if _locked_in_place(descriptor, path, wait=True):
            return descriptor


def try_acquire(path: Path, *, new: bool = False) -> int | None:
    """Lock the file at `path`, creating it if needed; return None if the lock is already held.

    Raises FileExistsError if `new` and the file exists, and the errors of `acquire`.
    """
    flags = _FLAGS | os.O_CREAT | (os.O_EXCL if new else 0)
    while True:
        descriptor = os.open(path, flags, _MODE)
        in_place = _locked_in_place(descriptor, path, wait=False)
        if in_place is None:
            return None
        if in_place:
            return descriptor


def unshare(descriptor: int, path: Path) -> None:
    """Let a shared lock go; the last holder removes its file."""
    try:
        if _flock(descriptor, path, wait=False) and _is_at(descriptor, path):
            path.unlink(missing_ok=True)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def share(path: Path, holder: bytes) -> int | None:
    """Lock the file at `path` together with every process that names the same `holder`.

    Return None if another holder has it; `path` then holds its name. Raises the errors of `acquire`.
    """
    for _ in range(SHARE_TRIES):
        descriptor = os.open(path, _FLAGS | os.O_CREAT, _MODE)
        shared = False
        try:
            first = _flock(descriptor, path, wait=False)
            if first:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder, 0)
            # Exclusive locks last for the write above only, so this wait is short; from exclusive to
            # shared the lock may be lost for a moment, so the name is read under the shared one.
            _flock(descriptor, path, wait=True, shared=True)
            same = os.pread(descriptor, len(holder) + 1, 0) == holder
            shared = same and _is_at(descriptor, path)
            if not same and not first:
                return None
        finally:
            if not shared:
                os.close(descriptor)
        if shared:
            return descriptor
    return None


def take_over(path: Path) -> int | None:
    """Lock the file that a dead process left at `path`.

    Return None if the lock is held, or if the file is gone, is a symbolic link, or was replaced
    between opening and locking, since then another process is active there.
    Raises the errors of `acquire`.
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
    """Return whether the lock of an existing file is held.

    Raises FileNotFoundError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A shared lock: two concurrent checks must not mistake each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _locked_in_place(descriptor: int, path: Path, *, wait: bool) -> bool | None:
    """Lock an open file; return whether `path` still leads to it, or None if the lock is held.

    Closes the descriptor unless it returns True.
    """
    in_place: bool | None = False
    try:
        in_place = _is_at(descriptor, path) if _flock(descriptor, path, wait=wait) else None
    finally:
        if not in_place:
            os.close(descriptor)
    return in_place


def _flock(descriptor: int, path: Path, *, wait: bool, shared: bool = False) -> bool:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise LocksUnsupported(error.errno, error.strerror, str(path)) from error
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether `path` leads to the open file.

    The last holder may have removed the name between our open and our lock. Such a lock protects
    nothing, because no other process will open that file again.
    """
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
