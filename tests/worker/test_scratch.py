"""Scratch: each process has a locked folder; what dead processes left is swept, nothing else is."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.errors import DiskFull, Unavailable, WorkerUnfit
from hevcq.util.signals import StopSignals
from hevcq.worker.admission import Scratch
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import WorkerPool
from hevcq.worker.slot import SlotOutcome
from support.clips import ManualClock
from support.fakes.farm import Farm

HOLD = """
import sys, pathlib, time
from hevcq.util.clock import SystemClock
from hevcq.worker.admission import Scratch
import threading
scratch = Scratch(pathlib.Path(sys.argv[1]), SystemClock())
with scratch.job("job") as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    threading.Event().wait(60)
"""


@pytest.fixture
def scratch(tmp_path) -> Scratch:
    return Scratch(tmp_path / "scratch", ManualClock())


def test_two_attempts_at_one_job_in_one_process_never_share_a_folder(scratch):
    """Found by the simulation: a slot whose lease is lost may still be ending its encode."""
    with scratch.job("a") as zombies:
        (zombies / "rendition.mp4").write_bytes(b"half")
        with scratch.job("a") as folder:
            assert list(folder.iterdir()) == []
            assert (zombies / "rendition.mp4").read_bytes() == b"half"
        assert zombies.is_dir()


def test_what_a_killed_process_left_is_swept(tmp_path):
    root = tmp_path / "scratch"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        scratch = Scratch(root, ManualClock())
        assert scratch.sweep() == 0
        assert list(root.rglob("half")) != []
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        assert scratch.sweep() == 1
        assert list(root.iterdir()) == []
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()


def test_a_sweep_touches_nothing_that_is_not_hevcqs(scratch):
    root = scratch.folder
    (root / "holiday").mkdir(parents=True)
    (root / "hevcq-notes.lock").touch()
    (root / "a.mp4").touch()

    assert scratch.sweep() == 0
    assert len(list(root.iterdir())) == 3


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, WorkerUnfit),
        (errno.EROFS, WorkerUnfit),
        (errno.EIO, Unavailable),
    ],
)
def test_each_trouble_with_the_folder_has_its_own_name(scratch, monkeypatch, number, kind):
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=OSError(number, os.strerror(number))))

    with pytest.raises(kind, match="scratch folder"), scratch.job("a"):
        pass


def test_a_file_system_without_locks_is_refused_with_the_way_out(scratch, monkeypatch):
    monkeypatch.setattr(
        "fcntl.flock", Mock(side_effect=OSError(errno.ENOLCK, "No locks available"))
    )

    with pytest.raises(WorkerUnfit, match="scratch_dir"), scratch.job("a"):
        pass


def test_a_sweep_that_comes_between_making_and_locking_a_file_is_survived(scratch, monkeypatch):
    other = Scratch(scratch.folder, ManualClock())
    real, raced = fcntl.flock, []

    def flock(lock, how):
        if not raced:
            raced.append(1)
            assert other.sweep() == 1
        return real(lock, how)

    monkeypatch.setattr("fcntl.flock", flock)

    with scratch.job("a") as folder:
        assert other.sweep() == 0
        assert folder.is_dir()


Usage = namedtuple("Usage", "total used free")


GIB = 1 << 30


def disk(monkeypatch: pytest.MonkeyPatch, *, total: int, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(total, total - free, free))


def pool_of(farm: Farm, slots: int = 2) -> WorkerPool:
    return WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], slots=slots)


def test_a_disk_on_which_no_work_could_ever_begin_takes_the_worker_out(tmp_path, monkeypatch):
    farm = Farm(tmp_path)
    farm.with_context(min_free_bytes=GIB)
    source = farm.submit()
    disk(monkeypatch, total=GIB // 2, free=GIB // 2)
    pool = pool_of(farm)

    assert pool.run(StopSignals()) is SlotOutcome.UNFIT
    assert isinstance(pool.error, WorkerUnfit)
    assert "has 512 MiB, and 1024 MiB must stay free (min_free_mib)" in str(pool.error)
    assert farm.record(source).fence == 0
