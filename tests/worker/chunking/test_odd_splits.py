"""Splits that something outside went wrong with: plans and reports lost, ledgers away, races ended."""

import hashlib
from dataclasses import replace
from unittest.mock import Mock

import pytest

from hevcq.domain.chunking import SplitPlan
from hevcq.domain.job import JobState, TaskKind, of_record
from hevcq.domain.verdict import Bury, Done, FailureClass, Release
from hevcq.errors import Unavailable
from support.fakes.videofarm import CHUNKS


def plan_key(farm, source) -> str:
    (key,) = [key for key in farm.kept(source) if key.endswith("plan.json")]
    return key


def replan(farm, source, content: bytes) -> None:
    """Let the split go by another plan, its digest included, as a defect elsewhere might."""
    farm.store.put(plan_key(farm, source), content, metadata={})
    record = farm.record(source)
    digest = hashlib.sha256(content).hexdigest()
    split = record.split.model_copy(update={"plan_sha256": digest})
    assert farm.ledger.apply(record.job_id, of_record(record, {"split": split}))


def encoded_whole(farm, source) -> bool:
    record = farm.until_settled(source, rounds=100)
    return record.state is JobState.DONE and farm.encoder.calls.count("encode") == 1


def test_a_recording_of_which_a_trimmed_copy_is_encoded_is_not_split(farm):
    """No other worker has the copy."""
    farm.encoder.trimmed = (b"whole pictures", ())
    source = farm.submit()

    assert isinstance(farm.handle().verdict, Done)
    assert farm.record(source).state is JobState.DONE


def test_a_video_whose_plan_is_gone_is_encoded_whole(farm):
    source = farm.split()
    farm.store.delete(plan_key(farm, source))

    assert encoded_whole(farm, source)
    assert "encode_chunk" not in farm.encoder.calls


def test_a_video_whose_plan_lacks_a_chunk_is_encoded_whole(farm):
    source = farm.split()
    video = SplitPlan.parse(farm.store.content(plan_key(farm, source)))
    fewer = video.chunks.model_copy(update={"chunks": video.chunks.chunks[:-1]})
    short = video.model_copy(update={"chunks": fewer})
    replan(farm, source, short.model_dump_json().encode())

    assert encoded_whole(farm, source)


def test_a_chunk_goes_on_while_nobody_can_say_whether_its_job_does(farm):
    source, get = farm.split(), farm.ledger.get
    real = farm.encoder.encode_chunk

    def encode_chunk(*args, **more):
        farm.clock.advance(6)
        farm.ledger.get = Mock(side_effect=Unavailable("no answer"))
        try:
            return real(*args, **more)
        finally:
            farm.ledger.get = get

    farm.encoder.encode_chunk = encode_chunk
    assert isinstance(farm.handle().verdict, Done)
    assert farm.chunks(source)[0].state is JobState.DONE


def test_a_job_that_comes_back_once_all_chunks_are_done_sends_the_join_again(farm):
    source = farm.submit()
    assert farm.killed_at("ledger.mark_enqueued:before")
    for _ in range(CHUNKS):
        farm.handle()
    lost = farm.receive()
    assert lost.tasks[0].kind is TaskKind.JOIN
    farm.queue.ack(lost)

    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    assert isinstance(farm.handle().verdict, Done)

    assert farm.record(source).split.announced
    assert farm.until_settled(source).state is JobState.DONE


def test_the_last_message_of_a_job_that_was_split_anew_sends_the_new_chunks(farm):
    """It may be the only one: the worker that split the job died before it sent any."""
    source = farm.split()
    task, before, frames = farm.task(source, 1), farm.record(source), [1] * len(farm.chunks(source))
    while (delivery := farm.receive()) is not None:
        farm.queue.ack(delivery)
    farm.ledger.abandon_split(before.job_id, before.fence, "unfit")
    fence = farm.ledger.claim(source, "hevc", owner="gone", lease_s=1.0).fence
    anew = before.split.model_copy(update={"name": f"anew-{fence}", "announced": False})
    farm.ledger.split(before.job_id, fence, anew, frames)
    farm.queue.send([task])

    farm.handle()

    assert farm.record(source).split == anew.model_copy(update={"announced": True})


@pytest.mark.parametrize(("lease_s", "received"), [(1.0, 1), (30.0, 2)], ids=["gone", "at work"])
def test_a_chunks_message_that_may_be_the_only_one_of_its_job_is_not_dropped(
    farm, lease_s, received
):
    source = farm.split()
    task, before = farm.task(source, 1), farm.record(source)
    while (delivery := farm.receive()) is not None:
        farm.queue.ack(delivery)
    farm.ledger.abandon_split(before.job_id, before.fence, "unfit")
    farm.ledger.claim(source, "hevc", owner="gone", lease_s=lease_s)
    farm.clock.advance(2.0)
    farm.queue.send([task])
    if received == 2:
        farm.queue.release(farm.receive())

    assert farm.until_settled(source).state is JobState.DONE


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
