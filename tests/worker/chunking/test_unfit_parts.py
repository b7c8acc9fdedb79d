"""What is not exactly the plan's is never joined: parts, their bytes, their source, their sum."""

import json
from dataclasses import replace

import pytest

from hevcq.domain.chunking.model import SplitPlan
from hevcq.domain.job import JobState
from hevcq.domain.verdict import Bury, FailureClass, Release
from support.fakes.videofarm import CHUNKS, VideoFarm


def once(farm, step, change) -> None:
    """Change what the encoder's next call of a step returns."""
    real = getattr(farm.encoder, step)

    def call(*args, **more):
        setattr(farm.encoder, step, real)
        return change(real(*args, **more))

    setattr(farm.encoder, step, call)


@pytest.mark.parametrize("fact", ["frames", "first_pts", "last_pts"])
def test_a_part_that_is_not_its_chunk_to_the_frame_is_not_kept(farm, fact):
    source = farm.split()
    once(farm, "encode_chunk", lambda made: replace(made, **{fact: getattr(made, fact) + 1}))

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert "frames from" in handled.verdict.reason
    assert [key for key in farm.kept(source) if key.endswith(".part")] == []
    assert farm.until_settled(source).state is JobState.DONE
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS + 1


def test_frames_of_a_source_that_was_replaced_while_they_were_encoded_are_not_kept(farm):
    source = farm.split()

    def replaced(made):
        farm.store.add_source(source.key, b"another clip", bucket=source.bucket)
        return made

    once(farm, "encode_chunk", replaced)
    handled = farm.handle()

    assert isinstance(handled.verdict, Bury)
    assert handled.verdict.failure_class is FailureClass.CHANGED
    assert farm.record(source).state is JobState.DEAD
    assert farm.store.published == []


def test_a_joined_video_with_other_frames_than_the_plan_is_never_seen(farm):
    source = farm.chunked()
    once(farm, "join", lambda made: replace(made, frames=made.frames - 1))

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert "The joined video has" in handled.verdict.reason
    assert farm.renditions() == []
    assert farm.until_settled(source).state is JobState.DONE


@pytest.fixture
def left(tmp_path):
    """A farm whose first chunk was published, and whose worker died before it could say so."""
    farm = VideoFarm(tmp_path)
    farm.source = farm.split()
    farm.vanish_at("store.publish:after")
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


DOUBTS = {
    "no report": lambda farm: farm.store.delete(report_of(farm)),
    "a report that nobody can read": lambda farm: farm.store.put(
        report_of(farm), b"{}", metadata={}
    ),
    "a report of another part": lambda farm: retell(farm, subjob_id="somebody else's"),
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


def test_a_plan_that_can_be_read_but_is_not_the_one_that_was_made_is_not_gone_by(farm):
    source = farm.split()
    (key,) = [key for key in farm.kept(source) if key.endswith("plan.json")]
    video = SplitPlan.parse(farm.store.content(key))
    other = video.model_copy(update={"duration_s": video.duration_s + 1})
    farm.store.put(key, other.model_dump_json().encode(), metadata={})

    assert farm.until_settled(source, rounds=100).state is JobState.DONE
    assert "encode_chunk" not in farm.encoder.calls
