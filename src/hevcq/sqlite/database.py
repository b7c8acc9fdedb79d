"""Read and write one SQLite file, with group commit.

Writers of one process queue up; the one that gets the lock runs the work of all waiting writers in
one transaction, each in its own savepoint, and one fsync makes them all durable.
Between processes SQLite's own lock decides (`BEGIN IMMEDIATE`, with a busy timeout).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from hevcq.errors import StorageError
from hevcq.sqlite.database_file import connect, prepare
from hevcq.sqlite.errors import LockPatience, log_notice, translated

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Values = Sequence[Any] | Mapping[str, Any]

DATABASE = "hevcq.db"
"""The file name of the database in a data folder."""
BUSY_S = 30.0


class _Ticket(Generic[T]):
    """Work that waits for the next transaction, and its result."""

    __slots__ = ("done", "durable", "error", "result", "work")

    def __init__(self, work: Work[T], *, durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.done = False
        self.result: T
        self.error: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        self.result = self.work(connection)


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
        self._waiting: deque[_Ticket[Any]] = deque()
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
        `work` raises undoes its own changes only. `work` must not call `write` itself.
        """
        ticket = _Ticket(work, durable=durable)
        self._waiting.append(ticket)
        with self._writer_lock:
            if not ticket.done:
                self._commit_waiting(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

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

    def _commit_waiting(self, own: _Ticket[Any]) -> None:
        batch: list[_Ticket[Any]] = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        begun = False
        try:
            self._refuse_if_closed()
            self._set_durability(durable=any(ticket.durable for ticket in batch))
            self._patience.run(lambda: self._writer.execute("BEGIN IMMEDIATE"))
            begun = True
            self._run(batch)
            self._writer.execute("COMMIT")
        except (sqlite3.Error, StorageError) as error:
            self._roll_back()
            known = translated(error, self.path) if isinstance(error, sqlite3.Error) else error
            known.__cause__ = error if known is not error else None
            for ticket in batch:
                ticket.error = ticket.error or known
        except BaseException:
            # An interrupt in this thread is no concern of the others: unless the commit went
            # through, their work goes back to the front of the line.
            if not begun or self._writer.in_transaction:
                self._roll_back()
                self._requeue_others(batch, own)
                batch = [own]
            raise
        finally:
            for ticket in batch:
                ticket.done = True

    def _requeue_others(self, batch: list[_Ticket[Any]], own: _Ticket[Any]) -> None:
        others = [ticket for ticket in batch if ticket is not own]
        for ticket in others:
            ticket.error = None
        self._waiting.extendleft(reversed(others))

    def _run(self, batch: list[_Ticket[Any]]) -> None:
        alone = len(batch) == 1
        for ticket in batch:
            if not alone:
                self._writer.execute("SAVEPOINT work")
            try:
                ticket.run(self._writer)
            except Exception as error:
                if not self._writer.in_transaction:
                    raise  # SQLite gave the whole transaction up, as it does on a full disk
                ticket.error = self._translated(error)
                self._writer.execute("ROLLBACK" if alone else "ROLLBACK TO work")
                if alone:
                    self._writer.execute("BEGIN")
            if not alone:
                self._writer.execute("RELEASE work")

    def _translated(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        known = translated(error, self.path)
        known.__cause__ = error
        return known

    def _roll_back(self) -> None:
        if not self._closed and self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _set_durability(self, *, durable: bool) -> None:
        if durable != self._durable:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
