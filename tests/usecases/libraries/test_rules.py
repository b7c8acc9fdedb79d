"""Rules of a library as pure functions: which fits, and what becomes of an item."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.library.scanning.probe_files import FoundVideo
from hevcq.library.scanning.scan import FoundFile, Rejected
from hevcq.ports.catalog import Fingerprint, Mode
from hevcq.settings.libraries import Library, Rule
from hevcq.settings.profile_files import installed_folder, load_profiles
from hevcq.usecases.ingest.decide import Disposition, Item, Known, decide
from hevcq.usecases.ingest.forecast import TABLE_ONLY
from hevcq.usecases.ingest.library_rules import Acceptance, fits, old_enough
from hevcq.usecases.ingest.request import Destination
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
def test_a_rule_fits_where_all_its_conditions_hold(
    conditions: dict[str, object], *, holds: bool
) -> None:
    rule = Rule.model_validate({"skip": True, **conditions})

    assert fits(rule, FULL_HD) is holds


def planned(tmp_path: Path, profile: str = "hevc") -> tuple[FoundVideo, Item]:
    mark = Fingerprint(1_000_000, int(1e18), 1, 1)
    seen = FoundVideo(tmp_path / "a.mp4", tmp_path, mark, media_info())
    where = Destination(Mode.BESIDE)
    return seen, decide(seen, PROFILES[profile], encode_plan(profile=profile), Known(), where)


def accept(tmp_path: Path, profile: str = "hevc", **keys: object) -> Item | None:
    library = Library.model_validate({"name": "tv", "path": tmp_path, **keys})
    accepts = Acceptance(library, frozenset({"hevc"}), TABLE_ONLY)
    return accepts(*planned(tmp_path, profile))


def test_without_rules_the_usual_profile_is_made_and_no_other(tmp_path: Path) -> None:
    assert accept(tmp_path) == planned(tmp_path)[1]
    assert accept(tmp_path, "720p") is None


def test_a_rule_chooses_another_profile_instead(tmp_path: Path) -> None:
    rules = [{"codec": ["h264"], "profile": "720p"}]

    assert accept(tmp_path, rules=rules) is None
    assert accept(tmp_path, "720p", rules=rules) == planned(tmp_path, "720p")[1]


def test_a_rule_that_skips_says_which_it_is(tmp_path: Path) -> None:
    item = accept(
        tmp_path, rules=[{"codec": ["av1"], "skip": True}, {"min_height": 1, "skip": True}]
    )

    assert item is not None
    assert item.disposition is Disposition.SKIP
    assert item.reason == "Left alone by rule 2 of library tv."


@pytest.mark.parametrize(
    ("least", "kept"), [("1%", True), ("99%", False), ("2.0 MiB", False), ("1KiB", True)]
)
def test_what_would_save_too_little_is_left_alone(
    tmp_path: Path, least: str, *, kept: bool
) -> None:
    item = accept(tmp_path, min_saving=least)

    assert item is not None
    assert (item.disposition is Disposition.QUEUE) is kept
    assert kept or f"less than min_saving = {least} of library tv" in item.reason


def test_rules_never_change_what_was_queued_or_done_before(tmp_path: Path) -> None:
    library = Library(name="tv", path=tmp_path, rules=(Rule(min_height=1, skip=True),))
    accepts = Acceptance(library, frozenset({"hevc"}), TABLE_ONLY)
    seen, item = planned(tmp_path, "720p")

    for kind in (Disposition.JOIN, Disposition.DONE, Disposition.COLLECT, Disposition.FAILED):
        assert accepts(seen, replace(item, disposition=kind)) == replace(item, disposition=kind)


def test_a_young_file_is_left_for_later(tmp_path: Path) -> None:
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
