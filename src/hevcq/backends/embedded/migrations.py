"""Create, check and migrate the database file."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hevcq.backends.embedded.errors import (
    REPORTED_AFTER_S,
    Patience,
    damaged,
    file_errors,
    translated,
)
from hevcq.errors import DatabaseTooNew
from hevcq.util import file_lock
from hevcq.util.file_io import replace_durably

APPLICATION_ID = 0x68657663
"""The file's mark, "hevc" (https://www.sqlite.org/pragma.html#pragma_application_id)."""
HEADER = b"SQLite format 3\0"
CHECKED_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked page by page when opened (about 0.1 s); larger ones on
`check`, and wherever a query meets damage."""
LOG_BYTES = 64 * 1024 * 1024

SCRIPTS: tuple[str, ...] = (
    "001_jobs.sql",
    "002_subjobs.sql",
    "003_suspected_faults.sql",
    "004_moved_files.sql",
    "005_hashed_files.sql",
    "006_encode_costs.sql",
    "007_job_counts.sql",
    "008_lived_time.sql",
    "009_interruptions.sql",
    "010_videos.sql",
    "011_sync.sql",
    "012_pauses.sql",
    "013_events.sql",
    "014_health.sql",
    "015_months.sql",
    "016_sync_put_back.sql",
    "017_video_events.sql",
    "018_given_up.sql",
    "019_notices.sql",
    "020_fewer_messages.sql",
    "021_accounts.sql",
)
"""Script n brings version n-1 to version n; a new file runs them all. A script is a file in
`sql/`, or SQL itself (anything with a space in it)."""


def connect(path: Path, busy_s: float) -> sqlite3.Connection:
    """Return a connection to an existing database, durable at every commit (synchronous FULL)."""
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
        raise translated(error, path) from error
    return connection


def prepare(path: Path, scripts: tuple[str, ...], patience: Patience) -> None:
    """Create the database, or check and migrate it; one process at a time.

    Raises DatabaseDamaged for anything that is not a sound hevcq database (it is never
    recreated), and DatabaseTooNew for one of a later hevcq.
    """
    with _alone(path, patience):
        if not path.exists():
            _create(path, scripts, patience.step_s)
            return
        _check_header(path)
        try:
            patience.run(lambda: _bring_up_to_date(path, scripts, patience.step_s))
        except sqlite3.Error as error:
            raise translated(error, path) from error


def _bring_up_to_date(path: Path, scripts: tuple[str, ...], busy_s: float) -> None:
    with closing(connect(path, busy_s)) as connection:
        _migrate(connection, _check_content(connection, path, scripts), scripts)


def check(path: Path) -> list[str]:
    """Check the whole database; return the problems found, none if it is intact."""
    _check_header(path)
    with closing(connect(path, 5.0)) as connection:
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
        except sqlite3.Error as error:
            return [str(error)]
    return [] if found == ["ok"] else found


@contextmanager
def _alone(path: Path, patience: Patience) -> Iterator[None]:
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


def _create(path: Path, scripts: tuple[str, ...], busy_s: float) -> None:
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
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _migrate(connection, 0, scripts)
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


def _check_content(connection: sqlite3.Connection, path: Path, scripts: tuple[str, ...]) -> int:
    mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if mark != APPLICATION_ID or version < 1:
        raise damaged(path, "it is not one that hevcq made")
    if version > len(scripts):
        raise DatabaseTooNew(
            f"The database {path} has version {version}; this hevcq knows up to {len(scripts)}.",
            remedy="Use the newer hevcq that wrote it.",
        )
    if path.stat().st_size <= CHECKED_BYTES:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        if found != "ok":
            raise damaged(path, " ".join(found.split()))
    return version


def _migrate(connection: sqlite3.Connection, version: int, scripts: tuple[str, ...]) -> None:
    for number, script in enumerate(scripts[version:], version + 1):
        sql = script if " " in script else _read(script)
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{sql}\n;PRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _read(name: str) -> str:
    return (Path(__file__).parent / "sql" / name).read_text(encoding="utf-8")
