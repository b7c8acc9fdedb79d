"""Whose fault a failure is: a sick worker is taken out and costs no job an attempt, poison ends."""

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.verdict import Done, FailureClass, Release, RetryIn
from hevcq.errors import (
    EncoderFailed,
    EncoderStalled,
    OutOfMemory,
    Unavailable,
    WorkerUnfit,
)
from hevcq.worker.admission import SUSPECT, CircuitBreaker
from support.fakes.backend import HEVC
from support.fakes.farm import Farm


def with_numbers(tmp_path, **numbers: int) -> Farm:
    queue = HEVC.queue.model_copy(update=numbers)
    return Farm(tmp_path, HEVC.model_copy(update={"queue": queue}))


@pytest.mark.parametrize("well", [0, 3], ids=["from the start", "after three videos"])
@pytest.mark.parametrize(
    "error", [EncoderFailed("broke"), EncoderStalled("stands"), KeyError("x")], ids=repr
)
def test_a_sick_worker_costs_no_job_an_attempt(farm, error, well):
    sources = [farm.submit(f"{n}.mp4") for n in range(well + 5)]
    done = [farm.handle() for _ in range(well)]
    farm.encoder.errors["encode"] = [error] * 5

    handled = [farm.handle() for _ in range(5)]

    assert [type(h.verdict) for h in done] == [Done] * well
    assert [farm.record(source).failures for source in sources] == [0] * (well + 5)
    assert [type(h.verdict) for h in handled] == [Release] * 5
    assert all(h.verdict.delay_s > 0 for h in handled[:4]), "other workers are to have it first"
    assert all(h.verdict.suspected_worker_fault for h in handled[:4]), (
        "this one need not wait for it"
    )
    assert [h.unfit is not None for h in handled] == [False] * 4 + [True]
    assert {farm.until_settled(source).state for source in sources} == {JobState.DONE}


@pytest.mark.parametrize("most", [1, 3])
def test_what_always_breaks_the_encoder_ends_after_its_failures_and_one_that_is_not_counted(
    tmp_path, most
):
    farm = with_numbers(tmp_path, max_failures=most)
    farm.encoder.errors["encode"] = [EncoderFailed("broke")] * 99
    source = farm.submit()

    record = farm.until_settled(source)

    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.ENCODER)
    (letter,) = farm.letters()
    assert letter.attempts == most + 1
    assert letter.reason == "broke"
    assert farm.encoder.calls.count("encode") == most + 1
    # The last is told by the dead letter.
    assert (record.failures, record.crashes) == (most - 1, 0)


def test_a_first_failure_is_counted_where_the_message_has_no_receives_to_spare(tmp_path):
    farm = with_numbers(tmp_path, max_failures=3, max_receives=4)
    farm.encoder.errors["encode"] = [EncoderFailed("broke")] * 99
    source = farm.submit()

    assert isinstance(farm.handle().verdict, RetryIn)

    assert farm.until_settled(source).failure_class is FailureClass.ENCODER
    assert farm.letters()[0].attempts == 3


@pytest.mark.parametrize(
    "error", [Unavailable("No answer."), OutOfMemory("It was killed.")], ids=repr
)
def test_a_first_failure_that_is_surely_not_the_machines_is_counted(farm, error):
    farm.encoder.errors["encode"] = [error]
    farm.encoder.self_test = failed_trial
    source = farm.submit()

    handled = farm.handle()

    assert (type(handled.verdict), handled.unfit) == (RetryIn, None), "no trial was asked for"
    assert farm.record(source).failures == 1


def failed_trial(*_args, **_named):
    raise WorkerUnfit("Ten test pictures could not be encoded.")


@pytest.mark.parametrize(
    "error", [EncoderFailed("broke"), EncoderStalled("stands"), KeyError("x")], ids=repr
)
def test_a_worker_that_fails_its_trial_leaves_at_once_and_the_job_pays_nothing(farm, error):
    farm.encoder.errors["encode"] = [error]
    farm.encoder.self_test = failed_trial
    source = farm.submit()

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert str(handled.unfit) == "Ten test pictures could not be encoded."
    record = farm.record(source)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    assert farm.queue.depth().ready == 1


@pytest.mark.parametrize("failure_class", list(FailureClass))
def test_only_failures_that_may_be_the_machines_make_it_sick(failure_class):
    fitness = CircuitBreaker(sick_after=2)
    fitness.failed("a", failure_class)

    assert fitness.failed("b", failure_class) is (failure_class in SUSPECT)


def test_a_success_in_between_shows_that_the_worker_can_encode():
    fitness = CircuitBreaker(sick_after=2)
    fitness.failed("a", FailureClass.ENCODER)
    fitness.succeeded()

    assert not fitness.failed("b", FailureClass.ENCODER)
    assert not fitness.failed("b", FailureClass.ENCODER), "the same job counts once"
    assert fitness.failed("c", FailureClass.ENCODER)
