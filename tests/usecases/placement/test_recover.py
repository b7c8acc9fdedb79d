"""One folder that cannot be recovered is told of, and keeps no other from it."""

from pathlib import Path

import pytest

from hevcq.errors import LibraryError
from hevcq.library.replacement.swap import Swap
from hevcq.ports.catalog import Mode
from hevcq.usecases.context import LibraryPorts
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.placement.originals import recover, recovery_folders
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


def test_folders_of_this_and_of_earlier_ingests_are_recovered(bench: Bench, tmp_path: Path) -> None:
    file, output = bench.media / "a.mp4", tmp_path / "out"
    output.mkdir()
    assert recovery_folders(bench.catalog, [file], output) == [bench.media, output]
    assert recovery_folders(bench.catalog, [bench.media], None) == [bench.media]
    assert recovery_folders(bench.catalog, [tmp_path / "gone" / "x"], None) == []
