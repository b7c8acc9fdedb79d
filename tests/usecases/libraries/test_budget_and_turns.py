"""What libraries hand out: by priority and order, within the room and the budget."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from hevcq.domain.job import RenditionRef, Source, job_id
from hevcq.ports.catalog import Fingerprint, Mode, Placement, PlacementState
from hevcq.ports.ledger import Granted
from hevcq.settings.libraries import Library
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.forecast import Range
from hevcq.usecases.ingest.library_rules import (
    Budget,
    Feed,
    hand_out,
)
from support.catalog import new_catalog
from support.clips import ManualClock
from support.fakes.ledger import MemoryLedger


def item(name: str, kind: Disposition = Disposition.QUEUE, saves: float = 0.0) -> Item:
    output = Range(900 - saves, 1100 - saves)
    return Item(path=Path("/media", name), size=1000, disposition=kind, output=output)


def feed(name: str = "tv", *, why: str = "", **keys: object) -> Feed:
    library = Library.model_validate({"name": name, "path": f"/media/{name}", **keys})
    return Feed(library, why_not=lambda: why)


def names(given: list[tuple[Feed, list[Item]]]) -> list[str]:
    return [each.path.name for _, items in given for each in items]


def test_the_higher_priority_takes_the_room_first() -> None:
    low, high = feed("low"), feed("high", priority=1)
    low.add([item("l1"), item("l2")])
    high.add([item("h1"), item("h2")])

    assert names(hand_out([low, high], 3)) == ["h1", "h2", "l1"]
    high.add([item("h3")])
    assert names(hand_out([low, high], 1)) == ["h3"]
    assert names(hand_out([low, high], 9)) == ["l2"]
    assert hand_out([low, high], 9) == []


def test_jobs_queued_earlier_need_no_turn_but_take_room() -> None:
    tv = feed(why="Closed.")
    tv.add([item("a"), item("b", Disposition.JOIN), item("c", Disposition.DONE)])

    assert names(hand_out([tv], 0)) == ["b", "c"]
    assert tv.waiting == 1
    assert names(hand_out([replace(tv, why_not=lambda: "")], 1)) == ["a"]


def test_what_may_not_begin_is_kept_until_it_is_dropped() -> None:
    tv = feed(why="Closed.")
    tv.add([item("a"), item("b")])

    assert hand_out([tv], 9) == []
    assert [each.path.name for each in tv.drop()] == ["a", "b"]
    assert tv.waiting == 0


class Household:
    """A ledger and a catalog with jobs of one library."""

    def __init__(self, *, timezone: str = "", **keys: object) -> None:
        noon = datetime(2026, 11, 23, 12, tzinfo=ZoneInfo(timezone) if timezone else None)
        self.clock = ManualClock(noon.timestamp())
        self.ledger, self.catalog = MemoryLedger(self.clock), new_catalog(self.clock)
        library = Library.model_validate({"name": "tv", "path": "/media/tv", **keys})
        self.budget = Budget(library, self.ledger, self.catalog, self.clock, timezone)

    def encode(self, name: str, hours: float, size: int = 100, folder: str = "tv") -> None:
        path = Path("/media", folder, name)
        source = Source(bucket="library", key=f"TODO/all{path}", version="1", size=1000)
        claim = self.ledger.claim(source, "hevc", owner="me", lease_s=1e6)
        assert isinstance(claim, Granted)
        name = job_id(source, "hevc")
        mark = Fingerprint(1000, 1, 1, 1)
        self.catalog.record_placements(
            [
                Placement(
                    job_id=name,
                    root=path.parent,
                    source=path,
                    fingerprint=mark,
                    profile="hevc",
                    mode=Mode.BESIDE,
                    target=path.with_suffix(".hevc.mp4"),
                    keep_days=0,
                    state=PlacementState.PLACED,
                )
            ]
        )
        self.clock.advance(hours * 3600)
        if size:
            made = RenditionRef(key="k", size=size, sha256="0" * 64, certificate_key="c")
            self.ledger.complete(name, claim.fence, made, cpu_s=1.0)


def test_the_hours_of_a_day_are_those_of_the_library_and_of_today() -> None:
    home = Household(max_hours_per_day=4)
    home.encode("a.mp4", 3)
    home.encode("other.mp4", 3, folder="films")
    assert home.budget() == ""
    home.encode("b.mp4", 1)

    assert home.budget() == "Library tv has used its 4 h of today (max_hours_per_day)."
    home.clock.advance(24 * 3600)
    assert home.budget() == ""


def test_a_day_begins_at_midnight_of_the_schedules_time_zone() -> None:
    home = Household(timezone="America/New_York", max_hours_per_day=1)
    home.clock.advance(10 * 3600)  # from noon there on
    home.encode("a.mp4", 1.5)
    assert "has used its 1 h" in home.budget()

    home.clock.advance(3600)
    assert home.budget() == ""


def test_a_library_begins_nothing_outside_its_schedule() -> None:
    home = Household(schedule=["Mon-Sun 22:00-06:00"])

    shut = "Library tv may run only Mon-Sun 22:00-06:00 (schedule); it opens 22:00."
    assert home.budget() == shut
    home.clock.advance(10 * 3600)  # from noon on
    assert home.budget() == ""
