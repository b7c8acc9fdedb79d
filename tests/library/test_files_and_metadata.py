"""The file system seam: renames that never overwrite, and what a file is besides its bytes."""

import errno
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.errors import HevcqError
from hevcq.library import filesystem as files
from hevcq.library.filesystem import FileSystem, copy_metadata
from hevcq.library.own_files import root_lock
from hevcq.util.file_io import sha256_bytes
from support.library import video


def fault(number: int):
    return Mock(side_effect=OSError(number, os.strerror(number)))


WAYS = {
    "one step": lambda patch: None,
    "link then unlink": lambda patch: patch.setattr(files, "_renameat2", lambda: None),
    "look then rename": lambda patch: (
        patch.setattr(files, "_renameat2", lambda: None),
        patch.setattr(os, "link", fault(errno.EPERM)),
    ),
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    WAYS[request.param](monkeypatch)


@pytest.mark.parametrize("link", [False, True])
def test_a_rename_never_overwrites_a_file_or_a_dangling_link_in_any_of_its_ways(
    tmp_path, way, *, link
):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    new.symlink_to("nowhere") if link else new.write_bytes(b"new")

    with pytest.raises(FileExistsError):
        FileSystem().rename_new(old, new)

    assert old.read_bytes() == b"old"
    assert new.is_symlink() if link else new.read_bytes() == b"new"


def answers_late(monkeypatch, where, name: str, number: int):
    """Let the first call do its work and fail, as where its answer was lost and it was repeated."""
    real, calls = getattr(where, name), []

    def call(*args, **how):
        result = real(*args, **how)
        calls.append(args)
        if len(calls) == 1:
            raise OSError(number, os.strerror(number))
        return result

    monkeypatch.setattr(where, name, call)


@pytest.mark.parametrize(
    ("how", "where", "call", "number"),
    [
        ("link then unlink", os, "link", errno.EEXIST),
        ("link then unlink", Path, "unlink", errno.ENOENT),
        ("look then rename", Path, "rename", errno.ENOENT),
    ],
)
def test_a_rename_whose_answer_a_share_lost_is_done(
    tmp_path, monkeypatch, how, where, call, number
):
    WAYS[how](monkeypatch)
    (tmp_path / "old").write_bytes(b"old")
    if (call, number) == ("unlink", errno.ENOENT):
        real = Path.unlink
        monkeypatch.setattr(Path, "unlink", lambda p, **by: (real(p), real(p, **by))[1])
    else:
        answers_late(monkeypatch, where, call, number)

    FileSystem().rename_new(tmp_path / "old", tmp_path / "new")

    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new").read_bytes() == b"old"


def test_names_that_a_share_folds_to_one_file_are_not_two_of_which_one_may_go(
    tmp_path, monkeypatch
):
    WAYS["link then unlink"](monkeypatch)
    old, new = tmp_path / "Video.mp4", tmp_path / "video.mp4"
    old.write_bytes(b"the only copy")
    monkeypatch.setattr(os, "link", fault(errno.EEXIST))
    stat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda p, **by: stat(old if p == new else p, **by))

    with pytest.raises(FileExistsError):
        FileSystem().rename_new(old, new)

    assert old.read_bytes() == b"the only copy"


def test_a_rename_of_what_is_gone_is_no_lost_answer(tmp_path):
    (tmp_path / "new").write_bytes(b"of another")
    with pytest.raises(FileNotFoundError):
        FileSystem().rename(tmp_path / "old", tmp_path / "new")


def test_a_stale_handle_is_opened_anew(tmp_path, monkeypatch):
    (tmp_path / "video").write_bytes(b"bytes")
    answers_late(monkeypatch, files, "sha256_stream", errno.ESTALE)
    assert FileSystem().digest(tmp_path / "video") == sha256_bytes(b"bytes")


def test_a_rename_between_real_devices_says_so(tmp_path):
    devices = (Path("/dev/shm"), Path(__file__).parent)
    here = tmp_path.stat().st_dev
    other = next((p for p in devices if p.is_dir() and p.stat().st_dev != here), None)
    if other is None:
        pytest.skip("there is no second file system at /dev/shm")
    folder = other / f".hevcq-test-{os.getpid()}"
    folder.mkdir()
    try:
        (tmp_path / "old").write_bytes(b"old")
        with pytest.raises(OSError, match="cross-device"):
            FileSystem().rename_new(tmp_path / "old", folder / "new")
    finally:
        shutil.rmtree(folder)


def test_a_copy_never_overwrites_and_a_digest_never_follows_a_link(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    with pytest.raises(FileExistsError):
        FileSystem().copy(tmp_path / "old", tmp_path / "new")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    with pytest.raises(OSError, match="symbolic links"):
        FileSystem().digest(tmp_path / "link")


def test_set_id_bits_are_not_carried(tmp_path):
    made = video(tmp_path)
    made.source.chmod(0o6755)
    new = tmp_path / "new"
    new.write_bytes(b"x")

    assert copy_metadata(made.source, new) == ()
    assert new.stat().st_mode & 0o7777 == 0o755


LOSSES = [
    ("chown", errno.EPERM, "Owner and group not preserved"),
    ("chown", errno.EIO, "Owner not preserved: Input/output error"),
    ("chmod", errno.EPERM, "Mode not preserved"),
    ("setxattr", errno.ENOTSUP, "Attribute 'user.note' not preserved"),
]


@pytest.mark.parametrize(("call", "number", "words"), LOSSES)
def test_what_cannot_be_carried_is_reported_and_the_rest_is(
    tmp_path, monkeypatch, call, number, words
):
    made = video(tmp_path)
    if call == "setxattr" and not os.listxattr(made.source):
        pytest.skip("this file system has no extended attributes")
    new = tmp_path / "new"
    new.write_bytes(b"x")
    if call == "chown":
        real = os.lstat(new)
        other = os.stat_result((*real[:4], real.st_uid + 1, *real[5:]))
        stat = os.lstat
        monkeypatch.setattr(os, "lstat", lambda p, **by: other if p == new else stat(p, **by))
    monkeypatch.setattr(os, call, fault(number))

    (sentence,) = copy_metadata(made.source, new)

    assert words in sentence
    assert new.stat().st_mtime_ns == made.facts.st_mtime_ns


def test_a_read_only_root_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", fault(errno.EROFS))
    with pytest.raises(HevcqError, match="Read-only"), root_lock(tmp_path, FileSystem()):
        pytest.fail("the lock was given")
