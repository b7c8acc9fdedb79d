"""A publication is one commit: whatever happens around it, a reader sees the old object or the new."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from backends.sql.conftest import TESTS
from backends.sql.objects import NEW, OLD, publish, read, versions
from contracts.backends import PROFILES, source
from hevcq.backends.sql.factory import SqlBackend, open_sql
from hevcq.domain.job import JobState, job_id
from hevcq.errors import (
    DatabaseBusy,
    StaleFence,
)
from hevcq.ports.ledger import Granted
from hevcq.ports.store import Publication
from hevcq.settings.model import Settings

STEPS = 12
"""How many calls a publication makes that change something on disk."""


PUBLISH = """
import hashlib, os, signal, sys
from pathlib import Path
from contracts.backends import PROFILES
from hevcq.backends.sql import files
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
    for owner, name in ((files, "link"), (file_io, "fsync_file"), (SqliteDatabase, "write"), (Path, "unlink"),
                        (Path, "mkdir"), (Path, "write_text")):
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


def test_a_kill_at_any_step_of_a_publication_leaves_the_old_object_or_the_new_one(
    tmp_path: Path, clock
) -> None:
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


def test_an_unpublished_folder_of_a_live_process_is_left_alone(opener, folder: Path) -> None:
    first = opener()
    theirs = first.backend.store._new_version("DONE/b")

    opener()

    assert theirs.is_dir()
    first.close()
    opener()
    assert not theirs.exists()


def test_a_commit_that_goes_through_and_still_raises_keeps_what_it_published(
    store, folder, tmp_path, monkeypatch
) -> None:
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
def test_a_commit_that_fails_withdraws_the_bytes(
    store, folder, tmp_path, monkeypatch, how: str
) -> None:
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
) -> None:
    publish(store, tmp_path / "x", NEW, fence=2)
    monkeypatch.setattr(store, "_find", lambda key: None)

    with pytest.raises(StaleFence, match="too late"):
        publish(store, tmp_path / "y", OLD, fence=1)
    same = publish(store, tmp_path / "z", NEW, fence=1)

    monkeypatch.undo()
    assert store.stat("DONE/a") == same
    assert read(store) == NEW
    assert len(versions(folder)) == 1
    assert (tmp_path / "y").read_bytes() == OLD


LEASE_S = 60.0


def test_a_zombie_publishes_nothing_once_the_job_was_claimed_again(tmp_path: Path, opener, clock):
    backend = opener().backend
    name = job_id(source(), "hevc")
    early = backend.ledger.claim(source(), "hevc", owner="zombie", lease_s=LEASE_S)
    clock.advance(LEASE_S + 1)
    later = backend.ledger.claim(source(), "hevc", owner="alive", lease_s=LEASE_S)
    assert isinstance(early, Granted)
    assert isinstance(later, Granted)

    with pytest.raises(StaleFence):
        backend.store.publish(publication(tmp_path, name, early.fence, b"too late"))

    assert backend.store.stat("DONE/a") is None
    seen = backend.store.publish(publication(tmp_path, name, later.fence, b"in time"))
    assert backend.store.stat("DONE/a") == seen
    assert [seen.version] == [path.name for path in (tmp_path.rglob("objects/??/*/*"))]


def publication(folder: Path, job: str, fence: int, content: bytes) -> Publication:
    file = folder / "encode"
    file.write_bytes(content)
    return Publication("DONE/a", file, hashlib.sha256(content).hexdigest(), job, fence)


def test_a_job_that_gets_done_takes_back_the_letter_that_the_queue_made_meanwhile(opener, clock):
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
    assert len(list(queue.dead_letters())) == 2

    ledger.skip(job_id(slow, "hevc"), claim.fence, "not_smaller")

    (letter,) = queue.dead_letters()
    assert letter.task.source == other, "nobody finished that one"
    assert ledger.get(job_id(slow, "hevc")).state is JobState.SKIPPED
