"""Kept originals are listed, freed on request, and expire without another ingest."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.cli.commands import run
from hevcq.cli.exit_codes import ExitCode
from hevcq.library.replacement.retention import Expiry
from hevcq.ports.catalog import Mode, PlacementState
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.placement.originals import (
    free_due,
    free_originals,
    kept_originals,
    recovery_folders,
)
from hevcq.usecases.placement.undo import UndoResult, undo
from hevcq.util.clock import EARLIEST
from support.ingest.run import Bench

DAY = 86_400.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two replaced videos, kept for a day and for ever."""
    bench = Bench(tmp_path, where=Destination(Mode.REPLACE, keep_days=1.0))
    bench.clock.jump_wall(EARLIEST)
    replaced(bench, "a.mp4")
    bench.clock.advance(60)
    bench.where = Destination(Mode.REPLACE, keep_days=float("inf"))
    bench.wire()
    replaced(bench, "tv/b.mp4")
    return bench


def replaced(bench: Bench, name: str) -> None:
    bench.place(bench.video(name, name.encode() * 50))


def states(bench: Bench) -> list[str]:
    return sorted(f"{p.source.name} {p.state}" for p in bench.catalog.placements())


def test_what_is_kept_is_listed_with_its_end_also_without_the_catalog(bench):
    kept = list(kept_originals(bench.ports))
    assert [(each.record.source.name, each.size) for each in kept] == [
        ("a.mp4", 250),
        ("b.mp4", 400),
    ]
    assert kept[0].record.expires_at == kept[0].record.created_at + DAY
    assert kept[1].record.expires_at is None

    (only,) = kept_originals(bench.ports, [bench.media / "tv"])
    assert only.record.source == bench.media / "tv/b.mp4"
    (bench.folder / "new").mkdir()
    empty = Bench(bench.folder / "new")
    assert list(kept_originals(empty.ports)) == []
    assert len(list(kept_originals(empty.ports, [bench.media]))) == 2


def test_folders_of_this_and_of_earlier_ingests_are_recovered(bench, tmp_path):
    (output := tmp_path / "out").mkdir()
    assert recovery_folders(bench.catalog, [bench.media / "a.mp4"], output) == [bench.media, output]
    assert recovery_folders(bench.catalog, [bench.media], None) == [bench.media]
    assert recovery_folders(bench.catalog, [tmp_path / "gone" / "x"], None) == []


def test_an_original_whose_time_is_over_goes_without_another_ingest(bench):
    free_due(bench.ports)
    assert len(list(kept_originals(bench.ports))) == 2

    bench.clock.advance(2 * DAY)
    free_due(bench.ports)

    assert [each.record.source.name for each in kept_originals(bench.ports)] == ["b.mp4"]
    assert states(bench) == [f"a.mp4 {PlacementState.EXPIRED}", f"b.mp4 {PlacementState.REPLACED}"]


@pytest.mark.parametrize("named", ["tv/b.mp4", "tv"])
def test_a_person_frees_an_original_before_its_time_and_only_the_named_one(bench, named):
    replaced(bench, "tv2/c.mp4")

    (freed,) = free_originals(bench.ports, [bench.media / named], at_once=True)

    assert (freed.outcome, freed.size, freed.path.name) == (Expiry.REMOVED, 400, "b.mp4")
    assert [each.record.source.name for each in kept_originals(bench.ports)] == ["a.mp4", "c.mp4"]


def test_a_video_that_waits_for_a_new_rendition_waits_on_when_its_original_goes(bench):
    (known,) = bench.catalog.placements(under=bench.media / "a.mp4")
    bench.catalog.record_placements([replace(known, state=PlacementState.WAITING)])
    bench.clock.advance(2 * DAY)

    assert [each.outcome for each in free_originals(bench.ports)] == [Expiry.REMOVED]
    assert states(bench)[0] == f"a.mp4 {PlacementState.WAITING}"


@pytest.mark.parametrize("now_at", ["films/b.mp4", "films/b (2020).mp4", "c.mp4"])
@pytest.mark.parametrize("lost", [False, True], ids=["known", "data folder lost"])
def test_a_renamed_video_is_listed_freed_and_undone_at_its_new_place(bench, now_at, *, lost):
    new = bench.media / now_at
    new.parent.mkdir(exist_ok=True)
    (bench.media / "tv/b.mp4").rename(new)
    ports = bench.ports
    if lost:
        (bench.folder / "new").mkdir()
        ports = Bench(bench.folder / "new").ports

    (only,) = kept_originals(ports, [new])
    assert only.record.source == new
    (undone,) = undo(ports, [new])
    assert (undone.result, undone.source) == (UndoResult.RESTORED, new)
    assert new.read_bytes() == b"tv/b.mp4" * 50
    assert not (bench.media / "tv/b.mp4").exists()
    placements = {p.source: p.state for p in ports.catalog.placements()}
    assert lost or placements[new] is PlacementState.UNDONE


def test_days_that_only_the_clock_knows_free_nothing(bench):
    bench.clock.jump_wall(60 * DAY)

    (one,) = free_originals(bench.ports)
    free_due(bench.ports)

    assert (one.outcome, one.size) == (Expiry.NOT_LIVED, 0)
    assert one.reason.startswith("Its days are over by the clock, but")
    assert one.reason.endswith("for 0.0 of 1 days only.")
    assert len(list(kept_originals(bench.ports))) == 2


def test_the_command_deletes_nothing_early_without_a_yes_and_fails_where_an_original_stays(
    bench, capfd
):
    place = bench.media / "tv"
    call = ["--data-dir", str(bench.folder / "other"), "originals", "expire", str(place), "--now"]

    assert run(call) == ExitCode.SOME_FAILED
    assert "Nothing was deleted; confirm with --yes." in capfd.readouterr().err
    (kept,) = kept_originals(bench.ports, [place])
    target, facts = kept.record.target, kept.record.target.stat()
    rendition = target.read_bytes()
    target.write_bytes(rendition[::-1])
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert run([*call, "--yes"]) == ExitCode.SOME_FAILED
    assert len(list(kept_originals(bench.ports, [place]))) == 1
    target.write_bytes(rendition)
    assert run([*call, "--yes"]) == ExitCode.OK
    assert list(kept_originals(bench.ports, [place])) == []
