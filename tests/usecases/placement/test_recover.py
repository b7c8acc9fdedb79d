"""One folder that cannot be recovered is told of, and keeps no other from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from hevcq.errors import LibraryError
from hevcq.library.replacement.retention import Expired, Expiry
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Recovery, Swap
from hevcq.ports.catalog import Mode, PlacementState
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.ingest.destinations import Destination
from hevcq.usecases.placement.moved import follow_replaced
from hevcq.usecases.placement.recover import recover, recovery_folders
from support.ingest.run import Bench


class Ports(LibraryPorts):
    """Opens no swap below a folder named `broken`."""

    def open_swap(self, root: Path) -> Swap:
        swap = super().open_swap(root)
        if root.name == "broken":
            swap.recover = swap.kept = damaged
        return swap


def damaged(*_: object) -> list:
    raise LibraryError("A record is damaged.")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, where=Destination(Mode.REPLACE, keep_days=30.0))
    bench.place(bench.video())
    return bench


def test_the_error_of_one_folder_is_reported_and_the_others_are_recovered(bench: Bench) -> None:
    broken = bench.folder / "broken"
    (broken / ".hevcq" / "originals").mkdir(parents=True)
    ports = Ports(bench.catalog, bench.clock, bench.folder / "data")
    bench.events.clear()
    bench.clock.advance(31 * 86_400.0)

    recover(ports, [broken, bench.media], bench.events.append)

    reasons = [event.reason for event in bench.events]
    assert "A record is damaged." in reasons


def test_what_was_finished_and_what_cannot_go_yet_is_reported(bench: Bench) -> None:
    swap = bench.ports.open_swap(bench.media)
    (record,) = swap.kept()
    settled = Recovery("j", record.source, True, RecoveryOutcome.HELD, "Its disk was full.")
    kept = Expired(record, Expiry.STILL_KEPT, "a.mp4: kept, as the rendition is gone.")
    swap.recover = lambda: [settled]
    with (
        patch.object(LibraryPorts, "open_swap", return_value=swap),
        patch("hevcq.usecases.placement.recover.expire", return_value=[kept]),
    ):
        recover(bench.ports, [bench.media], bench.events.append)

    first, second = [event.reason for event in bench.events][-2:]
    assert first == f"{record.source}: interrupted undo on hold. Its disk was full."
    assert second == kept.reason


def test_folders_of_this_and_of_earlier_ingests_are_recovered(bench: Bench, tmp_path: Path) -> None:
    file, output = bench.media / "a.mp4", tmp_path / "out"
    output.mkdir()
    assert recovery_folders(bench.catalog, [file], output) == [bench.media, output]
    assert recovery_folders(bench.catalog, [bench.media], None) == [bench.media]
    assert recovery_folders(bench.catalog, [tmp_path / "gone" / "x"], None) == []


def test_a_library_that_was_moved_takes_its_placements_along(bench: Bench) -> None:
    (before,) = bench.catalog.placements()
    assert before.state is PlacementState.REPLACED
    moved = bench.media.rename(bench.folder / "moved")

    follow_replaced(bench.ports, [moved, bench.folder])

    (after,) = bench.catalog.placements()
    assert (after.root, after.source, after.target) == (
        moved,
        moved / before.source.name,
        moved / before.target.name,
    )


@pytest.mark.parametrize("state", [PlacementState.UNDONE, None])
def test_what_is_not_replaced_or_not_known_is_left_alone(
    bench: Bench, state: PlacementState | None
) -> None:
    (before,) = bench.catalog.placements()
    bench.catalog._placements.clear()
    if state is not None:
        bench.catalog.record_placements([replace(before, state=state)])
    kept = list(bench.catalog.placements())

    follow_replaced(bench.ports, [bench.media.rename(bench.folder / "moved")])

    assert list(bench.catalog.placements()) == kept
