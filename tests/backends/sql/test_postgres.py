"""What only PostgreSQL has: several machines, a server that goes and comes, and its own clock."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import pq

from contracts.backends import VISIBILITY_S, source, task
from hevcq.domain.job import JobState
from hevcq.domain.verdict import FailureClass
from hevcq.errors import (
    ConfigError,
    DatabaseBusy,
    HevcqError,
    StorageError,
    Unavailable,
)
from hevcq.ports.catalog import Happened
from hevcq.ports.ledger import Granted
from hevcq.sql import postgres
from hevcq.sql.database import SCHEMA_VERSION
from hevcq.sql.event_log import EventLog
from hevcq.sql.postgres import PostgresDatabase, PostgresSession
from hevcq.util.clock import SystemClock
from support.clips import ManualClock
from support.faulty import faulty_line
from support.postgres import own_server, shared_dsn

ADD = "INSERT INTO remembered VALUES (?, 'p', 'r', 'so', 1)"
NOTES = "SELECT source_sha256 FROM remembered ORDER BY 1"


def end_connections(shared: PostgresDatabase) -> None:
    """Kill all other connections to the server of this tester's schema, as its restart does."""
    with psycopg.connect(shared_dsn(), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND application_name = 'hevcq' AND query LIKE %s",
            [f"%{shared._schema}%"],
        )


def kill_own(session: PostgresSession) -> None:
    with psycopg.connect(shared_dsn(), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [session.raw.info.backend_pid])


@pytest.mark.parametrize("kept", [True, False])
def test_a_commit_without_an_answer_is_neither_lost_nor_done_twice(shared, monkeypatch, kept):
    run, calls = PostgresSession.run, []

    def lose(self: PostgresSession, sql: str) -> object:
        if sql != "COMMIT" or calls:
            return run(self, sql)
        calls.append(sql)
        if kept:
            run(self, sql)
        kill_own(self)
        return run(self, sql)

    monkeypatch.setattr(PostgresSession, "run", lose)
    tries: list[str] = []

    def work(connection) -> str:
        tries.append("")
        connection.execute(
            "INSERT INTO dead_letter (queue, body, job_id, reason, failure_class, "
            "attempts, tail, grp, buried_at) VALUES ('q', 'b', 'j', '', '', 1, '', '', 1)"
        )
        return f"result {len(tries)}"

    assert shared.write(work) == ("result 1" if kept else "result 2")
    assert shared.row("SELECT count(*) FROM dead_letter") == (1,)


def test_a_commit_that_nobody_can_tell_of_is_not_repeated(shared, monkeypatch):
    run = PostgresSession.run

    def lose(self: PostgresSession, sql: str) -> object:
        if sql == "COMMIT":
            kill_own(self)
            monkeypatch.setattr(PostgresDatabase, "_connect", refuse)
        return run(self, sql)

    def refuse(self: PostgresDatabase) -> None:
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(PostgresSession, "run", lose)
    monkeypatch.setattr(shared.clock, "wait", lambda *_: False)
    tries: list[int] = []

    with pytest.raises(Unavailable, match="whether it kept") as caught:
        shared.write(lambda c: (tries.append(1), c.execute(ADD, ("perhaps",))))

    assert len(tries) == 1
    assert not isinstance(caught.value, postgres.TransactionLost)
    monkeypatch.undo()


def test_two_that_lock_each_other_out_both_come_through(shared):
    shared.write(lambda c: c.executemany(ADD, [("a",), ("b",)]))
    both = threading.Barrier(2)

    def cross(first: str, second: str) -> int:
        tries: list[int] = []

        def work(connection) -> None:
            tries.append(1)
            change = "UPDATE remembered SET made_at = made_at + 1 WHERE source_sha256 = ?"
            connection.execute(change, (first,))
            if len(tries) == 1:
                both.wait(20)
            connection.execute(change, (second,))

        shared.write(work, exclusive=False)
        return len(tries)

    with ThreadPoolExecutor() as pool:
        tries = list(pool.map(cross, "ab", "ba"))

    assert sorted(tries) == [1, 2]
    assert shared.rows("SELECT made_at FROM remembered") == [(3.0,), (3.0,)]


def test_a_machine_that_stops_within_a_transaction_holds_the_others_up_for_a_moment_only(
    shared, machine, monkeypatch
):
    monkeypatch.setattr(
        postgres, "SESSION", postgres.SESSION.replace("timeout = '10s'", "timeout = '300ms'")
    )
    stopped = machine("stopped").database
    inside, go_on = threading.Event(), threading.Event()
    tries: list[int] = []

    def hang(connection) -> None:
        tries.append(1)
        connection.execute(ADD, (f"stopped {len(tries)}",))
        inside.set()
        if len(tries) == 1:
            go_on.wait(20)

    with ThreadPoolExecutor() as pool:
        late = pool.submit(stopped.write, hang)
        inside.wait(20)
        shared.write(lambda c: c.execute(ADD, ("the other",)))
        go_on.set()
        late.result(20)

    assert shared.rows(NOTES) == [("stopped 2",), ("the other",)]


def test_it_hears_again_after_its_connections_were_killed(machine, shared):
    heard: list[str] = []
    came = threading.Event()

    def wake(name: str) -> None:
        heard.append(name)
        came.set()

    shared.wake = wake
    shared.listen()
    assert came.wait(20), "it listens"
    came.clear()
    end_connections(shared)
    assert came.wait(20), "all queues are woken: what was sent meanwhile was not heard"
    came.clear()
    machine("sender").backend.queues["hevc"].send([task()])
    assert came.wait(20)

    assert heard == ["", "", "hevc"]


def test_leases_follow_the_servers_clock_whatever_the_machines_say(machine):
    wrong = ManualClock()  # its years are others
    right, astray = machine("right"), machine("astray", wrong)
    ours, theirs = right.backend.ledger, astray.backend.ledger

    assert isinstance(theirs.claim(source(), "hevc", owner="astray", lease_s=60), Granted)
    assert ours.claim(source(), "hevc", owner="right", lease_s=60).state is JobState.RUNNING
    (record,) = ours.register(source(), ["hevc"])
    assert abs(record.lease_until - time.time() - 60) < 30
    wrong.advance(120)
    assert isinstance(theirs.claim(source(2), "hevc", owner="x", lease_s=60), Granted)
    astray.backend.queues["hevc"].send([task()], delay_s=VISIBILITY_S)
    assert right.backend.queues["hevc"].depth().delayed == 1


def test_events_appear_in_the_order_of_their_numbers(machine, shared):
    log = EventLog(shared, SystemClock())
    first, second = machine("a").database, machine("b").database
    inside, go_on = threading.Event(), threading.Event()
    row = "INSERT INTO event (at, name, source) VALUES (1, ?, ?)"

    def slow(connection) -> None:
        connection.execute(row, ("slow", b""))
        inside.set()
        go_on.wait(20)

    with ThreadPoolExecutor() as pool:
        late = pool.submit(lambda: first.write(slow, exclusive=False))
        inside.wait(20)
        quick = pool.submit(lambda: second.write(lambda c: c.execute(row, ("quick", b""))))
        assert log.after(0, 10) == [], "the second waits for the first"
        go_on.set()
        late.result(20)
        quick.result(20)

    assert [event.name for event in log.after(0, 10)] == ["slow", "quick"]
    log.add(Happened("odd", 2.0, source="caf\udce9"))
    assert log.after(0, 10)[-1].source == "caf\udce9"


def test_text_with_a_nul_is_kept_without_it(machine):
    ledger = machine("a").backend.ledger
    (job,) = ledger.register(source(), ["hevc"])
    claim = ledger.claim(source(), "hevc", owner="x", lease_s=60)
    ledger.bury(job.job_id, claim.fence, "so\0so 'quoted' %s", FailureClass.DAMAGED)

    assert ledger.get(job.job_id).reason == "so\ufffdso 'quoted' %s"


def test_two_that_begin_at_once_make_the_tables_once(shared):
    schema = f"{shared._schema}_new"

    def begin(_number: int) -> None:
        PostgresDatabase(shared_dsn(), SystemClock(), schema=schema).close()

    with ThreadPoolExecutor() as pool:
        list(pool.map(begin, range(4)))
    with psycopg.connect(shared_dsn(), autocommit=True) as admin:
        (count,) = admin.execute(f"SELECT count(*) FROM {schema}.hevcq_schema").fetchone()
        admin.execute(f"DROP SCHEMA {schema} CASCADE")

    assert count == 1


def refusal(dsn: str, schema: str = "other") -> HevcqError:
    with pytest.raises(HevcqError) as caught:
        PostgresDatabase(dsn, SystemClock(), schema=schema)
    return caught.value


def test_a_newer_schema_is_refused(shared):
    shared.change("UPDATE hevcq_schema SET version = version + 1")
    try:
        error = refusal(shared_dsn(), shared._schema)
    finally:
        shared.change("UPDATE hevcq_schema SET version = version - 1")

    assert type(error) is StorageError
    assert f"reads schema {SCHEMA_VERSION} only" in str(error)


def test_an_older_server_is_refused(shared, monkeypatch):
    monkeypatch.setattr(postgres, "MIN_SERVER", 990000)

    assert "hevcq needs 14 or newer" in str(refusal(shared_dsn()))


def test_a_wrong_dsn_is_a_sentence_without_its_password(shared):
    for dsn in (
        "postgresql://u:geheim@[host/db",
        "user=u geheim",
        "postgresql://u:pa@geheim@host/db",
        "postgresql://u:12/geheim@host/db",
    ):
        error = refusal(dsn)
        assert type(error) is ConfigError
        assert "geheim" not in f"{error} {error.__cause__}"
    error = refusal(f"{shared_dsn().replace('dbname=postgres', 'dbname=none')}")
    assert type(error) is ConfigError
    assert 'database "none" does not exist' in str(error)


def test_a_server_that_is_away_is_waited_for_and_then_unavailable(tmp_path, capsys):
    with pytest.raises(Unavailable):
        PostgresDatabase(f"host={tmp_path}", Patient())

    assert capsys.readouterr().out.count(f"Waiting: PostgreSQL {tmp_path} does not answer.") == 1


def test_a_server_that_is_still_starting_is_waited_for(shared, monkeypatch):
    starting = "connection to server failed: FATAL:  the database system is starting up"
    answers = [psycopg.OperationalError(starting), psycopg.OperationalError("reset by peer")]
    real = psycopg.connect

    def connect(*args, **kwargs):
        if answers:
            raise answers.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(psycopg, "connect", connect)
    refusing = SimpleNamespace(ping=lambda _: pq.Ping.REJECT)
    rest = {"Ping": pq.Ping, "TransactionStatus": pq.TransactionStatus}
    monkeypatch.setattr(postgres, "pq", SimpleNamespace(PGconn=refusing, **rest))

    opened = PostgresDatabase(shared_dsn(), Patient(), schema=shared._schema)

    assert opened.read(lambda session: session.execute("SELECT 1").fetchall()) == [(1,)]
    opened.close()


class Patient(ManualClock):
    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.advance(timeout_s)
        return event.is_set()


def test_a_statement_that_takes_too_long_is_an_error_of_its_own(shared):
    def work(connection) -> None:
        connection.execute("SET LOCAL statement_timeout = 50")
        connection.execute("SELECT pg_sleep(20)")

    with pytest.raises(DatabaseBusy):
        shared.write(work)
    assert shared.rows("SELECT 1") == [(1,)], "the connection goes on"


def test_a_restart_or_a_failing_line_loses_and_doubles_no_write(monkeypatch):
    with own_server() as server, faulty_line(f"{server.folder}/.s.PGSQL.5432") as line:
        dsn = server.dsn.replace(str(server.folder), f"127.0.0.1 port={line.port}")
        opened = PostgresDatabase(dsn, SystemClock())

        def restart(how: str) -> None:
            server.stop(how)
            server.start()

        deafen = partial(line.deafen, b"COMMIT")
        ways = [line.cut, line.stick, deafen, partial(restart, "fast")] * 2
        ways += [partial(restart, "immediate"), deafen]
        one_at_a_time = threading.Lock()

        def write(number: int) -> None:
            row = "INSERT INTO event (at, name, source) VALUES (1, ?, ?)"
            opened.write(lambda c: c.execute(row, (f"{number:04}", b"")))
            if number % 30 == 0:
                with one_at_a_time:
                    ways.pop()()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(300)))

        kept = opened.rows("SELECT name FROM event ORDER BY 1")
        assert [row[0] for row in kept] == [f"{number:04}" for number in range(300)]
        assert not ways
        opened.close()

        # A line that takes everything and answers nothing is given up.
        monkeypatch.setattr(postgres, "SILENCE_S", 0.5)
        opened = PostgresDatabase(dsn, SystemClock())
        line.swallow()
        opened.write(lambda c: c.execute(ADD, ("late",)))
        assert opened.rows(NOTES) == [("late",)]
        opened.close()
