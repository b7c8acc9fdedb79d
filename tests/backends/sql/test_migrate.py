"""Records that move to PostgreSQL and back: all of them, once, and only where nothing works."""

import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest

from contracts.backends import PROFILES, source, task
from hevcq.backends.sql.factory import SqlBackend, open_sql
from hevcq.backends.sql.migrate import open_migration
from hevcq.domain.job import JobState
from hevcq.domain.schedule import Pause
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import ConfigError, HevcqError, StorageError, Unavailable, UsageError
from hevcq.ports.backend import WorkerFacts
from hevcq.ports.catalog import Happened
from hevcq.ports.ledger import JobFilter
from hevcq.settings.model import PostgresSettings, Settings
from hevcq.sql.event_log import EventLog
from hevcq.util.clock import SystemClock
from support.postgres import Server, own_server, program


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as made:
        yield made


@pytest.fixture
def dsn(server: Server) -> str:
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS house WITH (FORCE)")
        admin.execute("CREATE DATABASE house")
    return server.dsn.replace("dbname=postgres", "dbname=house")


@pytest.fixture
def settings(tmp_path: Path, dsn: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        postgres=PostgresSettings(dsn=dsn, files_dir=tmp_path / "shared"),
    )


@pytest.fixture
def house(settings: Settings) -> Iterator[Callable[[str], SqlBackend]]:
    opened: list[SqlBackend] = []

    def start(backend: str) -> SqlBackend:
        using = settings.model_copy(update={"backend": backend})
        opened.append(open_sql(using, PROFILES, SystemClock()))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def fill(made: SqlBackend) -> None:
    """Make jobs that ended and wait, a dead letter, a pause and events."""
    backend = made.backend
    done, dead, waiting = (source(f"{name}.mp4") for name in ("done", "dead", "waiting"))
    for each in (done, dead, waiting):
        backend.ledger.register(each, ["hevc"])
    queue = backend.queues["hevc"]
    queue.send([task(dead)])
    (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
    queue.bury(delivery, Bury(reason="It broke.", failure_class=FailureClass.ENCODER))
    queue.send([task(waiting)])
    fence = backend.ledger.claim(done, "hevc", owner=f"{backend.owner}:0", lease_s=60).fence
    backend.ledger.skip(job(made, "done").job_id, fence, "Already HEVC.")
    backend.ledger.pause(Pause(by="anna", since=1.0, until=None))
    backend.machines.tell(backend.owner, WorkerFacts(machine="nas", version="0.1.0"))
    log = EventLog(made.catalog.database, SystemClock())
    for name in ("one", "two"):
        log.add(Happened("test", 1.0, source=name))


def job(made: SqlBackend, name: str):
    return next(each for each in made.backend.ledger.jobs(JobFilter()) if name in each.source.key)


def known(made: SqlBackend) -> dict[str, object]:
    backend = made.backend
    return {
        "jobs": sorted(backend.ledger.jobs(JobFilter()), key=lambda each: each.job_id),
        "counts": backend.ledger.counts(),
        "depth": (backend.queues["hevc"].depth().ready, backend.queues["hevc"].depth().in_flight),
        "pauses": backend.ledger.pauses(),
        "letters": list(backend.queues["hevc"].dead_letters()),
        "events": made.catalog.database.rows("SELECT seq, name, source FROM event ORDER BY seq"),
    }


def move(settings: Settings, to: str) -> dict[str, int]:
    with open_migration(settings, to, SystemClock()) as migration:
        migration.require_still()
        counts = migration.counts()
        migration.run()
    return counts


def test_everything_is_known_on_the_server_and_again_at_home(house, settings):
    here = house("embedded")
    fill(here)
    before = known(here)
    here.close()
    file = settings.data_dir / "objects" / "ab" / "cd" / "1" / "rendition.mp4"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a rendition")
    untouched = _content(settings.data_dir / "hevcq.db")

    counts = move(settings, "postgres")

    assert counts["job"] == 3
    assert _content(settings.data_dir / "hevcq.db") == untouched
    there = house("postgres")
    assert known(there) == before
    moved = settings.postgres.files_dir / file.relative_to(settings.data_dir)
    assert moved.read_bytes() == b"a rendition"
    EventLog(there.catalog.database, SystemClock()).add(Happened("test", 2.0, source="three"))
    last = known(there)["events"][-1]
    assert last[0] > before["events"][-1][0], "a reader sees what comes next"
    on_server = known(there)
    there.close()
    for left in settings.data_dir.glob("hevcq.db*"):
        left.unlink()

    move(settings, "embedded")

    back = house("embedded")
    assert known(back) == on_server
    fresh = source("fresh.mp4")
    (new,) = back.backend.ledger.register(fresh, ["hevc"])
    assert new.state is JobState.QUEUED
    assert back.backend.ledger.counts()[("hevc", JobState.QUEUED)] == 3, "triggers count again"


def test_what_was_moved_is_not_used_any_more_on_either_side(house, settings):
    made = house("embedded")
    fill(made)
    made.close()
    move(settings, "postgres")
    with pytest.raises(ConfigError, match="were moved") as refused:
        house("embedded")
    assert 'backend = "postgres"' in refused.value.remedy
    there = house("postgres")
    on_server = known(there)
    there.close()
    for left in settings.data_dir.glob("hevcq.db*"):
        left.unlink()

    move(settings, "embedded")

    with pytest.raises(ConfigError, match="were moved"):
        house("postgres")
    assert known(house("embedded")) == on_server


def test_a_move_whose_end_is_unknown_lets_nobody_use_the_records_and_can_be_done_again(
    house, settings, monkeypatch
):
    made = house("embedded")
    fill(made)
    before = known(made)
    made.close()
    with open_migration(settings, "postgres", SystemClock()) as migration:
        write = migration.target.write

        def lost(work, **how):
            write(work, **how)
            raise Unavailable("The server did not say whether it kept a change.")

        monkeypatch.setattr(migration.target, "write", lost)
        with pytest.raises(Unavailable):
            migration.run()
    with pytest.raises(ConfigError, match="or that was interrupted"):
        house("embedded")
    assert known(house("postgres")) == before


@pytest.mark.parametrize("lost", ["what came later", "the whole database"])
def test_a_backup_that_is_restored_goes_on_where_it_was(house, settings, dsn, tmp_path, lost):
    made = house("postgres")
    fill(made)
    before = known(made)
    dump = tmp_path / "hevcq.dump"
    run = partial(subprocess.run, check=True, capture_output=True)
    run([program("pg_dump"), "-Fc", "-n", "hevcq", "-f", dump, dsn])
    EventLog(made.catalog.database, SystemClock()).add(Happened("test", 2.0, source="lost"))
    made.backend.ledger.register(source("later.mp4"), ["hevc"])
    made.close()
    if lost == "the whole database":
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("DROP SCHEMA hevcq CASCADE")

    run([program("pg_restore"), "--clean", "--if-exists", "-d", dsn, dump])

    back = house("postgres")
    assert known(back) == before
    (again,) = back.backend.ledger.register(source("later.mp4"), ["hevc"])
    assert again.state is JobState.QUEUED
    queued = ("hevc", JobState.QUEUED)
    assert back.backend.ledger.counts()[queued] == before["counts"][queued] + 1, "triggers count"
    EventLog(back.catalog.database, SystemClock()).add(Happened("test", 3.0, source="next"))
    assert known(back)["events"][-1][1:] == ("test", b"next"), "numbers go on"


def _content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as opened:
        return list(opened.iterdump())


@pytest.mark.parametrize("to", ["postgres", "embedded"])
def test_records_are_not_mixed(house, settings, to):
    for name in ("embedded", "postgres"):
        made = house(name)
        fill(made)
        made.close()

    with pytest.raises(UsageError, match="holds records already"):
        move(settings, to)


def test_nothing_moves_while_a_hevcq_runs_on_the_folder(house, settings):
    fill(house("embedded"))

    with pytest.raises(UsageError, match="stop it first"):
        move(settings, "postgres")


def test_nothing_moves_while_another_machine_uses_the_server(settings, tmp_path):
    other = settings.model_copy(update={"data_dir": tmp_path / "other", "backend": "postgres"})
    running = open_sql(other, PROFILES, SystemClock())
    fill(running)

    try:
        with pytest.raises(UsageError, match="on every machine"):
            move(settings, "embedded")
    finally:
        running.close()


def test_a_copy_that_differs_is_undone_as_a_whole(house, settings, dsn):
    here = house("embedded")
    fill(here)
    here.close()
    house("postgres").close()
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("ALTER TABLE hevcq.pause ALTER COLUMN since TYPE real USING since + 0.1")
        admin.execute("ALTER TABLE hevcq.pause ALTER COLUMN by TYPE char(9)")

    with pytest.raises(HevcqError) as refused:
        move(settings, "postgres")

    assert isinstance(refused.value, StorageError)
    with psycopg.connect(dsn) as admin:
        assert admin.execute("SELECT count(*) FROM hevcq.job").fetchone() == (0,)
    assert known(house("embedded"))["jobs"], "they are used as before"


def test_a_folder_without_records_is_told(settings):
    with pytest.raises(UsageError, match="no records"):
        move(settings, "postgres")
