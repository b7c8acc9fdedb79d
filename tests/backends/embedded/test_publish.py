"""A publication is one commit: whatever happens around it, a reader sees the old object or the new."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.embedded.objects import NEW, OLD, publish, read, versions
from hevcq.errors import (
    DatabaseBusy,
    StaleFence,
)

STEPS = 13
"""How many calls a publication makes that change something on disk."""

PUBLISH = """
import hashlib, os, signal
from hevcq.backends.embedded.store import files
from hevcq.backends.embedded.database import Database
from hevcq.ports.store import Publication
from hevcq.util import atomic_file
store, file = backend.store, Path(sys.argv[1]).parent / "encode"
content = b"new rendition" * 100
file.write_bytes(content)
left = {step}
def numbered(owner, name):
    real = getattr(owner, name)
    def call(*args, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    setattr(owner, name, call)
for owner, name in ((files, "link"), (atomic_file, "fsync_file"), (Database, "write"), (Path, "unlink"),
                    (Path, "mkdir"), (Path, "write_text")):
    numbered(owner, name)
store.publish(Publication("DONE/a", file, hashlib.sha256(content).hexdigest(), "j", 2))
tell("published", left)
"""


@pytest.mark.parametrize("step", range(1, STEPS + 3))
def test_a_kill_at_any_step_of_a_publication_leaves_the_old_object_or_the_new_one(
    folder: Path, opener, other, tmp_path: Path, step: int
) -> None:
    first = opener()
    publish(first.backend.store, tmp_path / "old")
    first.close()
    victim = other(PUBLISH.format(step=step))
    said = victim.line()
    victim.process.wait(timeout=30)
    assert bool(said) == (step > STEPS), "every step was hit, and the last two ran to the end"

    store = opener().backend.store

    found = read(store)
    assert found in (OLD, NEW)
    assert (tmp_path / "encode").exists() or found == NEW, "the bytes are somewhere"
    assert [path.name for path in versions(folder)] == [store.stat("DONE/a").version]
    assert list((folder / "presence").glob("*.alive")) != []


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

    def fail(*_args: object, **_named: object) -> None:
        raise DatabaseBusy

    with monkeypatch.context() as patched:
        patched.setattr(store._database, "write", fail)
        with pytest.raises(DatabaseBusy):
            calls[how]()

    assert read(store) == OLD
    assert len(versions(folder)) == 1


def test_a_publication_that_cannot_clean_up_after_itself_still_succeeds(
    opener, folder, tmp_path, monkeypatch
) -> None:
    opened = opener()
    store = opened.backend.store
    publish(store, tmp_path / "x")

    def fail(*_args: object, **_named: object) -> None:
        raise DatabaseBusy

    with monkeypatch.context() as patched:
        patched.setattr(store._database, "change", fail)
        publish(store, tmp_path / "y", NEW, fence=2)

    assert read(store) == NEW
    assert store._database.rows("SELECT key FROM discarded") == [("DONE/a",)]
    opened.close()
    again = opener().backend.store
    assert again._database.rows("SELECT key FROM discarded") == []
    assert read(again) == NEW


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
