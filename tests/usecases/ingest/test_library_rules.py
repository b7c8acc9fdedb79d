"""Rules of a library as pure functions: which fits, and what becomes of an item.

What libraries hand out: by priority and order, within the room and the budget.
"""

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from hevcq.domain.job import RenditionRef, Source, job_id
from hevcq.library.scanning.scan import FoundFile, FoundVideo, Rejected
from hevcq.ports.catalog import Fingerprint, Mode, Placement, PlacementState
from hevcq.ports.ledger import Granted
from hevcq.settings.libraries import Library, Rule
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.usecases.ingest.decide import Disposition, Item, Recorded, decide
from hevcq.usecases.ingest.forecast import TABLE_ONLY, Range
from hevcq.usecases.ingest.library_rules import (
    Acceptance,
    Budget,
    Feed,
    hand_out,
    matches_rule,
    old_enough,
)
from hevcq.usecases.ingest.request import Destination
from support.catalog import new_catalog
from support.clips import ManualClock
from support.fakes.ledger import MemoryLedger
from support.ingest.values import encode_plan, media_info
from support.media_facts import media, video

PROFILES = load_profiles(installed_folder())
FULL_HD = FoundVideo(
    Path("/tv/shows/A/e1.mkv"),
    Path("/tv"),
    Fingerprint(3 * 2**30, int(1e18), 1, 1),
    media(video(codec="h264", width=1920, height=1080), duration_s=3 * 2**33 / 9e6),
)


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"codec": ["H264", "mpeg2video"]}, True),
        ({"codec": ["hevc"]}, False),
        ({"min_bitrate": "9Mbps", "max_bitrate": "9Mbps"}, True),
        ({"min_bitrate": "9001kbps"}, False),
        ({"max_bitrate": "8999kbps"}, False),
        ({"min_height": 1080, "max_height": 1080}, True),
        ({"min_height": 1081}, False),
        ({"max_height": 1079}, False),
        ({"min_size": "3GiB"}, True),
        ({"max_size": "3GB"}, False),
        ({"path": ["shows/"]}, True),
        ({"path": ["*.mp4"]}, False),
        ({"path": ["*", "!e1.mkv"]}, False),
        ({"codec": ["h264"], "min_size": "4GiB"}, False),
    ],
)
def test_a_rule_fits_where_all_its_conditions_hold(conditions, *, holds):
    rule = Rule.model_validate({"skip": True, **conditions})

    assert matches_rule(rule, FULL_HD) is holds


def planned(tmp_path: Path, profile: str = "hevc") -> tuple[FoundVideo, Item]:
    mark = Fingerprint(1_000_000, int(1e18), 1, 1)
    seen = FoundVideo(tmp_path / "a.mp4", tmp_path, mark, media_info())
    where = Destination(Mode.BESIDE)
    return seen, decide(seen, PROFILES[profile], encode_plan(profile=profile), Recorded(), where)


def accept(tmp_path: Path, profile: str = "hevc", **keys: object) -> Item | None:
    library = Library.model_validate({"name": "tv", "path": tmp_path, **keys})
    accepts = Acceptance(library, frozenset({"hevc"}), TABLE_ONLY)
    return accepts(*planned(tmp_path, profile))


def test_without_rules_the_usual_profile_is_made_and_no_other(tmp_path):
    assert accept(tmp_path) == planned(tmp_path)[1]
    assert accept(tmp_path, "720p") is None


def test_a_rule_chooses_another_profile_instead(tmp_path):
    rules = [{"codec": ["h264"], "profile": "720p"}]

    assert accept(tmp_path, rules=rules) is None
    assert accept(tmp_path, "720p", rules=rules) == planned(tmp_path, "720p")[1]


def test_a_rule_that_skips_says_which_it_is(tmp_path):
    item = accept(
        tmp_path, rules=[{"codec": ["av1"], "skip": True}, {"min_height": 1, "skip": True}]
    )

    assert item.disposition is Disposition.SKIP
    assert item.reason == "Left alone by rule 2 of library tv."


@pytest.mark.parametrize(
    ("least", "kept"), [("1%", True), ("99%", False), ("2.0 MiB", False), ("1KiB", True)]
)
def test_what_would_save_too_little_is_left_alone(tmp_path, least, *, kept):
    item = accept(tmp_path, min_saving=least)

    assert (item.disposition is Disposition.QUEUE) is kept
    assert kept or f"less than min_saving = {least} of library tv" in item.reason


def test_rules_never_change_what_was_queued_or_done_before(tmp_path):
    library = Library(name="tv", path=tmp_path, rules=(Rule(min_height=1, skip=True),))
    accepts = Acceptance(library, frozenset({"hevc"}), TABLE_ONLY)
    seen, item = planned(tmp_path, "720p")

    for kind in (Disposition.JOIN, Disposition.DONE, Disposition.COLLECT, Disposition.FAILED):
        assert accepts(seen, replace(item, disposition=kind)) == replace(item, disposition=kind)


def test_a_young_file_is_left_for_later(tmp_path):
    old, young = (
        FoundFile(tmp_path / n, tmp_path, Fingerprint(1, at, 1, 1))
        for n, at in (("old", int(1e9)), ("young", int(95e9)))
    )
    gone = Rejected(tmp_path / "gone", "gone", "Gone.")  # type: ignore[arg-type]

    kept, later, passed = old_enough([old, young, gone], 10, 100.0)

    assert (kept, passed) == (old, gone)
    assert isinstance(later, Rejected)
    assert later.reason == "Changed less than 10 s ago (min_age); taken later."
    assert os.fspath(later.path).endswith("young")


def item(name: str, kind: Disposition = Disposition.QUEUE, saves: float = 0.0) -> Item:
    output = Range(900 - saves, 1100 - saves)
    return Item(path=Path("/media", name), size=1000, disposition=kind, output=output)


def feed(name: str = "tv", *, why: str = "", **keys: object) -> Feed:
    library = Library.model_validate({"name": name, "path": f"/media/{name}", **keys})
    return Feed(library, why_not=lambda: why)


def names(given: list[tuple[Feed, list[Item]]]) -> list[str]:
    return [each.path.name for _, items in given for each in items]


def test_the_higher_priority_takes_the_room_first():
    low, high = feed("low"), feed("high", priority=1)
    low.add([item("l1"), item("l2")])
    high.add([item("h1"), item("h2")])

    assert names(hand_out([low, high], 3)) == ["h1", "h2", "l1"]
    high.add([item("h3"), item("h3")])
    assert names(hand_out([low, high], 2)) == ["h3", "h3"], "one file, two profiles"
    assert names(hand_out([low, high], 9)) == ["l2"]
    assert hand_out([low, high], 9) == []


def test_jobs_queued_earlier_need_no_turn_but_take_room():
    tv = feed(why="Closed.")
    tv.add([item("a"), item("b", Disposition.JOIN), item("c", Disposition.DONE)])

    assert names(hand_out([tv], 0)) == ["b", "c"]
    assert tv.waiting == 1
    assert names(hand_out([replace(tv, why_not=lambda: "")], 1)) == ["a"]


def test_what_may_not_begin_is_kept_until_it_is_dropped():
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


def test_the_hours_of_a_day_are_those_of_the_library_and_of_today():
    home = Household(max_hours_per_day=4)
    home.encode("a.mp4", 3)
    home.encode("other.mp4", 3, folder="films")
    assert home.budget() == ""
    home.encode("b.mp4", 1)

    assert home.budget() == "Library tv has used its 4 h of today (max_hours_per_day)."
    home.clock.advance(24 * 3600)
    assert home.budget() == ""


def test_a_day_begins_at_midnight_of_the_schedules_time_zone():
    home = Household(timezone="America/New_York", max_hours_per_day=1)
    home.clock.advance(10 * 3600)  # from noon there on
    home.encode("a.mp4", 1.5)
    assert "has used its 1 h" in home.budget()

    home.clock.advance(3600)
    assert home.budget() == ""


def test_a_library_begins_nothing_outside_its_schedule():
    home = Household(schedule=["Mon-Sun 22:00-06:00"])

    shut = "Library tv may run only Mon-Sun 22:00-06:00 (schedule); it opens 22:00."
    assert home.budget() == shut
    home.clock.advance(10 * 3600)  # from noon on
    assert home.budget() == ""
