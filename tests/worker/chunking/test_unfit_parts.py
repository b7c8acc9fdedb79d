"""What is not exactly the plan's is never joined: parts, their bytes, their source, their sum."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.verdict import Bury, FailureClass, Release
from support.fakes.videofarm import CHUNKS, VideoFarm


@pytest.fixture
def farm(tmp_path):
    return VideoFarm(tmp_path)


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


def test_a_part_whose_bytes_are_not_those_recorded_is_made_again_alone(farm):
    source = farm.chunked()
    second = farm.chunks(source)[1].rendition.key
    there = farm.store.stat(second)
    # What the encoder alone would take for the part
    farm.store.put(second, farm.store.content(second) + b"!", metadata=dict(there.metadata))

    farm.handle()

    assert [part.state for part in farm.chunks(source)].count(JobState.QUEUED) == 1
    record = farm.until_settled(source)
    assert (record.state, record.whole) == (JobState.DONE, "")
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS + 1


def test_a_joined_video_with_other_frames_than_the_plan_is_never_seen(farm):
    source = farm.chunked()
    once(farm, "join", lambda made: replace(made, frames=made.frames - 1))

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert "The joined video has" in handled.verdict.reason
    assert farm.renditions() == []
    assert farm.until_settled(source).state is JobState.DONE
