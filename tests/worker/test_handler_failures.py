"""What a handler does with one delivery that fails: classified once, and the right one pays."""

from unittest.mock import Mock

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.events import EventName
from hevcq.domain.job import JobState, Task
from hevcq.domain.verdict import Abandon, Bury, Done, FailureClass, Release, RetryIn
from hevcq.errors import (
    DatabaseBusy,
    EncoderFailed,
    LimitExceeded,
    SourceDamaged,
    StaleFence,
    StorageError,
    Unavailable,
)
from support.fakes.encoder import fake_plan, passed


def test_a_transient_failure_backs_off_and_is_buried_after_max_failures_with_its_tail(farm):
    farm.encoder.errors["encode"] = [EncoderFailed("x265 broke.", tail=("line",))] * 9
    source = farm.submit()
    farm.doubt(farm.record(source).job_id)

    first = farm.handle()
    assert isinstance(first.verdict, RetryIn)
    assert farm.handle() is None, "it must not be visible before its back-off ends"
    farm.clock.advance(first.verdict.seconds)
    second = farm.handle()
    assert second.verdict.seconds == 2 * first.verdict.seconds
    farm.clock.advance(second.verdict.seconds)
    farm.handle()

    (letter,) = farm.letters()
    assert letter.failure_class is FailureClass.ENCODER
    assert letter.tail == ("line",)
    assert letter.attempts == 3
    assert farm.record(source).reason == "x265 broke."


def test_a_failed_gate_publishes_nothing_and_buries(farm):
    farm.encoder.gates = passed(
        GateResult(gate=Gate.G8, outcome=Outcome.FAILED, detail="SSIM 0.67")
    )
    source = farm.submit()

    farm.handle()

    assert farm.store.published == []
    assert farm.store.stat(farm.key(source)) is None
    assert farm.letters()[0].failure_class is FailureClass.VERIFICATION
    assert "SSIM 0.67" in farm.letters()[0].reason


def test_a_rendition_not_smaller_is_a_skip_that_the_same_bytes_never_repeat(farm):
    farm.encoder.gates = (
        *passed()[:5],
        GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER, detail="It saves 1 %."),
    )
    first = farm.submit("a.mp4")
    farm.handle()
    second = farm.submit("copy.mp4")

    farm.handle()

    assert farm.record(first).reason == "not_smaller: It saves 1 %."
    assert farm.record(second).reason == "remembered: It saves 1 %."
    assert farm.encoder.calls.count("encode") == 1
    assert farm.store.published == []


@pytest.mark.parametrize("step", ["preflight", "encode", "verify"])
@pytest.mark.parametrize(
    "error", [SourceDamaged("A slice is missing."), EncoderFailed("x265 broke.")], ids=str
)
def test_what_a_source_fails_after_it_changed_is_reported_as_the_change(farm, step, error):
    source = farm.submit()
    farm.encoder.during[step] = lambda: farm.store.add_source(source.key, b"other bytes")
    farm.encoder.errors[step] = [error]

    farm.handle()

    (letter,) = farm.letters()
    assert (letter.failure_class, letter.attempts) == (FailureClass.CHANGED, 1)
    assert farm.record(source).failure_class is FailureClass.CHANGED


def test_an_outage_of_the_store_is_charged_to_no_job(farm, monkeypatch):
    source = farm.submit()
    with monkeypatch.context() as outage:
        outage.setattr(farm.store, "check", Mock(side_effect=Unavailable("Slow down (503).")))
        numbers = farm.profile.queue
        for _ in range(numbers.max_receives - numbers.max_failures - 1):
            handled = farm.handle()
            assert isinstance(handled.verdict, Release)
            farm.clock.advance(handled.verdict.delay_s)

    record = farm.record(source)
    assert (record.state, record.failures, farm.letters()) == (JobState.QUEUED, 0, [])
    assert farm.until_settled(source).state is JobState.DONE


def test_a_source_that_no_store_will_ever_answer_for_becomes_a_dead_letter(farm, monkeypatch):
    source = farm.submit()
    monkeypatch.setattr(farm.store, "check", Mock(side_effect=Unavailable("Key disabled (400).")))

    assert farm.until_settled(source, rounds=100).state is JobState.DEAD


def test_a_full_disk_gives_the_work_back_uncounted_and_later_each_time(farm):
    farm.store.free = 10
    farm.with_context(min_free_bytes=1_000)
    source = farm.submit()

    delays = []
    for _ in range(4):
        handled = farm.handle()
        assert isinstance(handled.verdict, Release)
        delays.append(handled.verdict.delay_s)
        farm.clock.advance(handled.verdict.delay_s)

    assert delays == sorted(set(delays))
    record = farm.record(source)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    farm.store.free = None
    assert farm.until_settled(source).state is JobState.DONE


def test_vanished_attempts_are_counted_and_parked_after_max_crashes(farm):
    source = farm.submit()
    for _ in range(3):
        farm.vanish_at("encoder.encode:before")

    farm.handle()

    (letter,) = farm.letters()
    assert letter.failure_class is FailureClass.CRASHED
    assert farm.state(source) is JobState.DEAD
    assert farm.record(source).crashes == 3
    assert farm.encoder.calls.count("encode") == 0


def test_a_job_that_was_never_claimed_is_never_buried_for_a_ledger_that_is_away(farm):
    farm.submit()
    farm.ledger.claim = Mock(side_effect=Unavailable("no answer"))

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
    setattr(farm.ledger, call, Mock(side_effect=StorageError("bad page")))

    handled = farm.handle()

    assert isinstance(handled.unfit, StorageError)
    assert isinstance(handled.verdict, Release)
    assert farm.letters() == []


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
    setattr(farm.ledger, call, Mock(side_effect=Unavailable("no answer")))

    handled = farm.handle()

    assert isinstance(handled.verdict, Abandon)
    assert farm.queue.settled == []
    setattr(farm.ledger, call, real)
    farm.clock.advance(301)
    record = farm.until_settled(source)
    assert record.state is (JobState.DONE if call == "fail" else JobState.DEAD)


def test_the_notices_of_a_plan_are_emitted_before_the_encode(farm):
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


def test_the_worker_bounds_threads_where_the_profile_does_not(farm):
    seen = []
    real = farm.encoder.encode
    farm.encoder.encode = lambda request, **named: (seen.append(request), real(request, **named))[1]
    farm.with_context(threads=3)
    farm.encoder.info = farm.encoder.info.model_copy(update={"duration_s": 50.0})
    farm.encoder.measured_s = 10.0
    farm.submit()

    farm.handle()

    assert seen[0].threads == 3
    assert seen[0].duration_s == 10.0, "what was measured, whatever the header says"
    assert 0 < seen[0].max_seconds <= farm.profile.queue.max_job_s


def test_a_rendition_under_a_fence_that_was_never_granted_is_for_a_person(farm):
    source = farm.submit()
    farm.store.publish = Mock(side_effect=StaleFence("It was published under fence 9."))

    handled = farm.handle()

    assert isinstance(handled.verdict, Bury)
    assert handled.verdict.failure_class is FailureClass.REVIEW
    assert "never granted" in farm.letters()[0].reason
    assert farm.record(source).state is JobState.DEAD
    assert farm.encoder.calls.count("encode") == 1


def test_a_database_that_is_locked_for_a_moment_costs_a_finished_encode_nothing(farm, monkeypatch):
    source = farm.submit()
    complete, answers = farm.ledger.complete, iter([DatabaseBusy("Locked."), None])

    def locked_once(*given, **more):
        if error := next(answers):
            raise error
        complete(*given, **more)

    monkeypatch.setattr(farm.ledger, "complete", locked_once)

    assert farm.handle().verdict == Done()
    assert farm.state(source) is JobState.DONE
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


def test_a_dead_letter_is_written_even_if_the_ledger_cannot_hear_of_it(farm):
    farm.submit()
    farm.ledger.claim = Mock(side_effect=LimitExceeded("held for too long"))
    farm.ledger.bury_unclaimed = Mock(side_effect=Unavailable("no answer"))

    farm.handle()
    assert farm.queue.settled

    assert len(farm.letters()) == 1


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
