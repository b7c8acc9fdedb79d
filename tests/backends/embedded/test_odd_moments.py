"""What two processes or threads do to each other at just the wrong moment, and nonsense in rows."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from contextlib import closing

import pytest

from contracts.backends import MAX_RECEIVES, VISIBILITY_S, source
from hevcq.backends.embedded.database import DATABASE, Database
from hevcq.backends.embedded.jobs.message_table import Outgoing, send
from hevcq.backends.embedded.liveness import Liveness
from hevcq.domain.job import JobState, Phase, Progress
from hevcq.domain.verdict import FailureClass
from hevcq.errors import DatabaseBusy
from hevcq.ports.ledger import Granted
from hevcq.ports.queue import Selection

NOTE = "CREATE TABLE note (text TEXT NOT NULL);"
ADD = "INSERT INTO note VALUES (?)"


def test_a_body_nobody_can_read_and_nobody_settles_is_a_dead_letter_without_a_job(
    opener, folder, clock
) -> None:
    opened = opener()
    database = Database(folder / DATABASE)
    database.write(lambda c: send(c, "hevc", [Outgoing("no task at all")], now=clock.now()))
    database.close()
    queue, stop = opened.backend.queues["hevc"], threading.Event()

    for _ in range(MAX_RECEIVES):
        (delivery,) = queue.receive(1, wait_s=0, stop=stop)
        assert delivery.problem
        clock.advance(VISIBILITY_S + 1)
    assert queue.receive(1, wait_s=0, stop=stop) == []

    (letter,) = queue.dead_letters(Selection())
    assert (letter.body, letter.failure_class) == ("no task at all", FailureClass.RECEIVES)
    assert letter.task is None
    assert opened.backend.ledger.counts() == {}
    assert letter.attempts == MAX_RECEIVES


def test_a_fetch_is_never_shown_as_progress_because_sources_are_linked(opener, clock) -> None:
    ledger = opener().backend.ledger
    claim = ledger.claim(source(), "hevc", owner="here", lease_s=60)
    assert isinstance(claim, Granted)
    (job,) = ledger.register(source(), ["hevc"])

    ledger.progress(job.job_id, claim.fence, Progress(phase=Phase.FETCH, percent=50.0))

    found = ledger.get(job.job_id)
    assert (found.state, found.progress) == (JobState.RUNNING, None)


def test_to_remember_nothing_waits_for_no_other_writer(opener, folder) -> None:
    opened = opener()
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opened.catalog.cache([])
        opened.catalog.record_placements([])
        other.execute("ROLLBACK")

    assert opened.catalog.cached([]) == {}


def test_a_lock_file_that_was_swept_between_making_and_locking_it_is_made_again(
    tmp_path, clock, monkeypatch
) -> None:
    lock = fcntl.flock
    swept = []

    def sweep_first(descriptor: int, how: int) -> None:
        if not swept:
            (made,) = tmp_path.glob("*.alive")
            swept.append(made)
            made.unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    here = Liveness(tmp_path, clock)
    there = Liveness(tmp_path, clock)

    assert swept
    assert not there.dead(here.owner), "its lock guards a file that others find"
    here.close()
    assert there.dead(here.owner)
    there.close()


def test_two_threads_that_look_for_the_dead_at_once_free_them_once(tmp_path, clock) -> None:
    here = Liveness(tmp_path, clock)
    gone = Liveness(tmp_path, clock)
    gone.close()
    freed: list[str] = []

    def free(owner: str) -> None:
        freed.append(owner)
        clock.advance(60)
        here.reap(freed.append)

    clock.advance(60)
    here.reap(free)

    assert freed == [gone.owner]
    here.close()


def test_an_interrupt_just_after_the_commit_undoes_nothing(tmp_path) -> None:
    database = Database(tmp_path / "hevcq.db", scripts=("001_jobs.sql", NOTE), busy_s=0.2)

    class Interrupted:
        """Lets everything through, and interrupts once the commit has happened."""

        def __init__(self, writer: sqlite3.Connection) -> None:
            self.writer = writer

        def __getattr__(self, name: str) -> object:
            return getattr(self.writer, name)

        def execute(self, sql: str, *values: object) -> object:
            done = self.writer.execute(sql, *values)
            if sql == "COMMIT":
                database._writer = self.writer
                raise KeyboardInterrupt
            return done

    database._writer = Interrupted(database._writer)
    with pytest.raises(KeyboardInterrupt):
        database.change(ADD, ("kept",))

    assert database.change(ADD, ("next",)) == 1
    assert database.rows("SELECT text FROM note ORDER BY rowid") == [("kept",), ("next",)]
    database.close()


def test_an_older_database_that_somebody_writes_to_is_not_migrated_meanwhile(tmp_path) -> None:
    path = tmp_path / "hevcq.db"
    Database(path, scripts=("001_jobs.sql",)).close()

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy):
            Database(path, scripts=("001_jobs.sql", NOTE), busy_s=0.05)
        other.execute("ROLLBACK")

    later = Database(path, scripts=("001_jobs.sql", NOTE), busy_s=0.2)
    assert later.change(ADD, ("migrated",)) == 1
    later.close()
