"""A lock that all machines of a PostgreSQL database share, held by a connection of its own.

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
Open = Callable[[], psycopg.Connection[Any]]


@contextmanager
def hold(
    connect: Open, name: str, busy: HevcqError | None, clock: Clock
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a name, schema included; see `database.Database.lock`.

    Two threads exclude each other as two machines do.
    """
    digest = bytes.fromhex(sha256_bytes(name.encode()))
    number = int.from_bytes(digest[:8], "big", signed=True)  # one bigint, not `postgres`'s pairs
    raw = _taken(connect, number, busy, clock)

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
        with suppress(psycopg.Error):  # the end of a connection would free it a moment later
            raw.execute(f"SELECT pg_advisory_unlock({number})".encode())
        raw.close()


def _taken(
    connect: Open, number: int, busy: HevcqError | None, clock: Clock
) -> psycopg.Connection[Any]:
    """Return a connection that holds the lock."""
    asked = f"SELECT pg_try_advisory_lock({number})".encode()
    while True:
        raw = connect()
        try:
            while raw.execute(asked).fetchone() != (True,):
                if busy is not None:
                    raise busy
                clock.wait(threading.Event(), ASK_EVERY_S)
        except psycopg.Error:
            raw.close()  # a new connection is waited for, and asked anew
        except BaseException:
            raw.close()
            raise
        else:
            return raw
