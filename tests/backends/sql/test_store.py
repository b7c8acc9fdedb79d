"""What only the embedded store promises: nothing of a crash stays, any name, any file system.

A publication is one commit: whatever happens around it, a reader sees the old object or the new.
"""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from backends.sql.conftest import TESTS
from contracts.backends import PROFILES, source
from contracts.objects import nothing, sha
from hevcq.backends.sql import source_files
from hevcq.backends.sql.factory import OBJECTS, SqlBackend, open_sql
from hevcq.domain.job import JobState, job_id
from hevcq.errors import (
    DatabaseBusy,
    DiskFull,
    SourceAway,
    SourceGone,
    SourceUnreadable,
    StaleFence,
    StorageError,
    Unavailable,
)
from hevcq.ports.catalog import Fingerprint, Mode, Placement
from hevcq.ports.ledger import Granted
from hevcq.ports.store import Publication, Store
from hevcq.settings.model import Settings
from hevcq.util import file_io

OLD, NEW = b"old rendition" * 100, b"new rendition" * 100


def publish(store: Store, file: Path, content: bytes = OLD, **more: object):
    file.write_bytes(content)
    given = {"job_id": "j", "fence": 1, **more}
    return store.publish(Publication("DONE/a", file, sha(content), **given))


def read(store: Store) -> bytes:
    with store.open("DONE/a") as file:
        return file.read()


def versions(folder: Path) -> list[Path]:
    return list((folder / OBJECTS).glob("??/*/*"))


STOP = threading.Event()


def test_replaced_and_deleted_objects_leave_no_bytes_behind(store, folder, tmp_path):
    publish(store, tmp_path / "x")
    publish(store, tmp_path / "x", NEW, fence=2)
    assert len(versions(folder)) == 1

    store.delete("DONE/a")

    assert list((folder / OBJECTS).iterdir()) == []


def test_a_sweep_leaves_what_a_process_published_whose_name_begins_alike(store, folder, tmp_path):
    publish(store, tmp_path / "x")
    (version,) = versions(folder)

    store.sweep(version.name.rpartition("-")[0][:-1])

    assert read(store) == OLD


def test_where_links_are_not_possible_the_bytes_are_copied_and_compared(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr(source_files, "hard_link", lambda source, target: False)
    publish(store, tmp_path / "x")
    assert read(store) == OLD
    assert not (tmp_path / "x").exists()

    digest = store.collect("DONE/a", tmp_path / "out", stop=STOP)

    assert (digest, (tmp_path / "out").read_bytes()) == (sha(OLD), OLD)
    assert (tmp_path / "out").stat().st_nlink == 1


def test_a_copy_that_differs_is_not_published(store, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "hard_link", lambda source, target: False)
    (tmp_path / "x").write_bytes(NEW)

    with pytest.raises(StorageError, match="does not have the bytes"):
        store.publish(Publication("DONE/a", tmp_path / "x", sha(OLD), "j", 1))

    assert store.stat("DONE/a") is None
    assert (tmp_path / "x").exists()
    assert versions(folder) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, StorageError),
        (errno.EIO, Unavailable),
    ],
)
def test_a_disk_that_fails_while_publishing_loses_nothing(
    store, folder, tmp_path, monkeypatch, code, kind
):
    publish(store, tmp_path / "x")

    def fail(path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(file_io, "fsync_file", fail)
        with pytest.raises(kind, match="cannot be"):
            publish(store, tmp_path / "y", NEW, fence=2)

    assert (tmp_path / "y").read_bytes() == NEW
    assert read(store) == OLD
    assert len(versions(folder)) == 1


def test_an_object_in_a_folder_that_is_away_is_an_error_and_not_gone(store, folder, tmp_path):
    publish(store, tmp_path / "x")
    folder.rename(tmp_path / "unmounted")

    with pytest.raises(Unavailable, match="cannot be read"):
        read(store)


def test_a_folder_and_a_pipe_are_no_sources(store, tmp_path):
    (tmp_path / "x.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")

    for name in ("x.mp4", "pipe.mp4"):
        with pytest.raises(SourceUnreadable, match="is not a file"):
            store.accept(tmp_path / name, "TODO/all/x", moved=nothing, stop=STOP)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EACCES, SourceUnreadable),
        (errno.ELOOP, SourceUnreadable),
        (errno.ENOENT, SourceGone),
        (errno.EIO, Unavailable),
        (errno.ESTALE, Unavailable),
    ],
)
def test_each_failure_to_look_at_a_source_has_its_error(store, tmp_path, monkeypatch, code, kind):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"a clip")

    monkeypatch.setattr(source_files.os, "open", Mock(side_effect=OSError(code, os.strerror(code))))
    with pytest.raises(kind, match=r"video\.mp4"):
        store.accept(path, "TODO/all/x", moved=nothing, stop=STOP)


def test_a_linked_source_is_followed_to_its_new_path_and_to_no_other_file(store, tmp_path):
    path, moved, other = (tmp_path / name for name in ("a.mp4", "moved.mp4", "other.mp4"))
    path.write_bytes(b"clip")
    source = store.accept(path, "TODO/all/a.mp4", moved=nothing, stop=STOP)
    path.rename(moved)
    other.write_bytes(b"clip")

    for wrong in (other, path):
        store.follow(source, wrong)
        with pytest.raises(SourceGone):
            store.check(source)
    store.follow(source, moved)

    store.check(source)
    with store.fetch(source, tmp_path, moved=nothing, stop=STOP) as given:
        assert given.path == moved


def test_a_file_is_away_with_its_whole_library_and_gone_alone(opener, tmp_path):
    opened = opener()
    store = opened.backend.store
    library = tmp_path / "library"
    library.mkdir()
    path = library / "a.mp4"
    path.write_bytes(b"clip")
    (library / "b.mp4").write_bytes(b"clip")
    source = store.accept(path, "TODO/all/a.mp4", moved=nothing, stop=STOP)
    mark = Fingerprint(4, 1, 2, 3)
    placed = Placement("j", library, path, mark, "hevc", Mode.BESIDE, library / "a.hevc.mp4", 30.0)
    opened.catalog.record_placements([placed])

    library.rename(tmp_path / "unplugged")
    with pytest.raises(SourceAway, match="library is not there"):
        store.check(source)
    (tmp_path / "unplugged").rename(library)
    store.check(source)
    path.unlink()
    with pytest.raises(SourceGone):
        store.check(source)


def test_an_object_whose_bytes_a_backup_did_not_restore_is_gone_and_named(store, folder, tmp_path):
    publish(store, tmp_path / "x")
    data = versions(folder)[0] / "data"
    data.unlink()

    for look in (
        lambda: read(store),
        lambda: store.collect("DONE/a", tmp_path / "new", stop=STOP),
    ):
        with pytest.raises(SourceGone, match="is missing from the data folder") as caught:
            look()
        assert str(data) in str(caught.value)


STEPS = 12
"""How many calls a publication makes that change something on disk."""


PUBLISH = """
import hashlib, os, signal, sys
from pathlib import Path
from contracts.backends import PROFILES
from hevcq.backends.sql import source_files
from hevcq.backends.sql.factory import open_sql
from hevcq.ports.store import Publication
from hevcq.settings.model import Settings
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.util import file_io
from hevcq.util.clock import SystemClock
content = b"new rendition" * 100
left = 0
def numbered(owner, name):
    real = getattr(owner, name)
    def call(*args, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    setattr(owner, name, call)
def publish(folder, step):
    global left
    store = open_sql(Settings(data_dir=folder / "data"), PROFILES, SystemClock()).backend.store
    file = folder / "encode"
    file.write_bytes(content)
    for owner, name in ((source_files, "hard_link"), (file_io, "fsync_file"), (SqliteDatabase, "write"),
                        (Path, "unlink"), (Path, "mkdir"), (Path, "write_text")):
        numbered(owner, name)
    left = step
    store.publish(Publication("DONE/a", file, hashlib.sha256(content).hexdigest(), "j", 2))
for step in range(1, int(sys.argv[2]) + 1):
    child = os.fork()
    if child == 0:
        publish(Path(sys.argv[1]) / str(step), step)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def test_a_kill_at_any_step_of_a_publication_leaves_the_old_object_or_the_new_one(tmp_path, clock):
    def opened(step: int) -> SqlBackend:
        return open_sql(Settings(data_dir=tmp_path / str(step) / "data"), PROFILES, clock)

    steps = range(1, STEPS + 3)
    for step in steps:
        first = opened(step)
        publish(first.backend.store, tmp_path / "old")
        first.close()
    ran = subprocess.run(
        [sys.executable, "-c", PUBLISH, tmp_path, str(len(steps))],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    ends = [int(word) for word in ran.stdout.split()]
    assert ends == [9] * STEPS + [0, 0], "every step was hit, and the last two ran to the end"

    for step in steps:
        folder, again = tmp_path / str(step), opened(step)
        store = again.backend.store
        found = read(store)
        assert found in (OLD, NEW), step
        assert (folder / "encode").exists() or found == NEW, "the bytes are somewhere"
        kept = [path.name for path in versions(folder / "data")]
        assert kept == [store.stat("DONE/a").version], step
        assert list((folder / "data" / "processes").glob("*.alive")) != []
        again.close()


def test_an_unpublished_folder_of_a_live_process_is_left_alone(opener, folder):
    first = opener()
    theirs = first.backend.store._new_version("DONE/b")

    opener()

    assert theirs.is_dir()
    first.close()
    opener()
    assert not theirs.exists()


def test_a_commit_that_goes_through_and_still_raises_keeps_what_it_published(
    store, folder, tmp_path, monkeypatch
):
    publish(store, tmp_path / "x")
    real = store._database.write

    def interrupted(work, **named):
        real(work, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store._database, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish(store, tmp_path / "y", NEW, fence=2)

    assert read(store) == NEW
    assert publish(store, tmp_path / "y", NEW, fence=2) == store.stat("DONE/a")


@pytest.mark.parametrize("how", ["publish", "put"])
def test_a_commit_that_fails_withdraws_the_bytes(store, folder, tmp_path, monkeypatch, how):
    publish(store, tmp_path / "x")
    calls = {
        "publish": lambda: publish(store, tmp_path / "y", NEW, fence=2),
        "put": lambda: store.put("DONE/a", NEW, metadata={}),
    }

    with monkeypatch.context() as patched:
        patched.setattr(store._database, "write", Mock(side_effect=DatabaseBusy))
        with pytest.raises(DatabaseBusy):
            calls[how]()

    assert read(store) == OLD
    assert len(versions(folder)) == 1


def test_a_zombie_that_loses_at_the_last_moment_leaves_nothing(
    store, folder, tmp_path, monkeypatch
):
    publish(store, tmp_path / "x", NEW, fence=2)
    monkeypatch.setattr(store, "_visible", lambda key: None)

    with pytest.raises(StaleFence, match="too late"):
        publish(store, tmp_path / "y", OLD, fence=1)
    same = publish(store, tmp_path / "z", NEW, fence=1)

    monkeypatch.undo()
    assert store.stat("DONE/a") == same
    assert read(store) == NEW
    assert len(versions(folder)) == 1
    assert (tmp_path / "y").read_bytes() == OLD


LEASE_S = 60.0


def test_a_zombie_publishes_nothing_once_the_job_was_claimed_again(tmp_path, opener, clock):
    backend = opener().backend
    name = job_id(source(), "hevc")
    early = backend.ledger.claim(source(), "hevc", owner="zombie", lease_s=LEASE_S)
    clock.advance(LEASE_S + 1)
    later = backend.ledger.claim(source(), "hevc", owner="alive", lease_s=LEASE_S)
    assert isinstance(early, Granted)
    assert isinstance(later, Granted)

    with pytest.raises(StaleFence):
        publish(backend.store, tmp_path / "encode", job_id=name, fence=early.fence)

    assert backend.store.stat("DONE/a") is None
    seen = publish(backend.store, tmp_path / "encode", NEW, job_id=name, fence=later.fence)
    assert backend.store.stat("DONE/a") == seen
    assert [seen.version] == [path.name for path in (tmp_path.rglob("objects/??/*/*"))]


def test_a_job_that_gets_done_after_the_last_receive_leaves_no_letter(opener, clock):
    """Its message was received to the last while a worker still published: it needs nobody any more."""
    opened = opener()
    ledger, queue = opened.backend.ledger, opened.backend.queues["hevc"]
    slow, other = source("slow.mp4"), source("other.mp4")
    opened.backend.task_publisher.publish(slow, ["hevc"], announced=False)
    opened.backend.task_publisher.publish(other, ["hevc"], announced=False)
    claim = ledger.claim(slow, "hevc", owner="slow", lease_s=1e9)
    assert isinstance(claim, Granted)
    for _ in range(50):
        queue.receive(10, wait_s=0.0, stop=threading.Event())
        clock.advance(100_000.0)
    assert len(list(queue.dead_letters())) == 1, "the message of a held job waits"

    ledger.skip(job_id(slow, "hevc"), claim.fence, "not_smaller")

    (letter,) = queue.dead_letters()
    assert letter.task.source == other, "nobody finished that one"
    assert ledger.get(job_id(slow, "hevc")).state is JobState.SKIPPED
