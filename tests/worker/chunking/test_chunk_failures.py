"""Chunks and joins that fail, vanish, come too late or do not fit: what it costs, and who is told."""

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.job import JobState, TaskKind, job_id, of_record
from hevcq.domain.verdict import FailureClass, Release, RetryIn
from hevcq.errors import (
    EncoderFailed,
    PartUnfit,
    SourceDamaged,
)
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
    "its report": lambda farm, part: farm.store.delete(part.rendition.certificate_key),
    "its record of an object": lambda farm, part: farm.ledger.apply(
        part.job_id, of_record(part, {"rendition": None})
    ),
    "its bytes": _other_bytes,
}


@pytest.mark.parametrize("lost", LOST)
def test_a_part_that_lost_something_is_made_again_alone(farm, lost):
    source = farm.chunked()
    LOST[lost](farm, farm.chunks(source)[1])

    record = farm.until_settled(source)

    assert (record.state, record.do_not_split_reason) == (JobState.DONE, "")
    assert farm.encoder.calls.count("encode_chunk") == CHUNKS + 1


def test_a_part_that_is_open_again_has_no_object_that_an_equal_one_would_leave_in_place(farm):
    source = farm.chunked()
    part = farm.chunks(source)[1]
    farm.encoder.errors["join"] = [PartUnfit("damaged", index=1)]

    farm.vanish_at("ledger.reopen:after")

    assert farm.chunks(source)[1].state is JobState.QUEUED
    assert farm.store.stat(part.rendition.key) is None


@pytest.mark.parametrize(("step", "index"), [("encode_chunk", None), ("join", None), ("join", 2)])
def test_parts_that_never_fit_have_the_video_encoded_whole(farm, step, index):
    source = farm.split()
    farm.encoder.errors[step] = [PartUnfit("never", index=index)] * 99

    record = farm.until_settled(source, rounds=100)

    assert record.state is JobState.DONE
    assert "never" in record.do_not_split_reason
    assert farm.encoder.calls.count("encode") == 1
    assert farm.kept(source) == []
    assert (farm.quiet(), farm.letters()) == (True, [])


def test_a_chunk_sent_back_by_a_worker_in_doubt_does_not_go_round_for_ever(farm):
    source = farm.split()
    # Other workers make the chunk again, so nothing that succeeds here takes the doubt away.
    farm.context.breaker.failed("another", FailureClass.ENCODER)
    farm.context.breaker.succeeded = lambda: None
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
