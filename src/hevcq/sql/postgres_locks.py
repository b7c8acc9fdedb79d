"""A lock that all machines of a PostgreSQL database share, held by its own connection.

The server frees the lock when the connection ends: at once after kill -9, within half a minute after an
outage of the machine or its network. So the holder tests its connection before each guarded step.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from hevcq.errors import HevcqError, Unavailable
from hevcq.util.clock import Clock
from hevcq.util.file_io import sha256_bytes

POLL_S = 0.1
"""Seconds between two tries to take the lock: waiting in the server would hit its statement timeout."""
Connect = Callable[[], psycopg.Connection[Any]]


@contextmanager
def hold_lock(
    connect: Connect, name: str, busy: HevcqError | None, clock: Clock
) -> Iterator[Callable[[], None]]:
    """Hold the lock `name`, which includes the schema; see `database.Database.lock`.

    Two threads exclude each other as two machines do.
    """
    digest = bytes.fromhex(sha256_bytes(name.encode()))
    key = int.from_bytes(digest[:8], "big", signed=True)  # one bigint; `postgres` uses pairs
    raw = _acquire(connect, key, busy, clock)

    def require_held() -> None:
        try:
            raw.execute("SELECT 1")
        except psycopg.Error as error:
            raise Unavailable(
                "The connection to the database was lost while files were being changed; nothing"
                " more was changed.",
                remedy="The next hevcq that looks at this library finishes it or rolls it back.",
            ) from error

    try:
        yield require_held
    finally:
        with suppress(psycopg.Error):  # closing the connection would free it a moment later
            raw.execute(f"SELECT pg_advisory_unlock({key})".encode())
        raw.close()


def _acquire(
    connect: Connect, key: int, busy: HevcqError | None, clock: Clock
) -> psycopg.Connection[Any]:
    """Return a connection that holds the lock."""
    try_lock = f"SELECT pg_try_advisory_lock({key})".encode()
    while True:
        raw = connect()
        try:
            while raw.execute(try_lock).fetchone() != (True,):
                if busy is not None:
                    raise busy
                clock.wait(threading.Event(), POLL_S)
        except psycopg.Error:
            raw.close()  # try again on a new connection
        except BaseException:
            raw.close()
            raise
        else:
            return raw
