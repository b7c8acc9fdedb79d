"""What the catalog promises (sql/catalog.py)."""

import dataclasses
import os
from pathlib import Path

import pytest

from hevcq.domain.media.facts import Chapter, MediaInfo, Stream, StreamKind, VideoFacts
from hevcq.ports.catalog import (
    EncodeCost,
    Fingerprint,
    HashedFile,
    LivedTime,
    Mode,
    Placement,
    PlacementState,
)
from hevcq.sql.catalog import Catalog
from support.catalog import new_catalog
from support.clips import ManualClock

MARK = Fingerprint(size=10, mtime_ns=1_700_000_000_123_456_789, inode=2**63 - 1, device=5)
INFO = MediaInfo(
    format_name="mov,mp4",
    duration_s=1.5,
    tags={"title": "ä ' \" \\"},
    chapters=(Chapter(start_s=0, end_s=1, title="x"),),
    streams=(
        Stream(
            index=0,
            kind=StreamKind.VIDEO,
            codec="h264",
            video=VideoFacts(width=2, height=4, pixel_format="yuv420p", bit_depth=8),
        ),
    ),
)
NAMES = [
    "a.mp4",
    'a b\'s "x".mp4',
    "-i.mp4",
    "new\nline.mp4",
    "é%+.mp4",
    b"\xff\xfe.mp4",
    "x" * 250,
]


@pytest.fixture
def catalog(clock: ManualClock) -> Catalog:
    return new_catalog(clock)


def placed(name: object = 1, **changes: object) -> Placement:
    first = Placement(
        job_id=f"{name:0>32}",
        root=Path("/media"),
        source=Path(f"/media/{name}.mp4"),
        fingerprint=MARK,
        profile="hevc",
        mode=Mode.BESIDE,
        target=Path(f"/media/{name}.hevc.mp4"),
        keep_days=30.0,
        updated_at=100.0,
    )
    return dataclasses.replace(first, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_facts_come_back_whatever_the_file_is_called(catalog, name):
    path = Path("/media") / os.fsdecode(name)

    catalog.cache([(path, MARK, INFO)])

    assert dict(catalog.cached([path, Path("/media/other")])) == {path: (MARK, INFO)}


def test_the_digest_of_a_file_is_kept_until_a_later_one(catalog):
    path = Path("/media") / os.fsdecode(b"\xff\xfe.mp4")
    first = HashedFile(MARK, ctime_ns=1_700_000_000_123_456_789, sha256="a" * 64)
    later = dataclasses.replace(first, ctime_ns=2, certificate="b" * 64)
    assert catalog.hashed(path) is None

    catalog.record_hash(path, first)
    assert catalog.hashed(path) == first

    catalog.record_hash(path, later)
    assert catalog.hashed(path) == later
    assert catalog.hashed(Path("/media/other")) is None


def test_the_time_lived_through_and_since_when_an_original_is_kept_come_back(catalog):
    assert (catalog.lived(), catalog.kept_since("a")) == (None, None)
    first = LivedTime(1.5, highest_wall=3.5, uptime_s=4.5, boot="one")
    for seen in (first, dataclasses.replace(first, total_s=9.5, boot="")):
        catalog.record_lived(seen)
        assert catalog.lived() == seen

    catalog.record_kept("a", 1.5)
    catalog.record_kept("a", 2.5)

    assert (catalog.kept_since("a"), catalog.kept_since("b")) == (2.5, None)


def test_a_placement_comes_back_as_it_was_given(catalog):
    given = placed(
        source=Path(os.fsdecode(b"/media/\xff \n.mp4")),
        mode=Mode.REPLACE,
        state=PlacementState.REPLACED,
        detail="kept",
        retained=Path(os.fsdecode(b"/media/.hevcq/\xff")),
        sha256="ab" * 32,
    )

    catalog.record_placements([given])

    assert catalog.placement(given.job_id) == given
    assert catalog.placement("0" * 32) is None


def test_placements_are_listed_newest_first_by_every_given_condition(catalog):
    catalog.record_placements(
        [
            placed(1, updated_at=10.0),
            placed(2, updated_at=30.0, state=PlacementState.PLACED),
            placed(3, updated_at=20.0, state=PlacementState.REPLACED),
        ]
    )

    def listed(**wanted: object) -> list[str]:
        return [placement.job_id[-1] for placement in catalog.placements(**wanted)]

    assert listed() == ["2", "3", "1"]
    assert listed(since=20.0) == ["2", "3"]
    assert listed(states=frozenset({PlacementState.PLACED, PlacementState.WAITING})) == ["2", "1"]
    assert listed(states=frozenset({PlacementState.UNDONE})) == []
    assert listed(since=20.0, states=frozenset({PlacementState.REPLACED})) == ["3"]


def test_what_encodes_cost_comes_back_newest_first_by_profile(clock, catalog):
    costs = [
        EncodeCost(profile, "libx265", "medium", 12.5, 10**12, 10**11, 3.25)
        for profile in ("hevc", "720p", "hevc", "hevc")
    ]
    for number, cost in enumerate(costs):
        catalog.record_encode_cost(f"job{number}", cost)
        clock.advance(1.0)
    changed = dataclasses.replace(costs[0], cpu_s=99.0)
    catalog.record_encode_cost("job0", changed)

    assert list(catalog.encode_costs("hevc", 2).items()) == [("job0", changed), ("job3", costs[3])]
    assert list(catalog.encode_costs("hevc", 9)) == ["job0", "job3", "job2"]
    assert catalog.encode_costs("1080p", 9) == {}


def test_under_matches_the_path_itself_and_what_is_below_it_only(catalog):
    catalog.record_placements(
        [
            placed(1, source=Path("/media/a/x.mp4"), target=Path("/out/1")),
            placed(2, source=Path("/media/ab/x.mp4"), target=Path("/out/2")),
            placed(3, source=Path("/other/x.mp4"), target=Path("/media/a")),
            placed(4, source=Path("/media/a!/x.mp4"), target=Path("/out/4")),
            placed(5, source=Path(os.fsdecode(b"/media/a/\xff")), target=Path("/out/5")),
            placed(6, source=Path("/media/a1/x.mp4"), target=Path("/out/6")),
        ]
    )

    def listed(under: str) -> set[str]:
        return {p.job_id[-1] for p in catalog.placements(under=Path(under))}

    assert listed("/media/a") == {"1", "3", "5"}
    assert listed("/media/a/x.mp4") == {"1"}
    assert listed("/media/A") == set()
    assert listed("/") == {"1", "2", "3", "4", "5", "6"}


def test_placements_are_paged_without_losing_or_doubling_any(catalog):
    catalog.record_placements(
        placed(number, updated_at=float(number // 7 + 1)) for number in range(1_700)
    )

    found = [placement.job_id for placement in catalog.placements()]

    assert len(found) == len(set(found)) == 1_700


def test_a_source_is_found_by_size_and_time_wherever_it_was(catalog):
    later = dataclasses.replace(MARK, mtime_ns=MARK.mtime_ns + 1)
    copy = dataclasses.replace(MARK, inode=7, device=9)
    catalog.record_placements(
        [
            placed(1, updated_at=1.0),
            placed(2, source=Path("/elsewhere/2.mp4"), fingerprint=copy, updated_at=2.0),
            placed(3, fingerprint=later),
            placed(4, fingerprint=dataclasses.replace(MARK, size=11)),
        ]
    )

    assert [each.job_id[-1] for each in catalog.placements_by_fingerprint(MARK)] == ["2", "1"]
    assert [each.job_id[-1] for each in catalog.placements_by_fingerprint(later)] == ["3"]
