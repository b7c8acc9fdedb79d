"""What a handler does with one delivery that fails: classified once, and the right one pays."""

from __future__ import annotations

import pytest

from fakes.encoder import passed
from fakes.farm import Farm
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.job import JobState
from hevcq.domain.verdict import FailureClass, Release, RetryIn
from hevcq.errors import (
    EncoderFailed,
    EncoderStalled,
    SourceDamaged,
    Stopped,
    Unavailable,
    WorkerUnfit,
)


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


def test_a_source_that_is_gone_is_buried(farm):
    source = farm.submit()
    farm.store.remove_source(source)

    farm.handle()

    assert farm.letters()[0].failure_class is FailureClass.GONE


def test_a_full_disk_gives_the_work_back_uncounted_and_later_each_time(farm):
    farm.store.free = 10
    farm.with_kit(min_free_bytes=1_000)
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


def test_different_jobs_that_fail_in_a_row_take_the_worker_out(farm):
    farm.encoder.errors["encode"] = [EncoderFailed("broke")] * 5
    sources = [farm.submit(f"{n}.mp4") for n in range(5)]

    handled = [farm.handle() for _ in sources]

    assert [h.unfit is not None for h in handled] == [False] * 4 + [True]
    assert farm.record(sources[-1]).failures == 0
    assert farm.letters() == []


def test_a_sick_worker_costs_at_most_one_attempt_of_one_job(farm):
    farm.encoder.errors["encode"] = [EncoderFailed("broke")] * 5
    sources = [farm.submit(f"{n}.mp4") for n in range(5)]

    handled = [farm.handle() for _ in sources]

    assert [farm.record(source).failures for source in sources] == [1, 0, 0, 0, 0]
    assert [type(h.verdict) for h in handled] == [RetryIn, *[Release] * 4]
    assert all(h.verdict.delay_s > 0 for h in handled[1:4]), "other workers are to have it first"


def failed_trial(*_args, **_named):
    raise WorkerUnfit("Ten test pictures could not be encoded.")


@pytest.mark.parametrize(
    "error", [EncoderFailed("broke"), EncoderStalled("stands"), KeyError("x")], ids=repr
)
def test_a_worker_that_fails_its_trial_leaves_at_once_and_the_job_pays_nothing(farm, error):
    farm.encoder.errors["encode"] = [error]
    farm.encoder.trial = failed_trial
    source = farm.submit()

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert str(handled.unfit) == "Ten test pictures could not be encoded."
    record = farm.record(source)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    assert farm.queue.depth().ready == 1


@pytest.mark.parametrize(
    "error", [SourceDamaged("Packets are missing."), Unavailable("No answer.")], ids=repr
)
def test_a_failure_that_is_surely_not_the_machines_asks_for_no_trial(farm, error):
    farm.encoder.errors["encode"] = [error]
    farm.encoder.trial = failed_trial
    farm.submit()

    assert farm.handle().unfit is None


def test_a_trial_that_is_stopped_says_nothing(farm):
    def stopped(*_args, **_named):
        raise Stopped

    farm.encoder.errors["encode"] = [EncoderFailed("broke")]
    farm.encoder.trial = stopped
    farm.submit()

    handled = farm.handle()

    assert isinstance(handled.verdict, RetryIn)
    assert handled.unfit is None


def test_two_sources_that_break_the_encoder_each_time_still_end(farm):
    farm.encoder.errors["encode"] = [EncoderFailed("broke")] * 99
    first, second = farm.submit("1.mp4"), farm.submit("2.mp4")

    farm.until_settled(first, rounds=200)

    assert {farm.state(first), farm.state(second)} == {JobState.DEAD}
    most = farm.profile.queue.max_receives
    assert all(letter.attempts < most for letter in farm.letters())
    assert {letter.failure_class for letter in farm.letters()} == {FailureClass.ENCODER}


def test_a_doubted_failure_is_counted_once_the_message_has_no_receives_to_spare(farm):
    farm.encoder.errors["encode"] = [EncoderFailed("broke")] * 9
    farm.kit.fitness.failed("another", FailureClass.ENCODER)
    farm.submit()
    spare = farm.profile.queue.max_receives - farm.profile.queue.max_failures
    for _ in range(spare - 1):
        delivery = farm.receive()
        farm.queue.release(delivery)

    assert isinstance(farm.handle().verdict, RetryIn)


def test_one_job_that_fails_again_and_again_does_not_take_the_worker_out(farm):
    farm.encoder.errors["encode"] = [EncoderFailed("broke")] * 3
    source = farm.submit()

    farm.until_settled(source)

    assert farm.kit.fitness.failed("another", FailureClass.ENCODER) is False
    assert farm.letters()[0].failure_class is FailureClass.ENCODER


def test_vanished_attempts_are_counted_and_parked_after_max_crashes(farm):
    source = farm.submit()
    for _ in range(3):
        assert farm.killed_at("before-encode")
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
