"""One data folder at a time works in a library; processes of one data folder share it."""

import threading
from pathlib import Path

import pytest

from hevcq.errors import LibraryError, Unavailable
from hevcq.library.filesystem import FileSystem
from hevcq.library.own_files import reserve_libraries
from hevcq.library.place import ToPlace, place
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import DAY, for_ever, one, video


def test_a_second_data_folder_is_kept_out_and_told_of_the_first(tmp_path):
    with (
        reserve_libraries([tmp_path], "one", "nas:/data"),
        pytest.raises(Unavailable, match=r"another data folder \(nas:/data\)"),
        reserve_libraries([tmp_path], "two", "nas:/other"),
    ):
        pass
    with reserve_libraries([tmp_path], "two", "nas:/other"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_processes_of_one_data_folder_share_a_library_until_the_last_ends(tmp_path):
    first, second = (reserve_libraries([tmp_path], "one", "nas:/data") for _ in range(2))
    with second:
        with first:
            pass
        with pytest.raises(Unavailable), reserve_libraries([tmp_path], "two", "nas:/other"):
            pass
    with reserve_libraries([tmp_path], "two", "nas:/other"):
        pass


@pytest.mark.parametrize("held", ["", "films"])
def test_a_library_inside_another_is_one_with_it(tmp_path, held):
    (tmp_path / ".hevcq").mkdir()
    inner = tmp_path / "films"
    inner.mkdir()
    other = inner if not held else tmp_path
    with (
        reserve_libraries([tmp_path / held], "one", "a"),
        pytest.raises(Unavailable),
        reserve_libraries([other], "two", "b"),
    ):
        pass


def test_processes_of_one_data_folder_that_start_together_all_get_in(tmp_path):
    (tmp_path / ".hevcq").mkdir()
    (tmp_path / ".hevcq/in-use").write_text("two nas:/older")
    errors: list[Exception] = []
    together = threading.Barrier(8)

    def enter() -> None:
        together.wait()
        try:
            with reserve_libraries([tmp_path], "one", "nas:/data"):
                together.wait()
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


PLACES = [".hevcq", ".hevcq/busy", ".hevcq/certificates", ".hevcq/journal", ".hevcq/kept"]


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(params=PLACES)
def linked(request, tmp_path: Path):
    """A video in a library of which one own folder is a link, and where it leads."""
    made = video(tmp_path / "library")
    away = tmp_path / "away"
    away.mkdir()
    link = made.root / request.param
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(away)
    return made, link, away


def test_nothing_is_replaced_placed_or_undone_through_a_link(linked):
    made, link, away = linked
    swap, before = Swap(made.root, ManualClock()), everything(made.root)
    target = made.source.with_name("video.hevc.mkv")
    beside = ToPlace(made.root, made.source, target, made.change.certificate)

    for action in (
        lambda: swap.replace(made.change, made.fetch),
        lambda: place(beside, one(made.fetch), FileSystem()),
        lambda: swap.undo(made.change.certificate.job_id),
        swap.recover,
        lambda: swap.expire(100 * DAY, for_ever),
        lambda: list(swap.kept()),
    ):
        with pytest.raises(LibraryError) as caught:
            action()
        assert f"{link} is a symbolic link" in str(caught.value)
        assert "Remove the link" in str(caught.value)

    assert everything(away) == []
    assert everything(made.root) == before
    assert made.source.read_bytes() == made.original
