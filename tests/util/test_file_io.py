"""Files are hashed in blocks, stoppable between them, and synced through a descriptor of their own."""

import hashlib
import io
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.util.file_io import (
    READ_BYTES,
    fsync_file,
    fsync_folder,
    replace_durably,
    sha256_bytes,
    sha256_file,
    sha256_stream,
)


def test_a_file_is_hashed_in_blocks_and_checked_at_each(tmp_path):
    content = os.urandom(2 * READ_BYTES + 5)
    path = tmp_path / "video"
    path.write_bytes(content)
    checks = []

    assert sha256_file(path, lambda: checks.append(1)) == hashlib.sha256(content).hexdigest()
    assert len(checks) == 3


def test_a_stream_that_hands_out_little_at_a_time_is_hashed_whole():
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    content = b"0123456789"

    assert sha256_stream(Trickle(content), lambda: None) == (sha256_bytes(content), 10)


def test_what_the_check_raises_ends_the_reading(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"x")

    with pytest.raises(InterruptedError):
        sha256_file(path, Mock(side_effect=InterruptedError))
    with pytest.raises(FileNotFoundError):
        sha256_file(tmp_path / "none", lambda: None)


def test_the_file_that_was_named_is_synced(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor)))

    fsync_file(path)
    fsync_folder(tmp_path)

    assert [facts.st_ino for facts in synced] == [path.stat().st_ino, tmp_path.stat().st_ino]


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
