"""One database, many threads: they share transactions and fail apart."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.embedded.notes import ADD, notes
from hevcq.errors import (
    StorageError,
)
from hevcq.sqlite.database import Database, _Ticket


def test_work_that_raises_undoes_its_own_changes_only(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(ADD, ("half",))
        raise KeyError("x")

    with pytest.raises(KeyError):
        database.write(fail)
    with pytest.raises(StorageError):
        database.change("INSERT INTO nowhere VALUES (1)")

    database.change(ADD, ("whole",))
    assert notes(database) == ["whole"]


def test_writers_that_come_together_share_one_transaction_and_fail_apart(
    database: Database,
) -> None:
    inside, go = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        inside.set()
        assert go.wait(10)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(ADD, ("half",))
        raise KeyError("x")

    commits: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(database.write, slow)
        assert inside.wait(10)
        database._writer.set_trace_callback(commits.append)
        good = [pool.submit(database.change, ADD, (f"n{n}",)) for n in range(5)]
        bad = pool.submit(database.write, fail)
        while len(database._waiting) < 6:
            inside.wait(0)
        go.set()
        first.result(10)
        assert [future.result(10) for future in good] == [1] * 5
        with pytest.raises(KeyError):
            bad.result(10)

    assert sorted(notes(database)) == [f"n{n}" for n in range(5)]
    assert commits.count("COMMIT") == 2, "the slow one's, and one for all that waited"


def test_an_interrupt_in_one_thread_does_not_lose_the_work_of_others(database: Database) -> None:
    # Given two writers that came before and after one that an interrupt will end, both waiting
    def refused(connection: sqlite3.Connection) -> int:
        if not refused_before:
            refused_before.append(1)
            raise LookupError
        return connection.execute(ADD, ("before",)).rowcount

    def interrupted(connection: sqlite3.Connection) -> None:
        database._waiting.append(after)
        raise KeyboardInterrupt

    refused_before: list[int] = []
    before = _Ticket(refused, durable=True)
    after = _Ticket(lambda c: c.execute(ADD, ("after",)).rowcount, durable=True)
    database._waiting.append(before)

    # When it comes, then it ends that one only
    with pytest.raises(KeyboardInterrupt):
        database.write(interrupted)
    assert (before.done, before.error, after.done) == (False, None, False)

    # And whoever writes next carries out what waits, from its beginning
    database.change(ADD, ("next",))
    assert (before.done, before.result, after.result) == (True, 1, 1)
    assert notes(database) == ["before", "after", "next"]


def test_a_closed_database_says_so_and_closes_twice(database: Database) -> None:
    database.close()
    database.close()

    with pytest.raises(StorageError, match="closed"):
        database.change(ADD, ("x",))
    with pytest.raises(StorageError, match="closed"):
        notes(database)


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError):
        database.read(lambda c: c.execute(ADD, ("x",)))
    assert notes(database) == []


def test_a_read_that_is_under_way_when_it_is_closed_ends_well(database: Database) -> None:
    inside, go = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        inside.set()
        assert go.wait(10)
        return connection.execute("SELECT 7").fetchone()[0]

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(database.read, slow)
        assert inside.wait(10)
        database.close()
        go.set()
        assert reading.result(10) == 7
    assert database._readers == []
