"""Translate the errors of SQLite and the file system into hevcq's own."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.errors import (
    DatabaseBusy,
    DatabaseDamaged,
    DiskFull,
    HevcqError,
    SourceGone,
    SourceUnreadable,
    StorageError,
    Unavailable,
)
from hevcq.util.text import printable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})


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
        case sqlite3.SQLITE_FULL:
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
    if error.errno in FULL:
        return DiskFull(sentence, remedy="Free some space.")
    if error.errno in DENIED:
        return StorageError(sentence, remedy="Check the rights of the folder.")
    return Unavailable(sentence)


def source_error(error: OSError, path: Path) -> HevcqError:
    """Return hevcq's error for a source file that could not be opened."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in MISSING:
        return SourceGone(f"The source {printable(path)} no longer exists.")
    if error.errno in DENIED or error.errno in {errno.ELOOP, errno.ENAMETOOLONG}:
        return SourceUnreadable(f"The source {printable(path)} cannot be read: {why}.")
    return Unavailable(f"The source {printable(path)} cannot be reached: {why}.")
