"""What a handler does with one delivery that fails: classified once, and the right one pays."""

from __future__ import annotations

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.job import JobState
from hevcq.domain.verdict import FailureClass, Release, RetryIn
from hevcq.errors import (
    EncoderFailed,
    SourceDamaged,
    Unavailable,
    WorkerUnfit,
)
from support.fakes.encoder import passed
from support.fakes.farm import Farm


@pytest.fixture
def farm(tmp_path) -> Farm:
    return Farm(tmp_path)


def test_a_poison_source_costs_one_attempt(farm):
    farm.encoder.errors["preflight"] = [SourceDamaged("12 packets are missing.")]
    source = farm.submit()

    farm.handle()

    (letter,) = farm.letters()
    assert (letter.attempts, letter.failure_class) == (1, FailureClass.DAMAGED)
    assert letter.reason == "12 packets are missing."
    assert farm.state(source) is JobState.DEAD
    assert farm.encoder.calls.count("encode") == 0


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
    bad = GateResult(gate=Gate.G8, outcome=Outcome.FAILED, detail="SSIM 0.67")
    farm.encoder.gates = passed(bad)
    source = farm.submit()

    farm.handle()

    assert farm.store.published == []
    assert farm.store.stat(farm.key(source)) is None
    assert farm.letters()[0].failure_class is FailureClass.VERIFICATION
    assert "SSIM 0.67" in farm.letters()[0].reason


@pytest.mark.parametrize("missing", list(Gate)[1:9])
def test_a_gate_that_did_not_run_counts_as_failed(farm, missing):
    farm.encoder.gates = tuple(g for g in passed() if g.gate is not missing)
    farm.submit()

    farm.handle()

    assert farm.store.published == []
    assert farm.letters()[0].failure_class is FailureClass.VERIFICATION


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


def test_a_rendition_too_good_to_be_true_waits_for_a_person(farm):
    farm.encoder.gates = passed(GateResult(gate=Gate.G7, outcome=Outcome.REVIEW, detail="1 %"))
    farm.submit()

    farm.handle()

    assert farm.letters()[0].failure_class is FailureClass.REVIEW
    assert farm.store.published == []


def test_a_source_replaced_during_the_encode_is_not_published(farm):
    source = farm.submit()
    farm.encoder.during["verify"] = lambda: farm.store.add_source(source.key, b"other bytes")

    farm.handle()

    assert farm.store.published == []
    assert farm.letters()[0].failure_class is FailureClass.CHANGED


@pytest.mark.parametrize("step", ["preflight", "encode", "verify"])
@pytest.mark.parametrize(
    "error", [SourceDamaged("A slice is missing."), EncoderFailed("x265 broke.")], ids=str
)
def test_what_a_source_fails_after_it_changed_is_told_as_the_change(farm, step, error):
    source = farm.submit()
    farm.encoder.during[step] = lambda: farm.store.add_source(source.key, b"other bytes")
    farm.encoder.errors[step] = [error]

    farm.handle()

    (letter,) = farm.letters()
    assert (letter.failure_class, letter.attempts) == (FailureClass.CHANGED, 1)
    assert farm.record(source).failure_class is FailureClass.CHANGED


def test_a_gate_that_a_source_fails_because_it_went_is_told_as_gone(farm):
    source = farm.submit()
    farm.encoder.during["verify"] = lambda: farm.store.remove_source(source)
    farm.encoder.gates = passed(GateResult(gate=Gate.G8, outcome=Outcome.UNKNOWN))

    farm.handle()

    assert farm.letters()[0].failure_class is FailureClass.GONE


def test_a_store_that_does_not_answer_leaves_a_failure_what_it_was(farm, monkeypatch):
    source = farm.submit()
    check = farm.store.check

    def answers_once(asked):
        monkeypatch.setattr(farm.store, "check", silent)
        check(asked)

    def silent(_source):
        raise Unavailable("No answer.")

    monkeypatch.setattr(farm.store, "check", answers_once)
    farm.encoder.errors["preflight"] = [SourceDamaged("A slice is missing.")]

    farm.handle()

    assert farm.letters()[0].failure_class is FailureClass.DAMAGED
    assert farm.record(source).reason == "A slice is missing."


def test_a_source_that_is_gone_is_buried(farm):
    source = farm.submit()
    farm.store.remove_source(source)

    farm.handle()

    assert farm.letters()[0].failure_class is FailureClass.GONE


def test_what_a_full_disk_lacks_is_more_than_it_has_in_words_too(farm):
    farm.store.free = 3 << 20
    farm.with_context(min_free_bytes=2 << 20)
    farm.submit(content=b"0" * ((1 << 20) + 1))

    handled = farm.handle()

    assert "needs 4 MiB free, and there are 3 MiB." in handled.verdict.reason


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


def test_a_worker_without_an_encoder_gives_the_work_back_at_once_and_takes_itself_out(farm):
    farm.encoder.errors["encode"] = [WorkerUnfit("ffmpeg has no libx265.")]
    source = farm.submit()

    handled = farm.handle()

    assert isinstance(handled.unfit, WorkerUnfit)
    record = farm.record(source)
    assert (record.state, record.failures) == (JobState.QUEUED, 0)
    assert farm.queue.depth().ready == 1


def test_vanished_attempts_are_counted_and_parked_after_max_crashes(farm):
    source = farm.submit()
    for _ in range(3):
        assert farm.killed_at("encoder.encode:before")
        farm.clock.advance(farm.profile.queue.visibility_s + 1)

    farm.handle()

    (letter,) = farm.letters()
    assert letter.failure_class is FailureClass.CRASHED
    assert farm.state(source) is JobState.DEAD
    assert farm.record(source).crashes == 3
    assert farm.encoder.calls.count("encode") == 0


def test_an_error_nobody_named_is_retried_as_internal(farm):
    farm.encoder.errors["probe"] = [KeyError("surprise")]
    source = farm.submit()
    farm.doubt(farm.record(source).job_id)

    handled = farm.handle()

    assert handled.verdict.failure_class is FailureClass.INTERNAL
    assert farm.until_settled(source).state is JobState.DONE


def test_a_ledger_that_does_not_answer_costs_the_job_nothing(farm):
    def down(*_args, **_named):
        raise Unavailable("The ledger did not answer.")

    source = farm.submit()
    real, farm.ledger.claim = farm.ledger.claim, down

    handled = farm.handle()

    assert isinstance(handled.verdict, RetryIn)
    farm.ledger.claim = real
    record = farm.until_settled(source)
    assert (record.state, record.failures, record.crashes) == (JobState.DONE, 0, 0)
