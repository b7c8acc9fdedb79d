"""Translate the errors of SQLite and the file system into hevcq's own; wait for locks."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hevcq.errors import (
    FULL,
    DatabaseBusy,
    DatabaseDamaged,
    DiskFull,
    HevcqError,
    StorageError,
    Unavailable,
)
from hevcq.util.log import get_logger
from hevcq.util.text import printable

T = TypeVar("T")
REPORTED_AFTER_S = 1.5
"""Seconds of waiting for another process's lock after which the wait is reported."""
MIN_ROOM = 128 * 1024
"""Bytes: a write-ahead log and its index grow by less at a time."""
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def damaged(path: Path, what: str) -> DatabaseDamaged:
    """Return the error for a damaged database, with its remedy."""
    return DatabaseDamaged(
        f"The database {path} is damaged: {what}.",
        remedy=(
            "Nothing was changed. Restore it from a backup, or repair a copy of it with "
            "`sqlite3 <file> .recover`, or move the whole folder "
            f"{path.parent} away to start with an empty queue; library files are untouched."
        ),
    )


def translated(error: sqlite3.Error, path: Path) -> HevcqError:
    """Return hevcq's error for one of SQLite's (https://www.sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    match code:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseBusy(
                f"The database {path} stayed locked by another process for too long.",
                remedy="Look for a stopped or hanging hevcq process, then try again.",
            )
        case code if code == sqlite3.SQLITE_FULL or (
            code == sqlite3.SQLITE_IOERR and _is_full(path.parent)
        ):
            return DiskFull(
                f"The disk of {path} is full; nothing was recorded.", remedy="Free some space."
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StorageError(
                f"The database {path} cannot be opened for writing: {error}.",
                remedy=f"Check the rights of {path.parent} and what is in it.",
            )
        case sqlite3.SQLITE_IOERR:
            return StorageError(
                f"The disk failed under the database {path}: {error}.",
                remedy="Check the disk and its free space.",
            )
        case _:
            return StorageError(f"The database {path} cannot be used: {error}.")


def _is_full(folder: Path) -> bool:
    """Return whether a disk has no room left: then SQLite fails to enlarge what it maps (IOERR)."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < MIN_ROOM


@contextmanager
def file_errors(what: str, path: Path) -> Iterator[None]:
    """Translate OSError inside the block; `what` ends the sentence "… cannot be <what>"."""
    try:
        yield
    except OSError as error:
        raise file_error(error, what, path) from error


def file_error(error: OSError, what: str, path: Path) -> HevcqError:
    """Return hevcq's error for a failed step on a file of the data folder or a target."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        why = "it, or a folder above it, is a file"
    sentence = f"{printable(path)} cannot be {what}: {why}."
    if error.errno in FULL | {errno.EFBIG}:
        return DiskFull(sentence, remedy="Free some space.")
    if error.errno in DENIED:
        return StorageError(sentence, remedy="Check the rights of the folder.")
    return Unavailable(sentence)


def log_notice(words: str) -> None:
    """Log what a step waits for; a command prints it instead."""
    get_logger().warning("database_locked", reason=words)


def patiently(step: Callable[[], T], path: Path, busy_s: float, notice: Callable[[str], None]) -> T:
    """Return the result of `step`, repeated for `busy_s` seconds while it meets another process's lock.

    Each try waits REPORTED_AFTER_S by itself; after the first one the wait is reported. Raises
    sqlite3.Error.
    """
    left = max(1, round(busy_s / REPORTED_AFTER_S))
    reported = False
    while True:
        try:
            return step()
        except sqlite3.Error as error:
            left -= 1
            if left == 0 or getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        if not reported:
            notice(waiting(path))
            reported = True


def waiting(path: Path) -> str:
    """Say what this process waits for."""
    return f"Waiting: another program has locked the database {path}."
