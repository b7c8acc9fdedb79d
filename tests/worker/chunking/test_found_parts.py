"""A part that a killed attempt left behind is taken as it is, or not at all: its proof decides."""

from __future__ import annotations

import json

import pytest

from hevcq.domain.job import JobState
from support.fakes.videofarm import CHUNKS, VideoFarm


@pytest.fixture
def left(tmp_path):
    """A farm whose first chunk was published, and whose worker died before it could say so."""
    farm = VideoFarm(tmp_path)
    farm.source = farm.split()
    assert farm.killed_at("store.publish:after")
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    return farm


def part_of(farm) -> str:
    (key,) = (key for key in farm.kept(farm.source) if key.endswith(".part"))
    return key


def report_of(farm) -> str:
    return farm.store.stat(part_of(farm)).metadata["report"]


def retell(farm, **changes) -> None:
    """Change what the part's report says."""
    name = report_of(farm)
    told = {**json.loads(farm.store.content(name)), **changes}
    farm.store.put(name, json.dumps(told).encode(), metadata={})


def encodes_until_done(farm) -> int:
    record = farm.until_settled(farm.source, rounds=60)
    assert record.state is JobState.DONE
    assert farm.renditions() == [farm.key(farm.source)]
    assert farm.store.stat(farm.key(farm.source)).sha256 == record.rendition.sha256
    return farm.encoder.calls.count("encode_chunk")


def test_a_whole_part_with_its_report_is_not_encoded_again(left):
    assert encodes_until_done(left) == CHUNKS


DOUBTS = {
    "no report": lambda farm: farm.store.delete(report_of(farm)),
    "a report that nobody can read": lambda farm: farm.store.put(
        report_of(farm), b"{}", metadata={}
    ),
    "a report of another part": lambda farm: retell(farm, part_id="somebody else's"),
    "a report of another encoder": lambda farm: retell(farm, ffmpeg="ffmpeg version 4"),
    "a report of other bytes": lambda farm: retell(farm, sha256="0" * 64),
    "a report of another size": lambda farm: retell(farm, size=1),
    "a report of fewer frames": lambda farm: retell(farm, frames=1),
    "a report of an earlier end": lambda farm: retell(farm, last_pts=0),
    "no job on the part": lambda farm: farm.store.put(part_of(farm), b"bytes", metadata={}),
    "another job on the part": lambda farm: farm.store.put(
        part_of(farm), b"bytes", metadata={"job": "another", "report": report_of(farm)}
    ),
    "other bytes in the part": lambda farm: farm.store.put(
        part_of(farm), b"bytes", metadata=dict(farm.store.stat(part_of(farm)).metadata)
    ),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_part_in_any_doubt_is_encoded_again(left, doubt):
    DOUBTS[doubt](left)

    assert encodes_until_done(left) == CHUNKS + 1


def test_a_video_that_was_published_and_not_recorded_is_not_joined_again(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.chunked()
    assert farm.killed_at("store.publish:after")
    farm.clock.advance(farm.profile.queue.visibility_s + 1)

    assert farm.until_settled(source).state is JobState.DONE

    assert farm.encoder.calls.count("join") == 1
    assert [key for key, _, _ in farm.store.published].count(farm.key(source)) == 1
