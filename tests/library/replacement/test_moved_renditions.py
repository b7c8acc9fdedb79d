"""A kept original follows its rendition; what becomes of it where somebody moved, changed or deleted that."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from hevcq.library.filesystem import fingerprint_of
from hevcq.library.replacement.retention import Expiry
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import (
    DAY,
    ORIGINAL,
    RENDITION,
    Killed,
    MortalFileSystem,
    certificate,
    for_ever,
    looks,
    sha,
    strays,
    video,
)

STAYS, GOES = Expiry.STILL_KEPT, Expiry.REMOVED


def _renamed(path: Path) -> None:
    path.rename(path.with_name("S01E02 (2020).mkv"))


def _folder_renamed(path: Path) -> None:
    path.parent.rename(path.parent.with_name("Season 01"))


def _moved_deeper(path: Path) -> None:
    (path.parent / "a/b").mkdir(parents=True)
    path.rename(path.parent / "a/b/other.mkv")


def _folder_deleted(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def _upgraded_by_another_name(path: Path) -> None:
    path.unlink()
    path.with_name("better.mkv").write_bytes(b"a better release")


def _changed(path: Path, content: bytes) -> None:
    """Change the bytes, but not the time, as a failing disk does."""
    facts = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _rotten_beside_a_copy(path: Path) -> None:
    path.with_name("copy.mkv").write_bytes(RENDITION)
    _changed(path, RENDITION[::-1])


@pytest.mark.parametrize("at_once", [False, True], ids=["time over", "asked for"])
@pytest.mark.parametrize(
    ("happened", "outcome"),
    [
        (lambda _path: None, GOES),
        (_renamed, GOES),
        (_folder_renamed, GOES),
        (_moved_deeper, GOES),
        (lambda path: path.rename(path.parents[2] / "out of the library.mkv"), GOES),
        (lambda path: path.write_bytes(b"a better release"), STAYS),
        (_upgraded_by_another_name, GOES),
        (lambda path: path.write_bytes(RENDITION[::-1]), STAYS),
        (lambda path: path.write_bytes(RENDITION[:9]), STAYS),
        (Path.unlink, GOES),
        (_folder_deleted, GOES),
        (lambda path: _changed(path, ORIGINAL), STAYS),
        (lambda path: _changed(path, RENDITION[::-1]), STAYS),
        (lambda path: _changed(path, RENDITION[:9]), STAYS),
        (_rotten_beside_a_copy, STAYS),
    ],
)
def test_an_original_goes_in_time_or_on_request_unless_its_rendition_is_damaged(
    tmp_path, happened, outcome, *, at_once
):
    clock, made = ManualClock(), video(tmp_path / "library", "tv/video.mkv")
    done = Swap(made.root, clock).replace(made.change, made.fetch)
    happened(made.target)
    swap = Swap(made.root, clock)

    assert swap.expire(clock.now() + 30 * DAY - 1, for_ever) == []
    assert done.retained.read_bytes() == ORIGINAL
    if at_once:
        (each,) = swap.free(lambda _record: True)
    else:
        (each,) = swap.expire(clock.now() + 30 * DAY, for_ever)

    assert (each.outcome, done.retained.exists()) == (outcome, outcome is STAYS)
    assert list(swap.kept()) == ([] if outcome is GOES else [each.record])
    assert re.search("damaged|not what hevcq put there", each.reason) or outcome is GOES


@pytest.mark.parametrize(
    ("happened", "now_at"),
    [
        (_renamed, "tv/S01E02 (2020)"),
        (_folder_renamed, "Season 01/video"),
        (_moved_deeper, "tv/a/b/other"),
    ],
)
@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_an_undo_restores_at_the_new_place_and_only_there(tmp_path, happened, now_at, suffix):
    clock, made = ManualClock(), video(tmp_path, f"tv/video{suffix}", "video.mkv")
    before = looks(made.source)
    swap = Swap(tmp_path, clock)
    swap.replace(made.change, made.fetch)
    happened(made.target)

    swap.follow()
    record = swap.undo(made.change.certificate.job_id)

    assert record.source == tmp_path / f"{now_at}{suffix}"
    assert looks(record.source) == before
    videos = [p for p in tmp_path.rglob("*") if p.is_file() and ".hevcq" not in p.parts]
    assert videos == [record.source]
    assert strays(tmp_path) == []


def test_episodes_that_are_numbered_anew_are_followed_each_to_its_own_place(tmp_path):
    clock, swap = ManualClock(), Swap(tmp_path, ManualClock())
    made = [
        video(tmp_path, f"E{n}.mkv", original=ORIGINAL + b"%d" % n, rendition=b"%d" % n * (n + 1))
        for n in (1, 2, 3)
    ]
    for each in made:
        Swap(tmp_path, clock).replace(each.change, each.fetch)
    for n in (3, 2, 1):
        (tmp_path / f"E{n}.mkv").rename(tmp_path / f"E{n + 1}.mkv")

    swap.follow()
    for each in made:
        swap.undo(each.change.certificate.job_id)

    assert [(tmp_path / f"E{n + 1}.mkv").read_bytes() for n in (1, 2, 3)] == [
        each.original for each in made
    ]
    assert not (tmp_path / "E1.mkv").exists()


def test_an_original_goes_in_time_where_a_second_profile_replaced_its_rendition(tmp_path):
    clock, first = ManualClock(), video(tmp_path)
    swap = Swap(tmp_path, clock)
    swap.replace(first.change, first.fetch)
    clock.advance(60)
    change = dataclasses.replace(
        first.change,
        fingerprint=fingerprint_of(os.lstat(first.target)),
        certificate=certificate(first.target, RENDITION, b"720", "720p"),
    )
    swap.replace(change, lambda new: new.write_bytes(b"720") and sha(b"720"))

    done = swap.expire(clock.now() + 31 * DAY, for_ever)

    assert [each.outcome for each in done] == [GOES, GOES]
    assert first.target.read_bytes() == b"720"


@pytest.mark.parametrize("other", [RENDITION, RENDITION[::-1]], ids=["equal", "as large"])
def test_equal_videos_are_not_taken_for_one_another(tmp_path, other):
    clock, swap = ManualClock(), Swap(tmp_path, ManualClock())
    gone, stays = video(tmp_path, "gone.mkv"), video(tmp_path, "stays.mkv", rendition=other)
    for each in (gone, stays):
        Swap(tmp_path, clock).replace(each.change, each.fetch)
    gone.target.unlink()

    swap.follow()

    assert {record.target for record in swap.kept()} == {gone.target, stays.target}


@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_a_follow_killed_at_any_call_is_finished_by_the_next(tmp_path, when):
    for number in range(1, 100):
        clock, made = ManualClock(), video(tmp_path / str(number), "tv/video.mkv")
        Swap(made.root, clock).replace(made.change, made.fetch)
        _folder_renamed(made.target)
        fs = MortalFileSystem(number, when)
        try:
            Swap(made.root, clock, fs).follow()
        except Killed:
            Swap(made.root, clock).recover()
            Swap(made.root, clock).follow()
        Swap(made.root, clock).undo(made.change.certificate.job_id)
        assert (made.root / "Season 01/video.mkv").read_bytes() == ORIGINAL
        assert strays(made.root) == []
        if fs.count < number:
            return
    pytest.fail("it never ran to its end")


def test_a_disk_that_is_away_keeps_its_originals(tmp_path):
    """The original was copied from another disk; at its place is an empty folder now."""
    clock, made = ManualClock(), video(tmp_path, "disk/video.mkv")
    fs = MortalFileSystem(other_device=tmp_path / ".hevcq/originals")
    done = Swap(tmp_path, clock, fs).replace(made.change, made.fetch)
    (tmp_path / "disk").rename(tmp_path.with_name("unmounted"))
    (tmp_path / "disk").mkdir()
    swap = Swap(tmp_path, clock)

    for each in (
        *swap.expire(clock.now() + 31 * DAY, for_ever),
        *swap.free(lambda _record: True),
    ):
        assert each.outcome is STAYS
        assert "is its disk mounted?" in each.reason
    assert done.retained.read_bytes() == ORIGINAL

    (tmp_path / "disk/another.mkv").write_bytes(b"the disk is there")
    (each,) = swap.expire(clock.now() + 31 * DAY, for_ever)
    assert each.outcome is GOES


def test_a_folder_that_cannot_be_read_keeps_the_originals_that_may_be_in_it(tmp_path, monkeypatch):
    clock, made = ManualClock(), video(tmp_path, "tv/video.mkv")
    Swap(tmp_path, clock).replace(made.change, made.fetch)
    (tmp_path / "locked").mkdir()
    made.target.rename(tmp_path / "locked/video.mkv")
    scandir = os.scandir

    def refuse(path):
        if isinstance(path, str) and path.endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (each,) = Swap(tmp_path, clock).expire(clock.now() + 31 * DAY, for_ever)

    assert each.outcome is STAYS
    assert "locked cannot be read" in each.reason
