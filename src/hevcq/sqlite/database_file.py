"""Create, open and check the database file."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hevcq.errors import UnknownSchema
from hevcq.sqlite.errors import (
    REPORTED_AFTER_S,
    LockPatience,
    damaged,
    file_errors,
    translated,
)
from hevcq.util import file_lock
from hevcq.util.file_io import replace_durably

APPLICATION_ID = 0x68657663
"""The file's mark, "hevc" (https://www.sqlite.org/pragma.html#pragma_application_id)."""
HEADER = b"SQLite format 3\0"
CHECKED_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked page by page when opened (about 0.1 s); larger ones
wherever a query meets damage."""
LOG_BYTES = 64 * 1024 * 1024

SCHEMA = Path(__file__).with_name("schema.sql")
VERSION = 24
"""The number of the tables in `schema.sql`; any change of them takes the next one. A database with
another number is refused."""


def connect(path: Path, busy_s: float) -> sqlite3.Connection:
    """Return a connection to an existing database, durable at every commit (synchronous FULL)."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=busy_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise translated(error, path) from error
    return connection


def prepare(path: Path, patience: LockPatience) -> None:
    """Create the database, or check it; one process at a time.

    Raises DatabaseDamaged for anything that is not a sound hevcq database (it is never
    recreated), and UnknownSchema for one whose tables are not those of this hevcq.
    """
    with _alone(path, patience):
        if not path.exists():
            _create(path, patience.step_s)
            return
        _check_header(path)
        try:
            patience.run(lambda: _check_content(path, patience.step_s))
        except sqlite3.Error as error:
            raise translated(error, path) from error


@contextmanager
def _alone(path: Path, patience: LockPatience) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    with file_errors("opened", lock):
        descriptor = file_lock.try_acquire(lock)
        if descriptor is None:
            reminder = threading.Timer(REPORTED_AFTER_S, patience.announce)
            reminder.daemon = True
            reminder.start()
            try:
                descriptor = file_lock.acquire(lock)
            finally:
                reminder.cancel()
    try:
        yield
    finally:
        os.close(descriptor)


def _create(path: Path, busy_s: float) -> None:
    """Build the file under a temporary name, so that a file under the final name is complete."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        raise damaged(path, f"it is missing, but its log {log.name} is there")
    new = path.with_name(f"{path.name}.new")
    for leftover in (new, path.with_name(f"{new.name}-wal"), path.with_name(f"{new.name}-shm")):
        leftover.unlink(missing_ok=True)
    with file_errors("created", new):
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect(new, busy_s)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{SCHEMA.read_text(encoding='utf-8')}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {VERSION};\nCOMMIT;"
            )
        except sqlite3.Error as error:
            raise translated(error, path) from error
    with file_errors("created", path):
        replace_durably(new, path)


def _check_header(path: Path) -> None:
    if not path.is_file():
        raise damaged(path, "it is not a file")
    with file_errors("read", path), path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise damaged(path, "its first bytes are not those of a database")


def _check_content(path: Path, busy_s: float) -> None:
    with closing(connect(path, busy_s)) as connection:
        mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if mark != APPLICATION_ID:
            raise damaged(path, "it is not one that hevcq made")
        if version != VERSION:
            raise UnknownSchema(
                f"The database {path} has schema {version}; this hevcq reads schema {VERSION} only.",
                remedy=(
                    "Use the hevcq that wrote it, or move the folder "
                    f"{path.parent} away to start with an empty queue; library files are untouched."
                ),
            )
        if path.stat().st_size <= CHECKED_BYTES:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if found != "ok":
                raise damaged(path, " ".join(found.split()))
