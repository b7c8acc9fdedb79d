"""Kept originals are listed, freed on request, and expire without another ingest."""

from __future__ import annotations

from pathlib import Path

import pytest

from hevcq.cli.app import run
from hevcq.cli.exit_codes import ExitCode
from hevcq.library.replacement.retention import Expiry
from hevcq.ports.catalog import Mode, PlacementState
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.placement.originals import free_due, free_originals, kept_originals
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


def test_what_is_kept_is_listed_with_its_end_also_without_the_catalog(bench: Bench) -> None:
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


def test_an_original_whose_time_is_over_goes_without_another_ingest(bench: Bench) -> None:
    free_due(bench.ports)
    assert len(list(kept_originals(bench.ports))) == 2

    bench.clock.advance(2 * DAY)
    free_due(bench.ports)

    assert [each.record.source.name for each in kept_originals(bench.ports)] == ["b.mp4"]
    assert states(bench) == [f"a.mp4 {PlacementState.EXPIRED}", f"b.mp4 {PlacementState.REPLACED}"]


def test_a_person_frees_an_original_before_its_time_and_only_the_named_one(bench: Bench) -> None:
    (freed,) = free_originals(bench.ports, [bench.media / "tv/b.mp4"], at_once=True)

    assert (freed.outcome, freed.size, freed.path.name) == (Expiry.REMOVED, 400, "b.mp4")
    assert [each.record.source.name for each in kept_originals(bench.ports)] == ["a.mp4"]


def test_an_original_whose_rendition_is_gone_is_never_freed(bench: Bench) -> None:
    (bench.media / "a.mp4").write_bytes(b"edited")

    done = list(free_originals(bench.ports, at_once=True))

    assert {each.path.name: each.outcome for each in done} == {
        "a.mp4": Expiry.STILL_KEPT,
        "b.mp4": Expiry.REMOVED,
    }
    assert [each.record.source.name for each in kept_originals(bench.ports)] == ["a.mp4"]


def test_a_damaged_record_in_one_library_is_reported_and_the_others_are_freed(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "other/.hevcq/kept").mkdir(parents=True)
    (tmp_path / "other/.hevcq/kept/x.json").write_text("{")

    done = list(free_originals(bench.ports, [tmp_path], at_once=True))

    assert sorted(str(each.outcome) for each in done) == ["None", "removed", "removed"]
    assert "damaged" in next(each.reason for each in done if each.outcome is None)


def test_days_that_only_the_clock_knows_free_nothing(bench: Bench) -> None:
    bench.clock.jump_wall(60 * DAY)

    (one,) = free_originals(bench.ports)
    free_due(bench.ports)

    assert (one.outcome, one.size) == (Expiry.NOT_LIVED, 0)
    assert one.reason.startswith("Its days are over by the clock, but")
    assert one.reason.endswith("for 0.0 of 1 days only.")
    assert len(list(kept_originals(bench.ports))) == 2


def test_the_command_deletes_nothing_early_without_a_yes_and_fails_where_an_original_stays(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    place = bench.media / "tv"
    call = ["--data-dir", str(bench.folder / "other"), "originals", "expire", str(place), "--now"]

    assert run(call) == ExitCode.SOME_FAILED
    assert "Nothing was deleted: confirm with --yes." in capfd.readouterr().err
    (kept,) = kept_originals(bench.ports, [place])
    rendition = kept.record.target.read_bytes()
    kept.record.target.unlink()
    assert run([*call, "--yes"]) == ExitCode.SOME_FAILED
    assert len(list(kept_originals(bench.ports, [place]))) == 1
    kept.record.target.write_bytes(rendition)
    assert run([*call, "--yes"]) == ExitCode.OK
    assert list(kept_originals(bench.ports, [place])) == []
