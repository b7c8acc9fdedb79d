"""Create, check, read and write one SQLite file.

Writers of one process wait for a thread lock; writers of several processes wait for SQLite's own lock
(`BEGIN IMMEDIATE`, with a busy timeout).
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hevcq.errors import DatabaseBusy, DiskFull, HevcqError, StorageError, file_errors
from hevcq.sql.database import SCHEMA, SCHEMA_VERSION, Database, T, Work
from hevcq.util import file_lock
from hevcq.util.file_io import replace_durably
from hevcq.util.log import get_logger

DATABASE = "hevcq.db"
"""The file name of the database in a data folder."""
MAX_LOCK_WAIT_S = 30.0
REPORT_WAIT_AFTER_S = 1.5
"""Seconds of waiting for another process's lock after which the wait is reported."""
MIN_FREE_BYTES = 128 * 1024
"""A disk with less free space counts as full: a write-ahead log and its index grow by less at a time."""
APPLICATION_ID = 0x68657663
"""The file's mark, "hevc" (https://www.sqlite.org/pragma.html#pragma_application_id)."""
HEADER = b"SQLite format 3\0"
MAX_CHECKED_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked page by page when opened (about 0.1 s). Damage in a larger file shows
when a query meets it."""
MAX_LOG_BYTES = 64 * 1024 * 1024
TRIGGERS = Path(__file__).with_name("sqlite.sql")


class SqliteDatabase(Database):
    """A database file in WAL mode. `lock_wait_s` limits the wait for another process's lock, in seconds."""

    def __init__(self, path: Path, *, lock_wait_s: float = MAX_LOCK_WAIT_S) -> None:
        self.path, self.where, self._lock_wait_s = path, str(path), lock_wait_s
        prepare(path, lock_wait_s)
        self._writer_lock = threading.Lock()
        self._readers_lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self._durable = True
        self._writer = connect(path, lock_wait_s)

    def write(self, work: Work[T], *, durable: bool = True, exclusive: bool = True) -> T:  # noqa: ARG002
        """Run `work` exclusively, as every write is; without an fsync unless `durable`."""
        with self._writer_lock:
            self._refuse_if_closed()
            try:
                if durable != self._durable:
                    self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                self._retry(lambda: self._writer.execute("BEGIN IMMEDIATE"))
                result = work(self._writer)
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise translate_error(error, self.path) from error
            except BaseException:
                self._roll_back()  # does nothing if the interrupt came after the commit
                raise
        return result

    def read(self, work: Work[T]) -> T:
        with self._readers_lock:
            self._refuse_if_closed()
            connection = self._readers.pop() if self._readers else None
        try:
            if connection is None:
                connection = connect(self.path, self._lock_wait_s)
                connection.execute("PRAGMA query_only = ON")
            reader = connection
            return self._retry(lambda: work(reader))
        except sqlite3.Error as error:
            raise translate_error(error, self.path) from error
        finally:
            if connection is not None:
                self._return_reader(connection)

    def close(self) -> None:
        """Close every connection; the last process to close moves the log into the file."""
        with self._writer_lock, self._readers_lock:
            self._closed = True
            for connection in (*self._readers, self._writer):
                connection.close()
            self._readers.clear()

    def _retry(self, step: Callable[[], T]) -> T:
        return retry_while_locked(step, self.path, self._lock_wait_s)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StorageError(f"The database {self.path} is closed already.")

    def _return_reader(self, connection: sqlite3.Connection) -> None:
        with self._readers_lock:
            if self._closed:
                connection.close()
            else:
                self._readers.append(connection)

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")


def connect(path: Path, lock_wait_s: float) -> sqlite3.Connection:
    """Return a connection to an existing database, durable at every commit (synchronous FULL)."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=min(lock_wait_s, REPORT_WAIT_AFTER_S),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise translate_error(error, path) from error
    return connection


def prepare(path: Path, lock_wait_s: float) -> None:
    """Create the database, or check the existing one; one process at a time.

    Raises StorageError if the file is not a sound hevcq database of this version; it is never replaced.
    """
    with _opening_lock(path):
        if not path.exists():
            _create(path, lock_wait_s)
            return
        _check_header(path)
        try:
            retry_while_locked(lambda: _check_content(path, lock_wait_s), path, lock_wait_s)
        except sqlite3.Error as error:
            raise translate_error(error, path) from error


@contextmanager
def _opening_lock(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    with file_errors("opened", lock):
        descriptor = file_lock.try_acquire(lock)
        if descriptor is None:
            reminder = threading.Timer(REPORT_WAIT_AFTER_S, _report_wait, [path])
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


def _create(path: Path, lock_wait_s: float) -> None:
    """Build the file under a temporary name, so that a file under the final name is complete."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        raise database_damage(path, f"it is missing, but its log {log.name} is there")
    new = path.with_name(f"{path.name}.new")
    for leftover in (new, path.with_name(f"{new.name}-wal"), path.with_name(f"{new.name}-shm")):
        leftover.unlink(missing_ok=True)
    with file_errors("created", new):
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect(new, lock_wait_s)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{SCHEMA.read_text(encoding='utf-8')}\n"
                f"{TRIGGERS.read_text(encoding='utf-8')}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
            )
        except sqlite3.Error as error:
            raise translate_error(error, path) from error
    with file_errors("created", path):
        replace_durably(new, path)


def _check_header(path: Path) -> None:
    """Raise StorageError if the file is no database, before SQLite opens it.

    SQLite would delete the write-ahead log beside an empty file.
    """
    if not path.is_file():
        raise database_damage(path, "it is not a file")
    with file_errors("read", path), path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise database_damage(path, "its first bytes are not those of a database")


def _check_content(path: Path, lock_wait_s: float) -> None:
    with closing(connect(path, lock_wait_s)) as connection:
        mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if mark != APPLICATION_ID:
            raise database_damage(path, "it is not one that hevcq made")
        if version != SCHEMA_VERSION:
            raise StorageError(
                f"The database {path} has schema {version}; this hevcq reads schema {SCHEMA_VERSION} only.",
                remedy=(
                    "Use the hevcq that wrote it, or move the folder "
                    f"{path.parent} away to start with an empty queue; library files are untouched."
                ),
            )
        if path.stat().st_size <= MAX_CHECKED_BYTES:
            report = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if report != "ok":
                raise database_damage(path, " ".join(report.split()))


def database_damage(path: Path, what: str) -> StorageError:
    """Return the error for a damaged database, with its remedy."""
    return StorageError(
        f"The database {path} is damaged: {what}.",
        remedy=(
            "Nothing was changed. Restore it from a backup, or repair a copy of it with "
            "`sqlite3 <file> .recover`, or move the whole folder "
            f"{path.parent} away to start with an empty queue; library files are untouched."
        ),
    )


def translate_error(error: sqlite3.Error, path: Path) -> HevcqError:
    """Return hevcq's error for one of SQLite's (https://www.sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    match code:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return database_damage(path, str(error))
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
    """Return whether the disk has no space left: SQLite reports IOERR when it cannot enlarge a mapped file."""
    try:
        facts = os.statvfs(folder)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize < MIN_FREE_BYTES


def _report_wait(path: Path) -> None:
    words = f"Waiting: another program has locked the database {path}."
    get_logger().warning("database_locked", reason=words)


def retry_while_locked(step: Callable[[], T], path: Path, lock_wait_s: float) -> T:
    """Run `step`, again for `lock_wait_s` seconds while another process holds the lock; return its result.

    Each try waits REPORT_WAIT_AFTER_S within SQLite; after the first try the wait is reported. Raises
    sqlite3.Error.
    """
    left = max(1, round(lock_wait_s / REPORT_WAIT_AFTER_S))
    reported = False
    while True:
        try:
            return step()
        except sqlite3.Error as error:
            left -= 1
            if left == 0 or getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        if not reported:
            _report_wait(path)
            reported = True
