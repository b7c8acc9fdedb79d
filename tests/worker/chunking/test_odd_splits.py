"""Splits that something outside went wrong with: plans and reports lost, ledgers away, races ended."""

import dataclasses
import hashlib
import json
from contextlib import contextmanager
from unittest.mock import Mock

from hevcq.domain.chunking.model import SplitPlan
from hevcq.domain.job import JobState, TaskKind, job_id
from hevcq.domain.verdict import Done, RetryIn
from hevcq.errors import PartUnfit, Unavailable
from hevcq.ports.ledger import Granted
from hevcq.worker.chunking.subjob import MAX_PLAN_BYTES
from support.fakes.videofarm import CHUNKS


def plan_key(farm, source) -> str:
    (key,) = [key for key in farm.kept(source) if key.endswith("plan.json")]
    return key


def replan(farm, source, content: bytes) -> None:
    """Let the split go by another plan, its digest included, as a defect elsewhere might."""
    farm.store.put(plan_key(farm, source), content, metadata={})
    record = farm.record(source)
    digest = hashlib.sha256(content).hexdigest()
    farm.ledger._write(record, split=record.split.model_copy(update={"plan_sha256": digest}))


def encoded_whole(farm, source) -> bool:
    record = farm.until_settled(source, rounds=100)
    return record.state is JobState.DONE and farm.encoder.calls.count("encode") == 1


def test_a_video_whose_plan_is_gone_is_encoded_whole(farm):
    source = farm.split()
    farm.store.delete(plan_key(farm, source))

    assert encoded_whole(farm, source)
    assert "encode_chunk" not in farm.encoder.calls


def test_a_video_whose_plan_this_release_cannot_read_is_encoded_whole(farm):
    source = farm.split()
    whole = json.loads(farm.store.content(plan_key(farm, source)))
    replan(farm, source, json.dumps({**whole, "of_a_later_release": 1}).encode())

    assert encoded_whole(farm, source)


def test_a_giant_in_the_plans_place_is_not_read_into_memory(farm):
    source = farm.split()
    farm.store.put(plan_key(farm, source), b" " * (MAX_PLAN_BYTES + 1), metadata={})

    verdict = farm.do(farm.receive()).verdict

    assert isinstance(verdict, RetryIn)


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


def test_a_chunk_that_gives_the_split_up_after_another_did_is_acknowledged(farm):
    source = farm.split()
    record, tries = farm.record(source), []
    # The first failure is not counted: it may be the worker's own.
    runs = 1 + farm.profile.queue.max_failures

    def never(*args, **more):
        tries.append(1)
        if len(tries) == runs:
            farm.ledger.abandon_split(record.job_id, record.fence, "another chunk never fits")
        raise PartUnfit("it does not fit")

    farm.encoder.encode_chunk = never
    first = farm.receive()
    while not isinstance(farm.do(first).verdict, Done):
        farm.clock.advance(10_000)
        held = {d.tasks[0].chunk: d for d in iter(farm.receive, None)}
        first = held[0]

    assert len(tries) == runs
    found = farm.record(source)
    assert (found.state, found.do_not_split_reason) == (JobState.QUEUED, "another chunk never fits")


def test_a_join_whose_store_hands_out_no_file_waits_for_a_better_moment(farm):
    source, fetch = farm.chunked(), farm.store.fetch

    @contextmanager
    def without_a_file(*args, **more):
        with fetch(*args, **more) as found:
            yield dataclasses.replace(found, path=None)

    farm.store.fetch = without_a_file
    handled = farm.handle()
    farm.store.fetch = fetch

    assert isinstance(handled.verdict, RetryIn)
    assert "no local file" in handled.verdict.reason
    assert farm.until_settled(source).state is JobState.DONE


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


def test_a_job_that_comes_back_while_every_part_is_held_sends_nothing(farm):
    source = farm.submit()
    assert farm.killed_at("ledger.mark_enqueued:before")
    held = [farm.receive() for _ in range(CHUNKS)]
    for part in farm.parts(source):
        claim = farm.ledger.claim_subjob(part.job_id, owner="there:0", lease_s=9_999)
        assert isinstance(claim, Granted)
    for delivery in held:
        farm.queue.ack(delivery)

    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    assert isinstance(farm.handle().verdict, Done)

    assert farm.record(source).split.announced
    assert farm.quiet()
    assert farm.ledger.get(job_id(source, "hevc")).state is JobState.SPLIT
