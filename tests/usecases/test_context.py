"""Which folders the page may show, and which names and links it must not follow.

The state of a library's folder, found before anything in it is opened.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hevcq.errors import StorageError, UsageError
from hevcq.settings.libraries import Library
from hevcq.usecases import context
from hevcq.usecases.context import (
    folder_state,
    library_words,
    require_browsable,
    roots_of,
    subfolders,
)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    made = tmp_path / "media"
    for name in ("Films", ".hidden/inside", "lost+found", "#recycle", "<b>bold", "own/store"):
        (made / name).mkdir(parents=True)
    (made / "clip.mkv").touch()
    (made / "inside").symlink_to(made / "Films")
    (made / "out").symlink_to(tmp_path)
    os.mkdir(os.fsencode(made) + b"/b\xe4d")
    return made


def test_hidden_system_and_own_folders_are_left_out_and_links_out_are_closed(media):
    found = {each.name: each for each in subfolders(media, [media], media / "own")}

    assert set(found) == {"Films", "<b>bold", "inside", "out", "b\udce4d"}
    assert found["inside"].link
    assert not found["inside"].closed
    assert "leads out" in found["out"].closed
    assert "UTF-8" in found["b\udce4d"].closed


@pytest.mark.parametrize(
    "asked",
    ["..", "out", "out/secret", ".hidden", ".hidden/inside", "own/store", "clip.mkv", "gone"],
)
def test_what_is_not_to_be_seen_is_refused(media, tmp_path, asked):
    (tmp_path / "secret").mkdir()

    with pytest.raises(UsageError):
        require_browsable(media / asked, [media], media / "own")


def test_a_root_of_the_system_shows_none_of_its_folders():
    assert not {"etc", "proc", "dev", "usr"} & {
        each.name for each in subfolders(Path("/"), [Path("/")], Path("/nowhere"))
    }
    with pytest.raises(UsageError):
        require_browsable(Path("/etc"), [Path("/")], Path("/nowhere"))


def test_without_a_setting_home_and_disks_are_roots_but_no_mounts_of_the_system(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    mounts = ["/", "/proc", "/etc/hosts", "/dev/shm", "/usr/share", "/srv", "/run/user/0"]

    found = roots_of((), mounts)

    assert found == [tmp_path, Path("/srv")]
    assert roots_of(("/media/a", "~/b"), []) == [Path("/media/a"), tmp_path / "b"]


def shows(folder: Path) -> Library:
    return Library.model_validate({"name": "shows", "path": folder})


@pytest.mark.parametrize(
    ("flag", "words"),
    [(os.ST_RDONLY, "is mounted read-only here"), (0, "give this user write permission")],
)
def test_a_read_only_mount_is_told_from_a_missing_permission(tmp_path, monkeypatch, flag, words):
    monkeypatch.setattr(context.os, "access", lambda _path, mode: not mode & os.W_OK)
    monkeypatch.setattr(context, "free_disk_bytes", lambda _path: 1)
    monkeypatch.setattr(context.os, "statvfs", lambda _path: SimpleNamespace(f_flag=flag))
    assert words in folder_state(shows(tmp_path)).problem


def test_a_folder_that_is_not_there_or_is_a_file_is_reported(tmp_path):
    gone = folder_state(shows(tmp_path / "gone"))
    assert "is not there: is its disk mounted?" in gone.problem
    assert gone.identity == ("", 0, 0)
    file = tmp_path / "file"
    file.touch()
    assert "is no folder." in folder_state(shows(file)).problem

    with pytest.raises(StorageError, match="Mount it"):
        library_words(shows(tmp_path / "gone"))
