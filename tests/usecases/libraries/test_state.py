"""What is told of a library's folder before anything in it is opened."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hevcq.errors import StorageError
from hevcq.settings.libraries import Library
from hevcq.usecases import context
from hevcq.usecases.context import (
    folder_state,
    library_words,
)


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
