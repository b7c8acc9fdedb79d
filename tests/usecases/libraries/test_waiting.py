"""What waits in a library is told to other processes, and is forgotten with the process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from hevcq.usecases.libraries.waiting import FOLDER, WaitingFile, waiting

ROW = {"library": "shows", "waiting": 2, "reason": "it may run only at night."}


def feed(count: int) -> SimpleNamespace:
    library = SimpleNamespace(name="shows")
    return SimpleNamespace(library=library, waiting=count, why_not=lambda: ROW["reason"])


def test_what_waits_is_reported_while_the_process_runs(tmp_path: Path) -> None:
    file = WaitingFile(tmp_path)
    assert waiting(tmp_path) == []
    with file.held():
        assert waiting(tmp_path) == []
        file.write([feed(2), feed(0)])
        file.write([feed(2), feed(0)])
        assert waiting(tmp_path) == [ROW]
        file.write([feed(0)])
        assert waiting(tmp_path) == []
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_a_killed_process_left_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in ("1.lock", "1.json", "1.tmp"):
        (folder / name).touch()
    assert waiting(tmp_path) == []
    assert list(folder.iterdir()) == []


def test_a_file_that_is_not_of_ours_tells_nothing(tmp_path: Path) -> None:
    with WaitingFile(tmp_path).held():
        (path,) = (lock.with_suffix(".json") for lock in (tmp_path / FOLDER).glob("*.lock"))
        for content in ("not JSON", "7", '["shows"]'):
            path.write_text(content)
            assert waiting(tmp_path) == []


def test_a_data_folder_that_cannot_be_written_stops_no_work(tmp_path: Path) -> None:
    (tmp_path / FOLDER).touch()
    file = WaitingFile(tmp_path)
    with file.held():
        file.write([feed(2)])
    assert waiting(tmp_path) == []
