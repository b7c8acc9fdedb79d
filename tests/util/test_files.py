"""Locks that files are, and files that are hashed and replaced."""

import errno
import fcntl
import hashlib
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.util.file_io import READ_BYTES, replace_durably, sha256_file
from hevcq.util.file_lock import LocksUnsupported, acquire, is_locked, take_over, try_acquire


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


def before_locking(monkeypatch, *, times, do):
    """Call `do` between the open and the lock, the first `times` times."""
    real, left = fcntl.flock, [times]

    def flock(descriptor, how):
        if left[0]:
            left[0] -= 1
            do()
        return real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)


def is_at(descriptor, path):
    return os.path.samestat(os.fstat(descriptor), path.lstat())


def test_a_held_lock_is_refused_to_others_until_it_is_closed(path):
    mine = try_acquire(path)

    assert is_locked(path)
    assert try_acquire(path) is None
    assert take_over(path) is None
    os.close(mine)
    assert not is_locked(path)
    os.close(try_acquire(path))


def test_waiter_gets_released_lock(path):
    mine, got = acquire(path), threading.Event()
    assert is_locked(path), "one holder at a time, also of those who wait"

    def wait():
        os.close(acquire(path))
        got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.is_set()
    os.close(mine)
    waiting.join(60)
    assert got.is_set()


@pytest.mark.parametrize("take", [acquire, try_acquire])
def test_a_file_removed_before_it_is_locked_is_created_and_locked_again(monkeypatch, path, take):
    before_locking(monkeypatch, times=2, do=path.unlink)

    descriptor = take(path)

    assert is_at(descriptor, path)
    os.close(descriptor)


@pytest.mark.parametrize("take", [acquire, try_acquire])
def test_a_file_replaced_before_it_is_locked_is_opened_again(monkeypatch, path, take):
    other = path.with_name("other")
    other.touch()
    before_locking(monkeypatch, times=1, do=lambda: other.rename(path))

    descriptor = take(path)

    assert is_at(descriptor, path)
    os.close(descriptor)


def test_a_missing_or_replaced_lock_file_is_not_taken_over(monkeypatch, path):
    assert take_over(path) is None
    assert not path.exists()
    path.touch()

    def replace():
        path.unlink()
        path.touch()

    before_locking(monkeypatch, times=1, do=replace)
    assert take_over(path) is None
    os.close(take_over(path))


def test_a_link_in_a_locks_place_is_not_followed(path, tmp_path):
    target = tmp_path / "precious"
    target.write_bytes(b"kept")
    path.symlink_to(target)

    for take in (acquire, try_acquire):
        with pytest.raises(OSError, match="symbolic links"):
            take(path)
    assert take_over(path) is None
    assert target.read_bytes() == b"kept"


@pytest.mark.parametrize("take", [acquire, try_acquire])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_says_so_and_leaks_no_descriptor(
    monkeypatch, path, take, number
):
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(number, os.strerror(number))))
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(LocksUnsupported) as caught:
        take(path)
    assert caught.value.errno == number
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_hashed_in_blocks_and_checked_at_each(tmp_path):
    content = os.urandom(2 * READ_BYTES + 5)
    path = tmp_path / "video"
    path.write_bytes(content)
    checks = []

    assert sha256_file(path, lambda: checks.append(1)) == hashlib.sha256(content).hexdigest()
    assert len(checks) == 3


def test_an_error_of_the_check_ends_the_read(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"x")

    with pytest.raises(InterruptedError):
        sha256_file(path, Mock(side_effect=InterruptedError))
    with pytest.raises(FileNotFoundError):
        sha256_file(tmp_path / "none", lambda: None)


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
