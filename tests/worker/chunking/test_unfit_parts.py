"""What is not exactly the plan's is never joined: parts, their bytes, their source, their sum."""

from dataclasses import replace

import pytest

from hevcq.domain.chunking.model import SplitPlan
from hevcq.domain.job import JobState
from hevcq.domain.verdict import Bury, FailureClass, Release
from support.fakes.videofarm import CHUNKS


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


def test_a_plan_that_can_be_read_but_is_not_the_one_that_was_made_is_not_gone_by(farm):
    source = farm.split()
    (key,) = [key for key in farm.kept(source) if key.endswith("plan.json")]
    video = SplitPlan.parse(farm.store.content(key))
    other = video.model_copy(update={"duration_s": video.duration_s + 1})
    farm.store.put(key, other.model_dump_json().encode(), metadata={})

    assert farm.until_settled(source, rounds=100).state is JobState.DONE
    assert "encode_chunk" not in farm.encoder.calls
