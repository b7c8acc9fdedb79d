"""`hevcq undo`: by path, by job and by moment, a thousand videos, and with the catalog lost.

A kept original follows its rendition; what becomes of it where somebody moved, changed or deleted that.
"""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from hevcq.errors import UsageError
from hevcq.library.replacement.retention import Expiry
from hevcq.library.replacement.swap import Swap
from hevcq.ports.catalog import Mode, Placement, PlacementState
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.undo import UndoResult, undo
from support.catalog import new_catalog
from support.clips import ManualClock
from support.library import (
    DAY,
    ORIGINAL,
    RENDITION,
    Killed,
    MortalFileSystem,
    QuickFileSystem,
    for_ever,
    looks,
    second_of,
    strays,
    video,
)


class QuickPorts(LibraryPorts):
    def open_swap(self, root: Path) -> Swap:
        return Swap(root, self.clock, QuickFileSystem())


class House:
    """A library whose videos are replaced as an ingest does it, catalog included."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "library"
        self.root.mkdir()
        self.data = folder / "data"
        self.clock = ManualClock()
        self.catalog = new_catalog(self.clock)
        self.ports = QuickPorts(self.catalog, self.clock, self.data)

    def replace(self, name: str, target: str | None = None, **options):
        made = video(self.root, name, target, **options)
        before = looks(made.source)
        done = Swap(self.root, self.clock, QuickFileSystem()).replace(made.change, made.fetch)
        self.note(made, PlacementState.REPLACED, retained=done.retained)
        return made, before

    def note(self, made, state, mode=Mode.REPLACE, **more) -> None:
        placement = Placement(
            job_id=made.change.certificate.job_id,
            root=self.root,
            source=made.source,
            fingerprint=made.change.fingerprint,
            profile="hevc",
            mode=mode,
            target=made.target,
            keep_days=30,
            state=state,
            updated_at=self.clock.now(),
        )
        self.catalog.record_placements([dataclasses.replace(placement, **more)])

    def undo(self, *paths: Path, **options):
        return list(undo(self.ports, paths, **options))

    def lose_the_catalog(self) -> None:
        self.catalog = new_catalog(self.clock)
        self.ports = dataclasses.replace(self.ports, catalog=self.catalog)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.mark.parametrize("videos", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_videos_come_back_as_they_were(house, videos):
    before = {}
    for number in range(videos):
        name = f"{number % 20}/video {number}.avi"
        target = f"video {number}.mkv" if number % 2 else None
        made, looked = house.replace(name, target, original=ORIGINAL + b"%d" % number)
        before[made.source] = looked
    files = {path for path in house.root.rglob("*") if path.is_file()}
    assert not before.keys() <= files

    results = house.undo(house.root)

    assert [r.result for r in results] == [UndoResult.RESTORED] * videos
    assert {path: looks(path) for path in before} == before
    here = {p for p in house.root.rglob("*") if p.is_file() and ".hevcq" not in p.parts}
    assert here == set(before)


@pytest.mark.parametrize("named", ["source", "target", "folder", "job", "start of job", "since"])
def test_an_original_comes_back_by_any_of_its_names(house, named):
    made, before = house.replace("tv/video.avi", "video.mkv")
    job = made.change.certificate.job_id
    results = {
        "source": lambda: house.undo(made.source),
        "target": lambda: house.undo(made.target),
        "folder": lambda: house.undo(house.root / "tv"),
        "job": lambda: house.undo(job=job),
        "start of job": lambda: house.undo(job=job[:8]),
        "since": lambda: house.undo(since=house.clock.now() - 1),
    }[named]()

    assert [r.result for r in results] == [UndoResult.RESTORED]
    assert results[0].size == len(ORIGINAL)
    assert looks(made.source) == before
    assert house.catalog.placement(job).state is PlacementState.UNDONE


@pytest.mark.parametrize("catalog", ["there", "lost"])
def test_only_what_was_replaced_since_then_comes_back(house, catalog):
    old, _ = house.replace("old.mkv")
    house.clock.advance(3 * DAY)
    new, before = house.replace("new.mkv")
    named = []
    if catalog == "lost":
        house.lose_the_catalog()
        named = [house.root]

    (one,) = house.undo(*named, since=house.clock.now() - DAY)

    assert (one.source, one.result) == (new.source, UndoResult.RESTORED)
    assert looks(new.source) == before
    assert old.source.read_bytes() == RENDITION


def test_a_dry_run_says_what_would_come_back_and_touches_nothing(house):
    made, _ = house.replace("video.mkv")
    edited, _ = house.replace("edited.mkv")
    edited.target.write_bytes(b"edited")

    results = {r.source: r.result for r in house.undo(house.root, dry_run=True)}

    assert results == {
        made.source: UndoResult.WOULD_RESTORE,
        edited.source: UndoResult.REFUSED,
    }
    assert made.target.read_bytes() == RENDITION


def test_one_refusal_keeps_no_other_from_coming_back(house):
    edited, _ = house.replace("edited.mkv")
    made, before = house.replace("video.mkv")
    edited.target.write_bytes(b"edited")

    results = {r.source: r for r in house.undo(house.root)}

    assert results[edited.source].result is UndoResult.REFUSED
    assert "not what hevcq put there" in results[edited.source].reason
    assert looks(made.source) == before
    state = house.catalog.placement(edited.change.certificate.job_id).state
    assert state is PlacementState.REPLACED


def test_an_undo_killed_before_the_catalog_knew_is_noted_by_the_next(house):
    made, before = house.replace("video.mkv")
    job = made.change.certificate.job_id
    Swap(house.root, house.clock).undo(job)

    (one,) = house.undo(made.source)

    assert one.result is UndoResult.RESTORED
    assert house.catalog.placement(job).state is PlacementState.UNDONE
    assert looks(made.source) == before


def test_an_original_that_is_no_longer_kept_is_refused_with_what_to_do(house):
    made, _ = house.replace("video.mkv")
    Swap(house.root, house.clock).expire(house.clock.now() + 31 * DAY, for_ever)

    (one,) = house.undo(made.source)

    assert one.result is UndoResult.REFUSED
    assert "backups" in one.reason
    assert made.target.read_bytes() == RENDITION


NOTHING, ALREADY = UndoResult.NOTHING, UndoResult.ALREADY


@pytest.mark.parametrize(
    ("state", "mode", "result", "words"),
    [
        (PlacementState.UNDONE, Mode.REPLACE, ALREADY, "already restored"),
        (PlacementState.EXPIRED, Mode.REPLACE, NOTHING, "no longer kept (retention ended)"),
        (PlacementState.WAITING, Mode.REPLACE, NOTHING, "not replaced"),
        (
            PlacementState.PLACED,
            Mode.BESIDE,
            NOTHING,
            "not replaced (the rendition is a file of its own)",
        ),
        (PlacementState.WAITING, Mode.BESIDE, NOTHING, "not replaced"),
    ],
)
def test_what_cannot_be_undone_says_why(house, state, mode, result, words):
    for name in ("video.mkv", "tv/b.mkv"):
        house.note(video(house.root, name), state, mode)

    (one,) = house.undo(house.root / "video.mkv")
    (both,) = house.undo(house.root)

    assert (one.result, both.result) == (result, result)
    assert one.reason == f"{house.root / 'video.mkv'}: {words}."
    assert both.reason == f"Nothing to undo in {house.root}: 2 {words}."


def test_a_file_that_is_back_says_so_whatever_other_profiles_did_with_it(house):
    made, _ = house.replace("video.mkv")
    house.undo(made.source)
    house.note(video(house.root, "video.mkv", profile="av1"), PlacementState.WAITING)

    (again,) = house.undo(made.source)

    assert (again.result, again.reason) == (ALREADY, f"{made.source}: already restored.")


def test_a_path_at_which_nothing_is_nor_was_is_a_usage_error(house):
    with pytest.raises(UsageError, match="No such file or folder"):
        house.undo(house.root / "none")


def test_every_condition_must_hold(house):
    one, _ = house.replace("a/one.mkv")
    other, _ = house.replace("b/other.mkv")
    job = other.change.certificate.job_id

    assert house.undo(house.root / "a", job=job)[0].result is UndoResult.NOTHING
    assert one.source.read_bytes() == other.source.read_bytes() == RENDITION


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

    swap.record_moves()
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

    swap.record_moves()
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
    second = second_of(first)
    swap.replace(second.change, second.fetch)

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

    swap.record_moves()

    assert {record.target for record in swap.kept()} == {gone.target, stays.target}


@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_a_follow_killed_at_any_call_is_finished_by_the_next(tmp_path, when):
    for number in range(1, 100):
        clock, made = ManualClock(), video(tmp_path / str(number), "tv/video.mkv")
        Swap(made.root, clock).replace(made.change, made.fetch)
        _folder_renamed(made.target)
        fs = MortalFileSystem(number, when)
        try:
            Swap(made.root, clock, fs).record_moves()
        except Killed:
            Swap(made.root, clock).recover()
            Swap(made.root, clock).record_moves()
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
