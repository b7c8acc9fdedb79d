"""What only the embedded store promises: nothing of a crash stays, any name, any file system."""

import errno
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from backends.sql.objects import NEW, OLD, publish, read, versions
from contracts.objects import nothing, sha
from hevcq.backends.sql import files
from hevcq.backends.sql.factory import OBJECTS
from hevcq.errors import (
    DiskFull,
    SourceAway,
    SourceGone,
    SourceUnreadable,
    StorageError,
    Unavailable,
)
from hevcq.ports.catalog import Fingerprint, Mode, Placement
from hevcq.ports.store import Publication
from hevcq.util import file_io

STOP = threading.Event()


def test_replaced_and_deleted_objects_leave_no_bytes_behind(store, folder, tmp_path) -> None:
    publish(store, tmp_path / "x")
    publish(store, tmp_path / "x", NEW, fence=2)
    assert len(versions(folder)) == 1

    store.delete("DONE/a")

    assert list((folder / OBJECTS).iterdir()) == []


def test_a_sweep_leaves_what_a_process_published_whose_name_begins_alike(
    store, folder, tmp_path
) -> None:
    publish(store, tmp_path / "x")
    (version,) = versions(folder)

    store.sweep(version.name.rpartition("-")[0][:-1])

    assert read(store) == OLD


def test_where_links_are_not_possible_the_bytes_are_copied_and_compared(
    store, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(files, "link", lambda source, target: False)
    publish(store, tmp_path / "x")
    assert read(store) == OLD
    assert not (tmp_path / "x").exists()
    moved: list[int] = []

    digest = store.collect("DONE/a", tmp_path / "out", moved=moved.append, stop=STOP)

    assert (digest, (tmp_path / "out").read_bytes()) == (sha(OLD), OLD)
    assert moved[-1] == len(OLD)
    assert (tmp_path / "out").stat().st_nlink == 1


def test_a_copy_that_differs_is_not_published(store, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "link", lambda source, target: False)
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
    store, folder, tmp_path, monkeypatch, code: int, kind: type
) -> None:
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


def test_an_object_in_a_folder_that_is_away_is_an_error_and_not_gone(
    store, folder, tmp_path
) -> None:
    publish(store, tmp_path / "x")
    folder.rename(tmp_path / "unmounted")

    with pytest.raises(Unavailable, match="cannot be read"):
        read(store)


def test_a_folder_and_a_pipe_are_no_sources(store, tmp_path: Path) -> None:
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
def test_each_failure_to_look_at_a_source_has_its_error(
    store, tmp_path, monkeypatch, code: int, kind: type
) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"a clip")

    monkeypatch.setattr(files.os, "open", Mock(side_effect=OSError(code, os.strerror(code))))
    with pytest.raises(kind, match=r"video\.mp4"):
        store.accept(path, "TODO/all/x", moved=nothing, stop=STOP)


def test_a_linked_source_is_followed_to_its_new_path_and_to_no_other_file(
    store, tmp_path: Path
) -> None:
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


def test_a_file_is_away_with_its_whole_library_and_gone_alone(opener, tmp_path) -> None:
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


def test_an_object_whose_bytes_a_backup_did_not_restore_is_gone_and_named(
    store, folder, tmp_path: Path
) -> None:
    publish(store, tmp_path / "x")
    data = versions(folder)[0] / "data"
    data.unlink()

    for look in (
        lambda: read(store),
        lambda: store.collect("DONE/a", tmp_path / "new", moved=nothing, stop=STOP),
    ):
        with pytest.raises(SourceGone, match="is missing from the data folder") as caught:
            look()
        assert str(data) in str(caught.value)
