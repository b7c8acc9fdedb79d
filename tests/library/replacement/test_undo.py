"""`hevcq undo`: by path, by job and by moment, a thousand videos, and with the catalog lost."""

import dataclasses
from pathlib import Path

import pytest

from hevcq.library.replacement.swap import Swap
from hevcq.ports.catalog import Mode, Placement, PlacementState
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.placement.undo import UndoRequest, UndoResult, undo
from support.catalog import new_catalog
from support.clips import ManualClock
from support.library import (
    DAY,
    ORIGINAL,
    RENDITION,
    QuickFileSystem,
    for_ever,
    looks,
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
        return list(undo(UndoRequest(paths=paths, **options), self.ports))

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


@pytest.mark.parametrize(
    ("state", "mode", "words", "of_two"),
    [
        (PlacementState.UNDONE, Mode.REPLACE, "already restored", "2 already restored"),
        (
            PlacementState.EXPIRED,
            Mode.REPLACE,
            "no longer kept (retention ended)",
            "2 no longer kept (retention ended)",
        ),
        (PlacementState.WAITING, Mode.REPLACE, "not replaced", "2 not replaced yet"),
        (
            PlacementState.PLACED,
            Mode.BESIDE,
            "not replaced",
            "2 not replaced (the rendition is elsewhere)",
        ),
    ],
)
def test_what_cannot_be_undone_says_why(house, state, mode, words, of_two):
    for name in ("video.mkv", "tv/b.mkv"):
        house.note(video(house.root, name), state, mode)

    (one,) = house.undo(house.root / "video.mkv")
    (both,) = house.undo(house.root)

    assert (one.result, both.result) == (UndoResult.NOTHING, UndoResult.NOTHING)
    assert words in one.reason
    assert both.reason == f"Nothing to undo in {house.root}: {of_two}."


def test_every_condition_must_hold(house):
    one, _ = house.replace("a/one.mkv")
    other, _ = house.replace("b/other.mkv")
    job = other.change.certificate.job_id

    assert house.undo(house.root / "a", job=job)[0].result is UndoResult.NOTHING
    assert one.source.read_bytes() == other.source.read_bytes() == RENDITION
