"""What is told of a library's folder before anything in it is opened."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hevcq.errors import StorageError
from hevcq.library.scanning.fs_events import Mount
from hevcq.settings.libraries import Library
from hevcq.usecases import library_state
from hevcq.usecases.library_state import (
    FolderState,
    count_videos,
    folder_state,
    library_words,
    watching,
    words,
)


def shows(folder: Path) -> Library:
    return Library.model_validate({"name": "shows", "path": folder})


def test_a_folder_that_can_be_written_has_no_problem(tmp_path: Path) -> None:
    assert folder_state(shows(tmp_path)).problem == ""


@pytest.mark.parametrize(
    ("flag", "words"),
    [(os.ST_RDONLY, "is mounted read-only here"), (0, "give this user write permission")],
)
def test_a_read_only_mount_is_told_from_a_missing_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: int, words: str
) -> None:
    monkeypatch.setattr(library_state.os, "access", lambda _path, mode: not mode & os.W_OK)
    monkeypatch.setattr(library_state, "free_beside", lambda _path: 1)
    monkeypatch.setattr(library_state.os, "statvfs", lambda _path: SimpleNamespace(f_flag=flag))
    assert words in folder_state(shows(tmp_path)).problem


def test_a_folder_that_is_not_there_or_is_a_file_is_reported(tmp_path: Path) -> None:
    gone = folder_state(shows(tmp_path / "gone"))
    assert "is not there: is its disk mounted?" in gone.problem
    assert gone.identity == ("", 0, 0)
    file = tmp_path / "file"
    file.touch()
    assert "is no folder." in folder_state(shows(file)).problem

    with pytest.raises(StorageError, match="Mount it"):
        library_words(shows(tmp_path / "gone"))


def test_a_folder_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_state.os, "access", lambda _path, mode: not mode & os.R_OK)
    assert "give this user read permission" in folder_state(shows(tmp_path)).problem


def test_a_disk_that_does_not_answer_leaves_its_room_and_its_mount_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_path: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(library_state, "free_beside", fails)
    monkeypatch.setattr(library_state.os, "statvfs", fails)
    monkeypatch.setattr(library_state.os, "access", lambda _path, mode: not mode & os.W_OK)
    state = folder_state(shows(tmp_path))
    assert "give this user write permission" in state.problem
    assert state.free is None


def test_the_place_of_renditions_is_judged_by_its_nearest_folder(tmp_path: Path) -> None:
    library = shows(tmp_path).model_copy(update={"output": tmp_path / "new" / "deep"})
    assert folder_state(library).problem == ""


@pytest.mark.parametrize(
    ("events", "how"), [(True, "seen at once"), (False, "looked for every few minutes")]
)
def test_a_sound_library_says_its_room_and_how_new_files_are_found(
    tmp_path: Path, *, events: bool, how: str
) -> None:
    state = FolderState("", None, mount_that(gives_events=events))
    assert "unknown free" in words(shows(tmp_path), state)
    assert how in watching(state)


def mount_that(*, gives_events: bool) -> Mount:
    return SimpleNamespace(kind="", gives_events=gives_events)  # type: ignore[return-value]


def test_videos_are_counted_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"12345")
    (tmp_path / "notes.txt").write_bytes(b"1")
    (tmp_path / "skipped").mkdir()
    (tmp_path / "skipped" / "b.mkv").write_bytes(b"1")
    assert count_videos(tmp_path, tmp_path / "skipped") == (1, 5)
