"""The database file: refused when it is not sound, or of other tables, shared between threads.

Opening a data folder, looking at it lightly, and what the ledger keeps to itself.
"""

import errno
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from backends.sql.notes import ADD, notes
from contracts.backends import source, task
from hevcq.backends.sql import source_files
from hevcq.backends.sql.factory import free_owner, holds_work, open_catalog
from hevcq.domain.job import job_id
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.verdict import FailureClass
from hevcq.errors import DatabaseBusy, DiskFull, StorageError
from hevcq.ports.catalog import Fingerprint
from hevcq.ports.ledger import Granted
from hevcq.sql import catalog as catalog_module
from hevcq.sql import sqlite as sqlite_module
from hevcq.sql.database import SCHEMA_VERSION
from hevcq.sql.sqlite import DATABASE, SqliteDatabase, translate_error
from hevcq.util.processes import Processes


def raw(path: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(path, isolation_level=None))


@pytest.mark.parametrize(
    "content",
    [b"", b"not a database at all", b"SQLite format 3\0" + b"\xa5" * 5000, b"\0" * 8192],
    ids=["empty", "text", "torn", "zeroes"],
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)

    with pytest.raises(StorageError, match=r"hevcq\.db is damaged.*(move|Restore)"):
        SqliteDatabase(path)

    assert path.read_bytes() == content


def others(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("CREATE TABLE message (id)")


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (others, "not one that hevcq made"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.with_name("hevcq.db-wal").write_bytes(b"the last records"), "missing"),
    ],
    ids=["another program's", "a folder", "a log without its database"],
)
def test_what_is_no_database_of_hevcqs_is_refused_and_none_is_made(path, put, said):
    put(path)

    with pytest.raises(StorageError, match=said):
        SqliteDatabase(path)

    assert path.exists() == (said != "missing")


def damaged(path: Path, database: SqliteDatabase) -> bytes:
    """Fill a database, close it and damage some of its pages; return what the file holds then."""
    database.write(lambda c: c.executemany(ADD, [(f"note {n}" * 20,) for n in range(500)]))
    database.close()
    content = bytearray(path.read_bytes())
    content[-4096 * 10 :] = b"\x5a" * (4096 * 10)
    path.write_bytes(content)
    return bytes(content)


def test_damaged_pages_are_found_when_it_is_opened(path, database):
    content = damaged(path, database)

    with pytest.raises(StorageError):
        SqliteDatabase(path)

    assert path.read_bytes() == content


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_database_of_other_tables_is_refused_and_left_as_it_is(path, version):
    SqliteDatabase(path).close()
    with raw(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()

    said = rf"schema {version}; this hevcq reads schema {SCHEMA_VERSION} only.*wrote it"
    with pytest.raises(StorageError, match=said):
        SqliteDatabase(path)

    assert path.read_bytes() == before


def test_a_crash_while_it_was_made_leaves_nothing_in_the_way(path):
    path.with_name("hevcq.db.new").write_bytes(b"half a database")
    path.with_name("hevcq.db.new-wal").write_bytes(b"and its log")

    SqliteDatabase(path).close()

    assert not path.with_name("hevcq.db.new").exists()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_long_lock_of_another_process_is_reported_and_an_error_and_nothing_is_lost(
    path, database, monkeypatch, capsys
):
    monkeypatch.setattr(sqlite_module, "REPORT_WAIT_AFTER_S", 0.1)
    with raw(path) as hog:
        hog.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match="locked by another process"):
            database.change(ADD, ("refused",))
        assert notes(database) == [], "reading never waits"
        hog.execute("ROLLBACK")

    assert capsys.readouterr().out.count(f"locked the database {path}") == 1
    database.change(ADD, ("later",))
    assert notes(database) == ["later"]


def test_a_full_disk_is_named_and_the_database_goes_on_when_there_is_space(database):
    database.change(ADD, ("before",))

    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        connection.executemany(ADD, [("x" * 5000,)] * 50)

    with pytest.raises(DiskFull, match="is full"):
        database.write(fill)

    database.write(lambda c: c.execute("PRAGMA max_page_count = 100000"))
    database.change(ADD, ("after",))
    assert notes(database) == ["before", "after"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_NOTADB, StorageError),
        (sqlite3.SQLITE_CORRUPT, StorageError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, DatabaseBusy),
        (sqlite3.SQLITE_FULL, DiskFull),
        (sqlite3.SQLITE_READONLY, StorageError),
        (sqlite3.SQLITE_IOERR_FSYNC, StorageError),
        (sqlite3.SQLITE_CONSTRAINT, StorageError),
    ],
)
def test_each_code_of_sqlite_has_its_error(path, code, kind):
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code

    assert type(translate_error(error, path)) is kind
    assert str(path) in str(translate_error(error, path))


def test_work_that_raises_undoes_its_own_changes_only(database):
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(ADD, ("half",))
        raise KeyError("x")

    with pytest.raises(KeyError):
        database.write(fail)
    with pytest.raises(StorageError):
        database.change("INSERT INTO nowhere VALUES (1)")

    database.change(ADD, ("whole",))
    assert notes(database) == ["whole"]


def test_writers_that_come_together_fail_apart(database):
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


STOP = threading.Event()


@pytest.mark.parametrize("kernel", [True, False], ids=["copy_file_range", "plain"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_copy_is_whole_on_any_file_system_and_keeps_what_is_there(
    tmp_path, monkeypatch, kernel, links
):
    content = os.urandom(9 * 1024 * 1024 + 17)
    (tmp_path / "in").write_bytes(content)
    if not kernel:
        monkeypatch.setattr(os, "copy_file_range", Mock(side_effect=OSError(errno.EXDEV, "no")))
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EPERM, "no")))

    source_files.copy_new(tmp_path / "in", tmp_path / "out", stop=STOP)
    with pytest.raises(FileExistsError):
        source_files.copy_new(tmp_path / "in", tmp_path / "out", stop=STOP)

    assert (tmp_path / "out").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


JOB = job_id(source(), "hevc")


def claim(opened, owner: str = "a") -> int:
    found = opened.backend.ledger.claim(source(), "hevc", owner=owner, lease_s=60)
    assert isinstance(found, Granted)
    return found.fence


def test_the_data_folder_is_for_its_owner_only(opener, folder):
    opener()

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / DATABASE).stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_missing_beside_its_renditions_is_not_recreated(opener, folder):
    opened = opener()
    opened.backend.store.put("DONE/a", b"x", metadata={})
    opened.close()
    (folder / DATABASE).unlink()

    with pytest.raises(StorageError, match="missing"):
        opener()

    assert not (folder / DATABASE).exists()


def test_a_failed_publication_leaves_neither_job_nor_task(opener, monkeypatch):
    from hevcq.backends.sql import queue

    opened, calls = opener(), []
    real = queue.send

    def fail(connection, queue: str, *args, **named) -> None:
        calls.append(queue)
        if len(calls) == 2:
            raise sqlite3.OperationalError("the disk went away")
        real(connection, queue, *args, **named)

    monkeypatch.setattr(queue, "send", fail)
    with pytest.raises(StorageError):
        opened.backend.task_publisher.publish(source(), ["hevc", "720p"], announced=False)

    assert calls == ["hevc", "720p"]
    assert opened.backend.ledger.counts() == {}
    assert opened.backend.queues["hevc"].depth().ready == 0


def test_the_queue_may_bury_the_job_of_a_dead_owner(opener, folder, clock):
    opened = opener()
    gone = Processes(folder / "processes", clock)
    claim(opened, f"{gone.owner}:1")
    ledger = opened.backend.ledger
    assert ledger.bury_unclaimed(JOB, "given up", FailureClass.RECEIVES) is False

    gone.close()

    assert ledger.bury_unclaimed(JOB, "given up", FailureClass.RECEIVES) is True


@pytest.mark.parametrize(("owner", "freed"), [("w1", True), ("w1:0", True), ("w17:0", False)])
def test_a_dead_owner_frees_its_own_leases_and_no_namesakes(opener, folder, clock, owner, freed):
    opened = opener()
    ledger, database = opened.backend.ledger, SqliteDatabase(folder / DATABASE)
    claim(opened, owner)

    assert holds_work(database, "w1") is freed
    free_owner(database, "w1")

    assert (ledger.get(JOB).lease_until <= clock.now()) is freed
    database.close()


def test_facts_of_another_version_are_probed_again(tmp_path, clock, monkeypatch):
    catalog, path = open_catalog(tmp_path / "new" / "catalog.db", clock), Path("/media/a.mp4")
    mark, info = Fingerprint(1, 2, 3, 4), MediaInfo(format_name="mp4")
    catalog.cache([(path, mark, info), (Path("/media/b"), mark, "It is a text.")])
    assert len(catalog.cached([path, Path("/media/b")])) == 2

    monkeypatch.setattr(catalog_module, "facts_version", lambda: "another")
    assert catalog.cached([path, Path("/media/b")]) == {}
    monkeypatch.undo()
    catalog._database.change("UPDATE file SET info = '{\"forged\": 1}' WHERE info IS NOT NULL")

    assert set(catalog.cached([path, Path("/media/b")])) == {Path("/media/b")}
    catalog.close()


@pytest.mark.parametrize("left", ["delivery", "lease", "version"])
def test_a_process_that_leaves_something_is_remembered_until_it_is_freed(opener, folder, left):
    opened = opener()
    backend = opened.backend
    if left == "delivery":
        backend.queues["hevc"].send([task()])
        backend.queues["hevc"].receive(1, wait_s=0, stop=threading.Event())
    elif left == "lease":
        claim(opened, f"{backend.owner}:0")
    else:
        backend.store._new_version("DONE/a")
    opened.close()
    assert [path.stem for path in (folder / "processes").iterdir()] == [backend.owner]

    again = opener()

    assert [path.stem for path in (folder / "processes").iterdir()] == [again.backend.owner]
    assert list((folder / "objects").iterdir()) == []
    assert claim(again, "another") == (2 if left == "lease" else 1)


@pytest.mark.parametrize(("ahead_s", "left"), [(60 * 86_400.0, 1), (0.0, 0)])
def test_a_delay_set_while_the_clock_ran_ahead_does_not_outlast_its_correction(
    opener, clock, ahead_s, left
):
    first, stop = opener(), threading.Event()
    clock.jump_wall(ahead_s)
    queue = first.backend.queues["hevc"]
    queue.send([task()])
    (delivery,) = queue.receive(1, wait_s=0.0, stop=stop)
    queue.release(delivery, delay_s=300.0)
    first.close()
    clock.jump_wall(-ahead_s)

    again = opener().backend.queues["hevc"]

    assert len(again.receive(1, wait_s=0.0, stop=stop)) == left
