"""A wrong clock deletes no kept original: what counts is the time that the machine has lived through."""

from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.library.replacement.swap import Swap
from hevcq.ports.catalog import LivedTime, Mode
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.placement.collect import DAY_S, MAX_OFF_S, advanced, lived_s
from hevcq.usecases.placement.originals import recover
from hevcq.util.clock import EARLIEST
from support.catalog import new_catalog
from support.ingest.run import NEVER, Bench

KEEP = 30.0


class House:
    """A library with one replaced original, kept for 30 days, and a start of hevcq on it."""

    def __init__(self, folder: Path, wall: float = EARLIEST + 400 * DAY_S) -> None:
        self.bench = Bench(folder, where=Destination(Mode.REPLACE, keep_days=KEEP))
        self.clock = self.bench.clock
        self.clock.jump_wall(wall - self.clock.now())
        job = self.bench.queue(self.bench.video())
        self.bench.work(job)
        self.bench.collector.collect(self.bench.done(job), NEVER)

    def start(self) -> str:
        """Start hevcq as `hevcq ingest` does; return what it said."""
        self.bench.events.clear()
        recover(self.bench.ports, [self.bench.media], self.bench.events.append)
        return " ".join(event.reason or "" for event in self.bench.events)

    @property
    def kept(self) -> bool:
        return bool(list(Swap(self.bench.media, self.clock).kept()))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_an_original_goes_when_its_days_were_lived_through(house: House) -> None:
    house.clock.advance(29 * DAY_S)
    assert house.start() == ""
    assert house.kept
    house.clock.advance(1.1 * DAY_S)

    assert "retention ended" in house.start()
    assert not house.kept


def test_clock_that_runs_60_days_ahead_for_weeks_deletes_nothing_early(house: House) -> None:
    house.clock.jump_wall(60 * DAY_S)
    for _ in range(29):
        assert "1 kept originals stay" in house.start()
        house.clock.advance(DAY_S)
    assert house.kept
    house.clock.jump_wall(-60 * DAY_S)
    assert house.start() == ""
    house.clock.jump_wall(60 * DAY_S)
    house.clock.advance(1.1 * DAY_S)

    assert "retention ended" in house.start()
    assert not house.kept, "30 days were lived through"


def test_a_restart_60_days_ahead_deletes_nothing(house: House) -> None:
    house.clock.restart(off_s=60 * DAY_S)

    said = house.start()

    assert house.kept
    assert "has not been seen running for that long" in said


def test_an_original_that_this_data_folder_does_not_know_is_kept_from_now_on(house: House) -> None:
    house.bench.catalog = new_catalog(house.clock)
    lived_s(house.bench.catalog, house.clock)
    house.clock.advance(40 * DAY_S)
    house.bench.wire()

    assert "1 kept originals stay" in house.start()
    assert house.kept
    house.clock.advance(KEEP * DAY_S)
    house.start()

    assert not house.kept


SEEN = LivedTime(100.0, highest_wall=2e9, uptime_s=50.0, boot="a")


@pytest.mark.parametrize(
    ("change", "gained"),
    [
        ({"uptime_s": 60.0}, 10.0),
        ({"uptime_s": 40.0}, 40.0),
        ({"uptime_s": 60.0, "boot": "b"}, 60.0),
        ({"uptime_s": 60.0, "boot": "b", "highest_wall": 2e9 + 100.0}, 100.0),
        ({"uptime_s": 60.0, "boot": "b", "highest_wall": 9e9}, 60.0 + MAX_OFF_S),
    ],
    ids=["up", "started, by its uptime", "started", "off for a while", "off for too long"],
)
def test_what_passed_is_what_the_kernel_counted_and_little_of_the_rest(change, gained) -> None:
    seen = replace(SEEN, **{"highest_wall": 1e9, **change})

    now = advanced(SEEN, seen)

    assert (now.total_s, now.highest_wall) == (100.0 + gained, max(2e9, seen.highest_wall))
