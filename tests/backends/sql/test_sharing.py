"""One database, many threads."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.sql.notes import ADD, notes
from hevcq.errors import (
    StorageError,
)
from hevcq.sql.sqlite import SqliteDatabase


def test_work_that_raises_undoes_its_own_changes_only(database: SqliteDatabase) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(ADD, ("half",))
        raise KeyError("x")

    with pytest.raises(KeyError):
        database.write(fail)
    with pytest.raises(StorageError):
        database.change("INSERT INTO nowhere VALUES (1)")

    database.change(ADD, ("whole",))
    assert notes(database) == ["whole"]


def test_writers_that_come_together_fail_apart(database: SqliteDatabase) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(ADD, ("half",))
        raise KeyboardInterrupt

    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(database.change, ADD, (f"n{n}",)) for n in range(5)]
        bad = pool.submit(database.write, fail)
        good += [pool.submit(database.change, ADD, (f"n{n}",)) for n in range(5, 9)]
        assert [future.result(10) for future in good] == [1] * 9
        with pytest.raises(KeyboardInterrupt):
            bad.result(10)

    assert sorted(notes(database)) == [f"n{n}" for n in range(9)]


def test_a_closed_database_says_so_and_closes_twice(database: SqliteDatabase) -> None:
    database.close()
    database.close()

    with pytest.raises(StorageError, match="closed"):
        database.change(ADD, ("x",))
    with pytest.raises(StorageError, match="closed"):
        notes(database)


def test_readers_cannot_write(database: SqliteDatabase) -> None:
    with pytest.raises(StorageError):
        database.read(lambda c: c.execute(ADD, ("x",)))
    assert notes(database) == []
