"""Locks that all machines of a PostgreSQL database share, each held by a connection of its own.

The server lets a lock go when its connection ends: at once after kill -9, and within half a minute where
a machine or its network went. So a holder asks its connection before each step that the lock guards.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from hevcq.errors import HevcqError, Unavailable
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_bytes

ASK_EVERY_S = 0.1
"""Seconds between the tries of one who waits; a wait within the server would end at its time limit."""
MAX_IDLE = 2
"""Connections that are kept for the next locks."""
Open = Callable[[], psycopg.Connection[Any]]


class PostgresLocks:
    """Named locks of one schema. Thread-safe: two threads exclude each other as two machines do."""

    def __init__(self, connect: Open, schema: str, clock: Clock) -> None:
        self._connect, self._schema, self._clock = connect, schema, clock
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, name: str, busy: HevcqError | None) -> Iterator[Callable[[], None]]:
        """Hold the lock `name`; see `database.Database.lock`."""
        number = _number(self._schema, name)
        raw = self._take(number, busy)

        def require() -> None:
            try:
                raw.execute("SELECT 1")
            except psycopg.Error as error:
                raise Unavailable(
                    "The connection to the database was lost while files were being changed; nothing"
                    " more was changed.",
                    remedy="The next hevcq that looks at this library finishes it or rolls it back.",
                ) from error

        try:
            yield require
        finally:
            self._let_go(raw, number)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for raw in idle:
            raw.close()

    def _take(self, number: int, busy: HevcqError | None) -> psycopg.Connection[Any]:
        """Return a connection that holds the lock."""
        while True:
            raw = self._open()
            try:
                while not self._try(raw, number):
                    if busy is not None:
                        raise busy
                    self._clock.wait(threading.Event(), ASK_EVERY_S)
            except psycopg.Error:
                raw.close()  # a new connection is waited for, and asked anew
            except BaseException:
                raw.close()
                raise
            else:
                return raw

    def _open(self) -> psycopg.Connection[Any]:
        with self._lock:
            raw = self._idle.pop() if self._idle else None
        return raw if raw is not None else self._connect()

    @staticmethod
    def _try(raw: psycopg.Connection[Any], number: int) -> bool:
        row = raw.execute(f"SELECT pg_try_advisory_lock({number})".encode()).fetchone()
        return row is not None and bool(row[0])

    def _let_go(self, raw: psycopg.Connection[Any], number: int) -> None:
        free = False
        with suppress(psycopg.Error):
            row = raw.execute(f"SELECT pg_advisory_unlock({number})".encode()).fetchone()
            free = row is not None and bool(row[0])
        with self._lock:
            if free and len(self._idle) < MAX_IDLE:
                self._idle.append(raw)
                return
        raw.close()


def _number(schema: str, name: str) -> int:
    """Return a lock's number: one bigint, apart from the pairs of numbers of `postgres`."""
    digest = sha256_bytes(f"{schema}\0{name}".encode())
    return int.from_bytes(bytes.fromhex(digest)[:8], "big", signed=True)
