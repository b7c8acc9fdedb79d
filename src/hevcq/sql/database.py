"""Create, check, read and write one SQLite file.

Writers of one process wait for each other; between processes SQLite's own lock decides
(`BEGIN IMMEDIATE`, with a busy timeout).
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hevcq.errors import StorageError, UnknownSchema
from hevcq.sql.errors import (
    REPORTED_AFTER_S,
    damaged,
    file_errors,
    log_notice,
    patiently,
    translated,
    waiting,
)
from hevcq.util import file_lock
from hevcq.util.file_io import replace_durably

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Values = Sequence[Any] | Mapping[str, Any]

DATABASE = "hevcq.db"
"""The file name of the database in a data folder."""
BUSY_S = 30.0
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


class Database:
    """A database file in WAL mode. Safe to use from any thread; `close` may be called twice.

    Raises DatabaseDamaged, UnknownSchema, DatabaseBusy, DiskFull or StorageError from every
    method; `busy_s` is the longest wait for another process's lock, in seconds, and `notice`
    gets the sentence of a wait that takes longer than a moment.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_s: float = BUSY_S,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.path = path
        self._busy_s, self._notice = busy_s, notice or log_notice
        prepare(path, busy_s, self._notice)
        self._writer_lock = threading.Lock()
        self._readers_lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self._durable = True
        self._writer = connect(path, busy_s)

    def write(self, work: Work[T], *, durable: bool = True) -> T:
        """Run `work` in a write transaction; its changes are committed when this returns.

        With `durable` false the record survives a kill of every process but not a power cut
        (no fsync), until the next durable write, which carries everything before it. Whatever
        `work` raises undoes its changes. `work` must not call `write` itself.
        """
        with self._writer_lock:
            self._refuse_if_closed()
            try:
                self._set_durability(durable=durable)
                self._patiently(lambda: self._writer.execute("BEGIN IMMEDIATE"))
                result = work(self._writer)
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise translated(error, self.path) from error
            except BaseException:
                self._roll_back()  # nothing, where the interrupt came after the commit
                raise
        return result

    def read(self, work: Work[T]) -> T:
        """Run `work` on a read-only connection; it never waits for a writer."""
        with self._readers_lock:
            self._refuse_if_closed()
            connection = self._readers.pop() if self._readers else None
        try:
            if connection is None:
                connection = connect(self.path, self._busy_s)
                connection.execute("PRAGMA query_only = ON")
            reader = connection
            return self._patiently(lambda: work(reader))
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        finally:
            if connection is not None:
                self._give_back(connection)

    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one reading statement."""
        return self.read(lambda connection: connection.execute(sql, values).fetchall())

    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """Return the first row of one reading statement, or None."""
        found: tuple[Any, ...] | None = self.read(lambda c: c.execute(sql, values).fetchone())
        return found

    def change(self, sql: str, values: Values = (), *, durable: bool = True) -> int:
        """Run one writing statement; return the number of changed rows."""
        return self.write(lambda c: c.execute(sql, values).rowcount, durable=durable)

    def close(self) -> None:
        """Close every connection; the last process to do so folds the log into the file."""
        with self._writer_lock, self._readers_lock:
            self._closed = True
            for connection in (*self._readers, self._writer):
                connection.close()
            self._readers.clear()

    def _patiently(self, step: Callable[[], T]) -> T:
        return patiently(step, self.path, self._busy_s, self._notice)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StorageError(f"The database {self.path} is closed already.")

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._readers_lock:
            if self._closed:
                connection.close()
            else:
                self._readers.append(connection)

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _set_durability(self, *, durable: bool) -> None:
        if durable != self._durable:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable


def connect(path: Path, busy_s: float) -> sqlite3.Connection:
    """Return a connection to an existing database, durable at every commit (synchronous FULL)."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=min(busy_s, REPORTED_AFTER_S),
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


def prepare(path: Path, busy_s: float, notice: Callable[[str], None]) -> None:
    """Create the database, or check it; one process at a time.

    Raises DatabaseDamaged for anything that is not a sound hevcq database (it is never
    recreated), and UnknownSchema for one whose tables are not those of this hevcq.
    """
    with _alone(path, notice):
        if not path.exists():
            _create(path, busy_s)
            return
        _check_header(path)
        try:
            patiently(lambda: _check_content(path, busy_s), path, busy_s, notice)
        except sqlite3.Error as error:
            raise translated(error, path) from error


@contextmanager
def _alone(path: Path, notice: Callable[[str], None]) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    with file_errors("opened", lock):
        descriptor = file_lock.try_acquire(lock)
        if descriptor is None:
            reminder = threading.Timer(REPORTED_AFTER_S, notice, [waiting(path)])
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


def flat(record: Any) -> Iterator[Any]:
    """Yield the fields of a dataclass, and of those in it, as values of a row; paths as raw bytes."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            yield from flat(value)
        else:
            yield os.fsencode(value) if isinstance(value, Path) else value
