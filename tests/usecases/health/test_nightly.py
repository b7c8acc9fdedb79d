"""The nightly health check: which part is read when, what it waits for, and who is told."""

import os
import threading
from collections import Counter
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from hevcq.domain.schedule import Schedule
from hevcq.sql.catalog import HealthRecords
from hevcq.sql.event_log import EventLog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.usecases.health.check import NIGHTS, HealthPorts, NightlyCheck, Nights
from support.clips import ManualClock
from usecases.health.test_check import Reading

NIGHT = datetime(2026, 3, 2, 2, tzinfo=UTC).timestamp()
DAY = 86400.0


class House:
    """Thirty videos, a database, and a check of them each night from one to six."""

    def __init__(self, folder: Path, videos: int = 30) -> None:
        self.folder, self.encoder = folder / "library", Reading()
        self.clock, self.stop = ManualClock(NIGHT, auto=True), threading.Event()
        self.database = SqliteDatabase(folder / "hevcq.db")
        self.log = EventLog(self.database, self.clock)
        self.log.reader("me")
        self.records = HealthRecords(self.database)
        self.said: list[str] = []
        self.held = ""
        self.busy = lambda: False
        self.folder.mkdir(exist_ok=True)
        for number in range(videos):
            (self.folder / f"{number:02}.mp4").write_bytes(b"sound  ")

    def _busy(self) -> bool:
        return self.busy()

    def step(self, share: Fraction = Fraction(1)) -> bool:
        ports = HealthPorts(
            self.encoder, self.records, self.clock, self.stop, lambda _: nullcontext(self.folder)
        )
        schedule = Schedule.parse(("01:00-06:00",), "UTC")
        check = NightlyCheck(ports, self.log, lambda: self.held, self._busy, self.said.append)
        return check.step(Nights((self.folder,), share, schedule))

    @property
    def read(self) -> list[str]:
        return [call.split()[1] for call in self.encoder.calls if " " in call]

    @property
    def reported(self) -> list[tuple[str, str, str]]:
        happened = self.log.after(0, 100)
        return [(each.name, Path(each.source).name, each.failure_class) for each in happened]


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    with closing(made.database):
        yield made


def test_a_month_of_nights_reads_the_share_and_each_file_once(house):
    for _ in range(NIGHTS):
        assert house.step()
        assert not house.step(), "once a night"
        house.clock.advance(DAY)
    assert Counter(house.read) == {f"{number:02}.mp4": 1 for number in range(30)}
    assert house.said[0] == "Health check: 1 file read: 1 sound."
    house.step(Fraction(1, 12))
    assert len(house.encoder.calls) > 0, "a small share still reads one file a night"


def test_it_reads_in_its_hours_only_and_not_while_paused(house):
    house.clock.advance(5 * 3600)
    assert not house.step()
    house.clock.advance(DAY - 5 * 3600)
    house.held = "Paused."
    assert not house.step()
    assert house.read == []
    house.held = ""
    assert house.step()


def test_damage_and_rot_are_reported_once_each(house):
    (house.folder / "03.mp4").write_bytes(b"damaged")
    everything = Fraction(30)
    assert house.step(everything)
    assert house.reported == [("video.damaged", "03.mp4", "damaged")]
    assert house.said[0].endswith("03.mp4 is damaged: It says so.")
    rotten = house.folder / "04.mp4"
    facts = rotten.stat()
    with rotten.open("r+b") as file:
        file.write(b"rotten!")
    os.utime(rotten, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    for _ in range(2):
        house.clock.advance(DAY)
        assert house.step(everything)
    assert house.reported[1:] == [("video.damaged", "04.mp4", "rotten")]


def test_a_kill_between_report_and_record_reports_and_records_at_the_next_start(house, monkeypatch):
    (house.folder / "00.mp4").write_bytes(b"damaged")

    def killed(_checked):
        raise KeyboardInterrupt

    monkeypatch.setattr(house.records, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        house.step()
    monkeypatch.undo()
    assert house.step()
    assert house.reported == [("video.damaged", "00.mp4", "damaged")]
    assert house.records.checked([house.folder / "00.mp4"])
