"""A watched folder: what is being written is left alone, and a large one is not scanned all day."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hevcq.library.scanning.scan import Filter, FoundFile, Rejected, find, is_unfinished_by_name
from hevcq.library.scanning.watch_folder import Watch, open_for_writing
from support.clips import ManualClock


def look(folder: Path) -> Callable[[], list[FoundFile | Rejected]]:
    return lambda: list(find([folder], Filter()))


def names(found: list[FoundFile] | list[FoundFile | Rejected]) -> list[str]:
    return [each.path.name for each in found if isinstance(each, FoundFile)]


def test_a_file_that_is_open_for_writing_is_not_complete_however_still_it_is(tmp_path):
    clock = ManualClock(2e9)
    watch = Watch(look(tmp_path), clock, settle_s=5, busy=open_for_writing)
    done = tmp_path / "done.mp4"
    done.write_bytes(b"done")
    with (tmp_path / "copy.mp4").open("wb") as copy, done.open("rb"):
        copy.write(b"half")
        copy.flush()
        assert names(watch.first()) == ["done.mp4"]
        for _ in range(4):
            clock.advance(6)
            watch.signal.set()
            assert names(watch.step()) == []
    clock.advance(6)
    watch.signal.set()

    assert names(watch.step()) == ["copy.mp4"]


@pytest.mark.parametrize(
    ("name", "beside", "unfinished"),
    [
        ("a.mp4.part", (), True),
        ("a.mkv.crdownload", (), True),
        ("a.mkv.!qB", (), True),
        ("a.temp.mp4", (), True),
        ("a.mp4", ("a.mp4.aria2",), True),
        ("a.mp4", ("a.mp4.part",), True),
        ("a.mp4", ("b.mp4.part",), False),
        ("Dune.Part.Two.mkv", (), False),
        ("a.part.mkv", (), False),
        ("part", (), False),
        ("temp.mp4", (), False),
    ],
)
def test_names_of_unfinished_files_are_known(name, beside, *, unfinished):
    assert is_unfinished_by_name(name, beside) is unfinished


def test_an_unfinished_video_is_reported_and_taken_once_it_is_renamed(tmp_path):
    part = tmp_path / "a.mp4.part"
    part.write_bytes(b"half")
    (tmp_path / "notes.txt.part").write_bytes(b"half")

    (told,) = look(tmp_path)()
    assert isinstance(told, Rejected)
    assert told.reason == f"{part} is still being written, by its name; taken once it is renamed."

    part.rename(tmp_path / "a.mp4")
    assert names(look(tmp_path)()) == ["a.mp4"]


@pytest.mark.parametrize(
    ("took", "signalled", "times"),
    [
        pytest.param(0, False, [0, 60], id="regularly"),
        pytest.param(0, True, [0, 2.5, 5], id="soon-after-an-event-but-not-at-once"),
        pytest.param(1, True, [0, 10, 20], id="ten-times-its-own-time-apart"),
    ],
)
def test_a_folder_is_not_scanned_before_its_time(took, signalled, times):
    clock, scans = ManualClock(2e9), []

    def look() -> list[FoundFile]:
        scans.append(clock.now() - 2e9 - took)
        clock.advance(took)
        return []

    watch = Watch(look, clock, settle_s=5, look_s=60)
    watch.first()
    while clock.now() <= 2e9 + times[-1] + took:
        if signalled:
            watch.signal.set()
        watch.step()
        clock.advance(0.5)

    assert scans[1:] == times
