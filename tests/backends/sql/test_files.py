"""A file is linked or copied whole, on any file system."""

import errno
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from contracts.objects import nothing
from hevcq.backends.sql import files
from hevcq.errors import (
    Stopped,
)

STOP = threading.Event()


@pytest.mark.parametrize("kernel", [True, False], ids=["copy_file_range", "plain"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_copy_is_whole_on_any_file_system_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool, links: bool
) -> None:
    content = os.urandom(9 * 1024 * 1024 + 17)
    (tmp_path / "in").write_bytes(content)
    if not kernel:
        monkeypatch.setattr(os, "copy_file_range", Mock(side_effect=OSError(errno.EXDEV, "no")))
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EPERM, "no")))

    files.copy_new(tmp_path / "in", tmp_path / "out", moved=nothing, stop=STOP)
    with pytest.raises(FileExistsError):
        files.copy_new(tmp_path / "in", tmp_path / "out", moved=nothing, stop=STOP)

    assert (tmp_path / "out").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_stop_in_the_middle_of_a_copy_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "link", lambda source, target: False)
    (tmp_path / "in").write_bytes(bytes(40 * 1024 * 1024))
    stop = threading.Event()

    with pytest.raises(Stopped):
        files.place_new(tmp_path / "in", tmp_path / "out", moved=lambda _: stop.set(), stop=stop)

    assert [path.name for path in tmp_path.iterdir()] == ["in"]
