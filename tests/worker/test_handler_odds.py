"""The rare turns of a handler: services that stay away at the worst moment, and defects."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from hevcq.domain.events import EventName
from hevcq.domain.job import JobState, Task
from hevcq.domain.verdict import Abandon, Bury, Done, FailureClass, Release, RetryIn
from hevcq.errors import (
    DatabaseDamaged,
    EncoderFailed,
    LimitExceeded,
    SourceDamaged,
    StaleFence,
    Unavailable,
)
from hevcq.ports.store import Input
from support.fakes.encoder import fake_plan
from support.fakes.farm import Farm


@pytest.fixture
def farm(tmp_path) -> Farm:
    return Farm(tmp_path)


def raising(error):
    def call(*_args, **_named):
        raise error

    return call


def test_a_defect_in_a_claim_gives_the_message_back_and_is_logged_with_its_trace(farm):
    source = farm.submit()
    real, farm.ledger.claim = farm.ledger.claim, raising(KeyError("a defect"))

    with capture_logs() as lines:
        handled = farm.handle()

    assert isinstance(handled.verdict, RetryIn)
    assert [line["exc_info"] for line in lines if line["event"] == "claim_broke"] == [True]
    farm.ledger.claim = real
    assert farm.until_settled(source).failures == 0


def test_a_job_that_was_never_claimed_is_never_buried_for_a_ledger_that_is_away(farm):
    farm.submit()
    farm.ledger.claim = raising(Unavailable("no answer"))

    delays = []
    for _ in range(9):
        handled = farm.handle()
        delays.append(handled.verdict.seconds)
        farm.clock.advance(handled.verdict.seconds)

    assert farm.letters() == []
    assert delays == sorted(delays)


@pytest.mark.parametrize("call", ["claim", "recall"])
def test_a_damaged_database_takes_the_worker_out_and_buries_nothing(farm, call):
    farm.submit()
    setattr(farm.ledger, call, raising(DatabaseDamaged("bad page")))

    handled = farm.handle()

    assert isinstance(handled.unfit, DatabaseDamaged)
    assert isinstance(handled.verdict, Release)
    assert farm.letters() == []


def test_a_dead_letter_is_written_even_if_the_ledger_cannot_hear_of_it(farm):
    farm.submit()
    farm.ledger.claim = raising(LimitExceeded("held for too long"))
    farm.ledger.bury_unclaimed = raising(Unavailable("no answer"))

    assert farm.handle().settled

    assert len(farm.letters()) == 1


@pytest.mark.parametrize("chunk", [None, 0])
def test_a_message_that_is_no_task_costs_the_job_it_names_nothing(farm, chunk):
    kind = "join" if chunk is None else "chunk"
    source = farm.store.add_source("TODO/all/a.mp4", b"clip")
    farm.ledger.register(source, ["hevc"])
    farm.queue.send([Task(source=source, profile="hevc", kind=kind, chunk=chunk)])
    farm.queue.send([Task(source=source, profile="hevc")])

    handled = farm.handle()

    assert isinstance(handled.verdict, Bury)
    assert "which part" in farm.letters()[0].reason
    assert farm.record(source).state is JobState.QUEUED
    assert isinstance(farm.handle().verdict, Done)


@pytest.mark.parametrize(
    ("call", "trouble"),
    [("fail", EncoderFailed("broke")), ("bury", SourceDamaged("holes"))],
)
def test_a_verdict_that_cannot_be_recorded_settles_nothing_and_is_found_again(farm, call, trouble):
    source = farm.submit()
    farm.doubt(farm.record(source).job_id)
    farm.encoder.errors["preflight"] = [trouble] * 2
    real = getattr(farm.ledger, call)
    setattr(farm.ledger, call, raising(Unavailable("no answer")))

    handled = farm.handle()

    assert isinstance(handled.verdict, Abandon)
    assert farm.queue.settled == []
    setattr(farm.ledger, call, real)
    farm.clock.advance(301)
    record = farm.until_settled(source)
    assert record.state is (JobState.DONE if call == "fail" else JobState.DEAD)


def test_a_failure_under_a_stale_fence_is_not_counted_against_the_new_holder(farm):
    source = farm.submit()
    job = farm.record(source).job_id

    def taken():
        farm.encoder.during.clear()
        farm.ledger.interrupt(job, 1, "taken")
        farm.ledger.claim(source, "hevc", owner="there:0", lease_s=300)

    farm.encoder.during["encode"] = taken
    farm.encoder.errors["encode"] = [EncoderFailed("broke")]

    handled = farm.handle()

    assert isinstance(handled.verdict, Abandon)
    record = farm.record(source)
    assert (record.state, record.fence, record.failures) == (JobState.RUNNING, 2, 0)
    assert farm.events[-1].kind is EventName.JOB_ABANDONED


def test_a_repeated_transition_that_did_not_arrive_is_not_taken_for_one_that_did(farm):
    source = farm.submit()
    answers = iter([Unavailable("no answer"), StaleFence("newer")])

    def complete(*_args, **_named):
        raise next(answers)

    farm.ledger.complete = complete

    handled = farm.handle()

    assert isinstance(handled.verdict, Abandon)
    assert farm.state(source) is not JobState.DONE
    assert farm.queue.settled == []


def test_what_an_encode_changes_is_told_before_it_begins(farm):
    plan = lambda profile, info: fake_plan(profile, info).model_copy(  # noqa: E731
        update={"notices": ("The GPS track is dropped.",)}
    )
    farm.with_context(plan=plan)
    source = farm.submit()

    farm.handle()

    kinds = [event.kind for event in farm.events if event.kind is not EventName.JOB_PROGRESS]
    assert kinds == [EventName.JOB_STARTED, EventName.JOB_NOTICE, EventName.JOB_DONE]
    name = farm.record(source).rendition.certificate_key
    assert b"The GPS track is dropped." in farm.store.content(name)


def test_a_store_that_hands_out_no_file_is_not_worked_with(farm):
    @contextmanager
    def fetch(*_args, **_named):
        yield Input(location="https://example.org/a.mp4", path=None)

    farm.submit()
    farm.store.fetch = fetch

    handled = farm.handle()

    assert "no local file" in handled.verdict.reason
    assert farm.encoder.calls == []


def test_the_worker_bounds_threads_where_the_profile_does_not(farm):
    seen = []
    real = farm.encoder.encode
    farm.encoder.encode = lambda request, **named: (seen.append(request), real(request, **named))[1]
    farm.with_context(threads=3)
    farm.submit()

    farm.handle()

    assert seen[0].threads == 3
    assert seen[0].duration_s == 10.0
    assert 0 < seen[0].max_seconds <= farm.profile.queue.max_job_s


def test_a_stop_event_of_one_job_does_not_reach_the_next(farm):
    farm.submit("a.mp4")
    second = farm.submit("b.mp4")
    farm.encoder.during["encode"] = lambda: farm.clock.advance(400)
    farm.handle()
    farm.encoder.during.clear()

    farm.until_settled(second)

    assert farm.state(second) is JobState.DONE
    assert isinstance(farm.lease.stop, threading.Event)
    assert not farm.lease.stop.is_set()


def test_a_rendition_under_a_fence_that_was_never_granted_is_for_a_person(farm):
    source = farm.submit()
    farm.store.publish = raising(StaleFence("It was published under fence 9."))

    handled = farm.handle()

    assert isinstance(handled.verdict, Bury)
    assert handled.verdict.failure_class is FailureClass.REVIEW
    assert "never granted" in farm.letters()[0].reason
    assert farm.record(source).state is JobState.DEAD
    assert farm.encoder.calls.count("encode") == 1


def test_a_zombie_whose_publication_is_refused_leaves_the_job_to_its_holder(farm):
    source = farm.submit()

    def overtaken(_publication):
        farm.ledger.interrupt(farm.record(source).job_id, 1, "taken")
        farm.ledger.claim(source, "hevc", owner="another", lease_s=300)
        raise StaleFence("It was published under fence 2.")

    farm.store.publish = overtaken

    assert isinstance(farm.handle().verdict, Abandon)
    assert (farm.record(source).state, farm.record(source).fence) == (JobState.RUNNING, 2)
    assert farm.letters() == []
