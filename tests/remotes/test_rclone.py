"""Files of an rclone remote, by the real program where it is installed."""

import shutil
import threading

import pytest

from hevcq.cli.app import run
from hevcq.errors import ConfigError, SourceGone, Unavailable, UsageError
from hevcq.ports.sync import Removal
from hevcq.remotes.rclone.remote import RcloneRemote
from hevcq.settings.sync import SyncSettings
from hevcq.wiring.sync import open_remote

needs_rclone = pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed")


def answering(code: int, printed: bytes = b"", said: str = ""):
    """Stand in for the program."""

    def answer(_arguments, on_chunk):
        if printed:
            on_chunk(printed)
        return code, said

    return RcloneRemote("drive:", answer)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "cloud/Camera").mkdir(parents=True)
    (tmp_path / "rclone.conf").write_text(f"[drive]\ntype = alias\nremote = {tmp_path}/cloud\n")
    return tmp_path / "cloud/Camera"


def opened(tmp_path, name="drive:"):
    told = {"name": "a", "url": f"rclone:{name}", "folders": ("Camera",), "target": tmp_path}
    settings = SyncSettings(**told, rclone_config=tmp_path / "rclone.conf")
    return open_remote(settings, threading.Event())


@needs_rclone
def test_lists_and_reads_whole_and_from_the_middle(files, tmp_path):
    content = bytes(range(256)) * 4000
    (files / "-a b.mp4").write_bytes(content)
    (files / "2024").mkdir()
    remote = opened(tmp_path)
    listed = remote.folder("Camera")
    assert listed.folders == ("Camera/2024",)
    (file,) = listed.files
    assert (file.path, file.size) == ("Camera/-a b.mp4", len(content))
    assert remote.stat(file.path) == file
    with remote.read(file, 1000) as body:
        assert body.start == 1000
        assert b"".join(body.blocks) == content[1000:]
    with remote.read(file, 0) as body:
        assert next(body.blocks)  # and no more: the program must not keep on waiting
    assert remote.remove(file) is Removal.REFUSED
    assert (files / "-a b.mp4").exists()


@needs_rclone
def test_what_is_not_there_is_reported(files, tmp_path):
    remote = opened(tmp_path)
    assert remote.stat("Camera/a") is None
    with pytest.raises(UsageError, match="no folder Other"):
        remote.folder("Other")
    with pytest.raises(ConfigError, match="rclone config"):
        opened(tmp_path, "nobody:").folder("Camera")


@needs_rclone
def test_a_sync_copies_and_says_why_it_does_not_move(files, tmp_path, capsys):
    (files / "a.mp4").write_bytes(b"video")
    (tmp_path / "target").mkdir()
    (tmp_path / "hevcq.toml").write_text(
        'data_dir = "data"\n[[sync]]\nname = "d"\nurl = "rclone:drive:"\nfolders = ["Camera"]\n'
        'rclone_config = "rclone.conf"\ntarget = "target"\nmode = "move"\nsettle = 0\n'
    )
    assert run(["--config", str(tmp_path / "hevcq.toml"), "sync"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("copied  Camera/a.mp4")
    assert "deletes one version only" in said.err
    assert (tmp_path / "target/a.mp4").read_bytes() == b"video"
    assert (files / "a.mp4").exists()


def test_names_that_lead_elsewhere_are_refused():
    listed = b'[{"Name": "..", "Size": 1}, {"Name": "a/b", "Size": 1}, {"Name": "c", "Size": 1}]'
    found = answering(0, listed).folder("")
    assert [file.path for file in found.files] == ["c"]
    assert found.refused == ("..", "a/b")


def test_a_file_without_a_size_is_none():
    assert answering(0, b'[{"Name": "doc", "Size": -1}]').folder("").files == ()


def test_failures_are_told_apart():
    file = answering(0, b'[{"Name": "c", "Size": 1}]').folder("").files[0]
    with pytest.raises(Unavailable, match="no route"):
        answering(1, said="no route to host").folder("")
    with pytest.raises(Unavailable, match="cut off"):
        answering(0, b"[{").folder("")
    with answering(4).read(file, 0) as body, pytest.raises(SourceGone):
        list(body.blocks)
    with answering(1, b"half").read(file, 0) as body, pytest.raises(Unavailable):
        list(body.blocks)
