"""A durable file or folder is synced through a descriptor of its own, which is closed again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hevcq.util.atomic_file import fsync_file, fsync_folder, replace_durably


def test_the_file_that_was_named_is_synced(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor)))

    fsync_file(path)
    fsync_folder(tmp_path)

    assert [facts.st_ino for facts in synced] == [path.stat().st_ino, tmp_path.stat().st_ino]


def test_a_file_is_not_synced_as_a_folder(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")

    with pytest.raises(NotADirectoryError):
        fsync_folder(path)


def test_a_replaced_file_is_durable_before_it_gets_its_name_and_its_name_after(
    tmp_path, monkeypatch
):
    temp, path, calls = tmp_path / "temp", tmp_path / "file", []
    path.write_bytes(b"old")
    temp.write_bytes(b"new")
    new, sync, rename = temp.stat().st_ino, os.fsync, Path.rename

    def synced(descriptor):
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def renamed(old, target):
        calls.append(("rename", old.stat().st_ino))
        return rename(old, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)

    replace_durably(temp, path)

    assert calls == [("fsync", new), ("rename", new), ("fsync", tmp_path.stat().st_ino)]
    assert path.read_bytes() == b"new"
    assert not temp.exists()
