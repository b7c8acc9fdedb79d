"""Opening a data folder, looking at it lightly, and what the ledger keeps to itself."""

import sqlite3
import threading
from pathlib import Path

import pytest

from contracts.backends import source, task
from hevcq.backends.sql.factory import free_owner, holds, open_catalog
from hevcq.domain.job import job_id
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StorageError
from hevcq.ports.catalog import Fingerprint
from hevcq.ports.ledger import Granted
from hevcq.sql import catalog as catalog_module
from hevcq.sql.sqlite import DATABASE, SqliteDatabase
from hevcq.util.processes import Processes

JOB = job_id(source(), "hevc")


def claim(opened, owner: str = "a") -> int:
    found = opened.backend.ledger.claim(source(), "hevc", owner=owner, lease_s=60)
    assert isinstance(found, Granted)
    return found.fence


def test_the_data_folder_is_for_its_owner_only(opener, folder: Path) -> None:
    opener()

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / DATABASE).stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_missing_beside_its_renditions_is_not_recreated(opener, folder) -> None:
    opened = opener()
    opened.backend.store.put("DONE/a", b"x", metadata={})
    opened.close()
    (folder / DATABASE).unlink()

    with pytest.raises(StorageError, match="missing"):
        opener()

    assert not (folder / DATABASE).exists()


def test_a_failed_publication_leaves_neither_job_nor_task(opener, monkeypatch) -> None:
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


def test_the_queue_may_bury_the_job_of_a_dead_owner(opener, folder, clock) -> None:
    opened = opener()
    gone = Processes(folder / "processes", clock)
    claim(opened, f"{gone.owner}:1")
    ledger = opened.backend.ledger
    assert ledger.bury_unclaimed(JOB, "given up", FailureClass.RECEIVES) is False

    gone.close()

    assert ledger.bury_unclaimed(JOB, "given up", FailureClass.RECEIVES) is True


@pytest.mark.parametrize(("owner", "freed"), [("w1", True), ("w1:0", True), ("w17:0", False)])
def test_a_dead_owner_frees_its_own_leases_and_no_namesakes(
    opener, folder, clock, owner, freed
) -> None:
    opened = opener()
    ledger, database = opened.backend.ledger, SqliteDatabase(folder / DATABASE)
    claim(opened, owner)

    assert holds(database, "w1") is freed
    free_owner(database, "w1")

    assert (ledger.get(JOB).lease_until <= clock.now()) is freed
    database.close()


def test_facts_of_another_version_are_probed_again(tmp_path, clock, monkeypatch) -> None:
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
def test_a_process_that_leaves_something_is_remembered_until_it_is_freed(
    opener, folder, left: str
) -> None:
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
    opener, clock, ahead_s: float, left: int
) -> None:
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
