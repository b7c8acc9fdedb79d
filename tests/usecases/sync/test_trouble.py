"""What goes wrong in the middle of a sync: on the server, on the disk, or with a name."""

import errno
import shutil

import pytest

from hevcq.errors import DiskFull, UsageError
from hevcq.library.filesystem import FileSystem
from hevcq.usecases.sync import move
from hevcq.usecases.sync.session import Fate
from support.syncing import VIDEO
from support.webdav import refusing


def failing(code: int):
    def call(*_given):
        raise OSError(code, "no matter what")

    return call


def test_a_target_that_goes_during_a_sync_is_not_made_again(machine):
    for name in ("a", "b"):
        machine.server.put(f"Camera/{name}.mp4", VIDEO)
    machine.on_bytes = lambda *_: shutil.rmtree(machine.target, ignore_errors=True)
    with pytest.raises(UsageError, match="mount its disk"):
        machine.sync()
    assert not machine.target.exists()
    assert len(machine.server.files()) == 2


def test_a_sync_whose_hours_end_finishes_its_file_and_begins_no_other(machine):
    for name in ("a", "b"):
        machine.server.put(f"Camera/{name}.mp4", VIDEO)
    machine.hours = iter([True, False])
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.server.files() == {"Camera/b.mp4": VIDEO}


def test_a_disk_that_is_full_ends_the_sync_and_the_server_keeps_its_file(machine, monkeypatch):
    machine.server.put("Camera/a.mp4", VIDEO)
    monkeypatch.setattr(FileSystem, "fsync_file", failing(errno.ENOSPC))
    with pytest.raises(DiskFull, match="is full"):
        machine.sync()
    assert machine.server.files() == {"Camera/a.mp4": VIDEO}


def test_a_server_that_allows_no_deleting_keeps_its_copy_and_it_is_said(machine):
    machine.server.put("Camera/a.mp4", b"1")
    machine.sync()
    machine.server.put("Camera/b.mp4", b"2")
    machine.server.faults.append(refusing(403))
    (told,) = machine.sync()
    assert (told.fate, told.reason.endswith("does not allow its copy to be deleted")) == (
        Fate.LEFT,
        True,
    )


def test_a_landing_that_could_not_be_proven_is_not_taken_for_one(machine, monkeypatch):
    machine.server.put("Camera/a.mp4", VIDEO)
    with monkeypatch.context() as disk:
        disk.setattr(FileSystem, "digest", lambda *_: "0" * 64)
        assert machine.fates() == {"Camera/a.mp4": Fate.FAILED}
    assert machine.server.files() == {"Camera/a.mp4": VIDEO}
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.files() == {"a.mp4": VIDEO}


def test_a_folder_that_the_settings_no_longer_name_is_let_alone(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.server.put("Other/b.mp4", VIDEO[1:])
    machine.sync(settle_s=600)
    assert machine.fates(folders=("Other",)) == {"Other/b.mp4": Fate.MOVED}
    machine.clock.advance(600)
    assert machine.fates(settle_s=600) == {"Camera/a.mp4": Fate.MOVED}, "it is known since then"


@pytest.mark.parametrize(("most", "fate"), [(1, Fate.FAILED), (2, Fate.MOVED)])
def test_a_name_that_another_program_takes_meanwhile_is_not_overwritten(
    machine, monkeypatch, most, fate
):
    (machine.target / "a.mp4").write_bytes(b"another")
    machine.server.put("Camera/a.mp4", VIDEO)
    monkeypatch.setattr(FileSystem, "names", lambda *_: [])
    monkeypatch.setattr(move, "MAX_NUMBER", most)
    (told,) = machine.sync()
    assert (told.fate, "no free name" in told.reason) == (fate, fate is Fate.FAILED)
    assert machine.files()["a.mp4"] == b"another"
    assert bool(machine.server.files()) is (fate is Fate.FAILED)
