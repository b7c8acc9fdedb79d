"""Read and write one SQLite file.

Writers of one process wait for each other; between processes SQLite's own lock decides
(`BEGIN IMMEDIATE`, with a busy timeout).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hevcq.errors import StorageError
from hevcq.sqlite.database_file import connect, prepare
from hevcq.sqlite.errors import LockPatience, log_notice, translated

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Values = Sequence[Any] | Mapping[str, Any]

DATABASE = "hevcq.db"
"""The file name of the database in a data folder."""
BUSY_S = 30.0


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
        notice: Callable[[str], None] = log_notice,
    ) -> None:
        self.path = path
        self._patience = LockPatience(path, busy_s, notice)
        self._reading = LockPatience(
            path, busy_s, notice
        )  # a read succeeds while writes are locked
        prepare(path, self._patience)
        self._writer_lock = threading.Lock()
        self._readers_lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self._durable = True
        self._writer = connect(path, self._patience.step_s)

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
                self._patience.run(lambda: self._writer.execute("BEGIN IMMEDIATE"))
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
                connection = connect(self.path, self._reading.step_s)
                connection.execute("PRAGMA query_only = ON")
            reader = connection
            return self._reading.run(lambda: work(reader))
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
