"""Which folders an ingest looks into for what a kill left."""

from pathlib import Path

import pytest

from hevcq.ports.catalog import Mode
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.placement.originals import recovery_folders
from support.ingest.run import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, where=Destination(Mode.REPLACE, keep_days=30.0))
    bench.place(bench.video())
    return bench


def test_folders_of_this_and_of_earlier_ingests_are_recovered(bench, tmp_path):
    file, output = bench.media / "a.mp4", tmp_path / "out"
    output.mkdir()
    assert recovery_folders(bench.catalog, [file], output) == [bench.media, output]
    assert recovery_folders(bench.catalog, [bench.media], None) == [bench.media]
    assert recovery_folders(bench.catalog, [tmp_path / "gone" / "x"], None) == []
