"""A durable file or folder is synced through a descriptor of its own, which is closed again."""

from __future__ import annotations

import os

import pytest

from hevcq.util.atomic_file import fsync_file, fsync_folder


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
