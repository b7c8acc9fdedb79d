"""Chunks and joins that fail, vanish, come too late or do not fit: what it costs, and who is told.

Splits that something outside went wrong with: plans and reports lost, ledgers away, races ended.
"""

import hashlib
from dataclasses import replace
from unittest.mock import Mock

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.chunking import SplitPlan
from hevcq.domain.job import JobState, TaskKind, change_if_unmoved, job_id
from hevcq.domain.verdict import Bury, Done, FailureClass, Release, RetryIn
from hevcq.errors import EncoderFailed, PartUnfit, SourceDamaged, Unavailable
from hevcq.usecases.operations.dead_letters import DeadLetterFilter
from hevcq.usecases.operations.reprocess import ReprocessRequest, redrive
from support.fakes.encoder import passed
from support.fakes.videofarm import CHUNKS, EmbeddedVideoFarm, VideoFarm


def test_a_chunk_that_fails_is_tried_again_alone(farm):
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [EncoderFailed("once")]
    farm.doubt(farm.chunks(source)[0].job_id)

    handled = farm.handle()

    assert isinstance(handled.verdict, RetryIn)
    assert handled.verdict.reason.startswith("Chunk 1 of 3: ")
    assert farm.chunks(source)[0].failures == 1
    assert farm.record(source).failures == 0
    record = farm.until_settled(source)
    assert (record.state, record.failures) == (JobState.DONE, 0)
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS + 1


def test_a_chunk_that_always_fails_buries_its_job_once_and_cancels_the_rest(farm):
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [EncoderFailed("always", tail=["x265: no"])] * 99

    record = farm.until_settled(source)

    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.ENCODER)
    (letter,) = farm.letters()
    assert letter.reason == record.reason
    assert "of 3: " in letter.reason
    assert letter.tail == ("x265: no",)
    assert farm.quiet()
    assert farm.renditions() == []


def test_a_dead_letter_of_a_chunk_that_is_redriven_starts_the_job_anew(farm):
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")]
    farm.until_settled(source)
    (letter,) = farm.letters()
    assert letter.task.kind is TaskKind.CHUNK
    farm.ledger.reopen(letter.task.job_id, who="me", why="repaired")
    farm.queue.send([letter.task])
    assert farm.queue.purge(letter)

    record = farm.until_settled(source)

    assert record.state is JobState.DONE
    assert farm.encoder.calls.count("join") == 1
    assert (farm.quiet(), farm.letters()) == (True, [])


def _other_bytes(farm, part) -> None:
    """Change what the encoder alone would take for the part."""
    key = part.rendition.key
    metadata = dict(farm.store.stat(key).metadata)
    farm.store.put(key, farm.store.content(key) + b"!", metadata=metadata)


LOST = {
    "its object": lambda farm, part: farm.store.delete(part.rendition.key),
    "its record of an object": lambda farm, part: farm.ledger.apply(
        part.job_id, change_if_unmoved(part, {"rendition": None})
    ),
    "its bytes": _other_bytes,
}


@pytest.mark.parametrize("lost", LOST)
def test_only_a_lost_or_damaged_chunk_is_encoded_again(farm, lost):
    source = farm.chunked()
    LOST[lost](farm, farm.chunks(source)[1])

    record = farm.until_settled(source)

    assert (record.state, record.do_not_split_reason) == (JobState.DONE, "")
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS + 1


def test_a_requeued_chunk_has_no_object_left_in_the_store(farm):
    source = farm.chunked()
    part = farm.chunks(source)[1]
    farm.encoder.errors["join"] = [PartUnfit("damaged", index=1)]

    farm.vanish_at("ledger.reopen:after")

    assert farm.chunks(source)[1].state is JobState.QUEUED
    assert farm.store.stat(part.rendition.key) is None


@pytest.mark.parametrize(("step", "index"), [("encode_chunk", None), ("join", None), ("join", 2)])
def test_a_video_whose_chunks_never_fit_is_encoded_whole(farm, step, index):
    source = farm.split()
    farm.encoder.errors[step] = [PartUnfit("never", index=index)] * 99

    record = farm.until_settled(source, rounds=100)

    assert record.state is JobState.DONE
    assert "never" in record.do_not_split_reason
    assert farm.encoder.calls.count("encode") == 1
    assert farm.kept(source) == []
    assert (farm.quiet(), farm.letters()) == (True, [])


def test_a_chunk_requeued_by_a_suspect_worker_does_not_loop_for_ever(farm):
    source = farm.split()
    # Other workers make the chunk again, so nothing that succeeds here takes the doubt away.
    farm.context.breaker.record_failure("another", FailureClass.ENCODER)
    farm.context.breaker.record_success = lambda: None
    farm.encoder.errors["join"] = [PartUnfit("never", index=2)] * 99

    record = farm.until_settled(source, rounds=100)

    assert record.state is JobState.DONE
    assert farm.encoder.calls.count("join") == farm.profile.queue.max_failures
    assert farm.encoder.calls.count("encode") == 1


def test_a_joined_video_that_fails_a_gate_is_never_seen_and_is_encoded_whole(farm):
    source = farm.chunked()
    bad = passed(GateResult(gate=Gate.G5, outcome=Outcome.FAILED, detail="a frame is late"))
    farm.encoder.gates = bad

    farm.handle()

    assert farm.renditions() == []
    assert farm.state(source) is JobState.QUEUED
    farm.encoder.gates = passed()
    record = farm.until_settled(source)
    assert record.state is JobState.DONE
    assert farm.encoder.calls.count("encode") == 1


@pytest.mark.parametrize("kind", [VideoFarm, EmbeddedVideoFarm])
def test_a_kill_before_the_burial_of_a_redriven_chunk_leaves_a_letter(tmp_path, kind):
    farm = kind(tmp_path)
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")]
    assert farm.until_settled(source).state is JobState.DEAD
    request = ReprocessRequest((), who="person")
    assert len(list(redrive(farm.backend, request, DeadLetterFilter()))) == 1
    farm.encoder.errors["preflight"] = [SourceDamaged("holes everywhere")]
    assert farm.killed_at("queue.bury:before")
    assert farm.state(source) is JobState.DEAD

    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    farm.until_settled(source)

    assert ["holes everywhere" in letter.reason for letter in farm.letters()] == [True]


def test_a_chunk_stops_once_its_job_is_dead(farm):
    source = farm.split()
    job, fence, stopped = job_id(source, "hevc"), farm.record(source).fence, []
    encode_chunk = farm.encoder.encode_chunk

    def cancelled(request, plan, chunk, *, on_progress, stop):
        def reported(progress):
            farm.ledger.bury(job, fence, "cancelled", FailureClass.INTERNAL)
            farm.clock.advance(6)
            on_progress(progress)
            stopped.append(stop.is_set())

        return encode_chunk(request, plan, chunk, on_progress=reported, stop=stop)

    farm.encoder.encode_chunk = cancelled
    handled = farm.handle()

    assert stopped == [True], "the encode was told to stop by its own progress"
    assert isinstance(handled.verdict, Release)
    assert farm.until_settled(source).reason == "cancelled"
    assert farm.quiet()
    assert farm.letters() == []


def test_of_two_chunks_that_die_at_once_one_is_the_dead_letter(farm):
    source = farm.split()
    first, second = farm.receive(), farm.receive()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("a"), SourceDamaged("b")]

    def die_meanwhile():
        farm.encoder.during.clear()
        farm.do(second, "other:0")

    farm.encoder.during["encode_chunk"] = die_meanwhile
    farm.do(first)

    record = farm.until_settled(source)
    assert record.state is JobState.DEAD
    assert [letter.reason for letter in farm.letters()] == [record.reason]


def plan_key(farm, source) -> str:
    (key,) = [key for key in farm.kept(source) if key.endswith("plan.json")]
    return key


def replan(farm, source, content: bytes) -> None:
    """Let the split go by another plan, its digest included, as a defect elsewhere might."""
    farm.store.put(plan_key(farm, source), content, metadata={})
    record = farm.record(source)
    digest = hashlib.sha256(content).hexdigest()
    split = record.split.model_copy(update={"plan_sha256": digest})
    assert farm.ledger.apply(record.job_id, change_if_unmoved(record, {"split": split}))


def test_a_recording_of_which_a_trimmed_copy_is_encoded_is_not_split(farm):
    """No other worker has the copy."""
    farm.encoder.trimmed = (b"whole pictures", ())
    source = farm.submit()

    assert isinstance(farm.handle().verdict, Done)
    assert farm.record(source).state is JobState.DONE


def altered(farm, source, **changes) -> bytes:
    """Return the plan of a split with something else in it."""
    video = SplitPlan.parse(farm.store.content(plan_key(farm, source)))
    if changes.pop("fewer", False):
        changes["chunks"] = video.chunks.model_copy(update={"chunks": video.chunks.chunks[:-1]})
    return video.model_copy(update=changes).model_dump_json().encode()


def other_plan(farm, source) -> None:
    farm.store.put(plan_key(farm, source), altered(farm, source, duration_s=1.0), metadata={})


PLANS = {
    "is gone": lambda farm, source: farm.store.delete(plan_key(farm, source)),
    "lacks a chunk": lambda farm, source: replan(farm, source, altered(farm, source, fewer=True)),
    "is not the one that was made": other_plan,
}


@pytest.mark.parametrize("spoilt", PLANS)
def test_a_video_whose_plan_is_spoilt_is_encoded_whole(farm, spoilt):
    source = farm.split()
    PLANS[spoilt](farm, source)

    record = farm.until_settled(source, rounds=100)

    assert (record.state, farm.encoder.calls.count("encode")) == (JobState.DONE, 1)
    assert spoilt == "lacks a chunk" or "encode_chunk" not in farm.encoder.calls


def test_a_chunk_goes_on_while_the_ledger_does_not_answer(farm):
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
def test_a_chunk_with_other_frames_than_planned_is_not_kept(farm, fact):
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
