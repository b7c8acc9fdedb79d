"""A lease keeps its own deadline: nothing is published or settled once it may be somebody else's.

Whose fault a failure is: a sick worker is taken out and costs no job an attempt, poison ends.
"""

import threading
from unittest.mock import Mock

import pytest

from hevcq.domain.job import JobState, Source, Task, job_id
from hevcq.domain.verdict import Done, FailureClass, Release, RetryIn
from hevcq.errors import (
    EncoderFailed,
    EncoderStalled,
    LeaseLost,
    LimitExceeded,
    OutOfMemory,
    SourceGone,
    SourceUnreadable,
    StaleFence,
    Stopped,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ports.ledger import Granted
from hevcq.worker.admission import sha256_file
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.out_of_service import SUSPECT, CircuitBreaker
from support.clips import ManualClock
from support.fakes.backend import HEVC
from support.fakes.farm import Farm
from support.fakes.ledger import MemoryLedger
from support.fakes.queue import MemoryQueue

NUMBERS = HEVC.queue
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v1", size=4)
JOB = job_id(SOURCE, "hevc")


class Held:
    """A delivery taken from a memory queue, and the lease over it."""

    def __init__(self, numbers=NUMBERS) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue("hevc", self.clock, numbers)
        self.ledger = MemoryLedger(self.clock)
        self.queue.send([Task(source=SOURCE, profile="hevc")])
        (self.delivery,) = self.queue.receive(1, wait_s=0, stop=threading.Event())
        self.lease = Lease(self.queue, self.delivery, numbers, self.clock, lambda: 0.5)

    def claim(self, owner: str = "here:0") -> Granted:
        at = self.clock.monotonic()
        claim = self.ledger.claim(SOURCE, "hevc", owner=owner, lease_s=NUMBERS.visibility_s)
        self.lease.hold(Fence(self.ledger, JOB, claim.fence), claimed_at=at)
        return claim

    def beat(self) -> float:
        return self.lease.beat(self.clock.monotonic())


@pytest.fixture
def held() -> Held:
    return Held()


def test_a_lease_that_is_never_extended_is_lost_a_margin_before_its_deadline(held):
    held.clock.advance(NUMBERS.visibility_s - 5.1)
    assert not held.lease.lost

    held.clock.advance(0.2)

    assert held.lease.lost
    assert held.lease.stop.is_set()
    with pytest.raises(LeaseLost):
        held.lease.check()


@pytest.mark.parametrize(("service", "call"), [("queue", "extend"), ("ledger", "renew")])
def test_a_queue_or_ledger_that_does_not_answer_loses_the_lease_on_time(held, service, call):
    held.claim()
    setattr(getattr(held, service), call, Mock(side_effect=Unavailable("no answer")))
    began = held.clock.monotonic()
    for _ in range(1000):
        if held.lease.lost:
            break
        held.clock.advance(held.beat())

    assert held.clock.monotonic() - began == pytest.approx(NUMBERS.visibility_s - 5, abs=0.05)
    assert isinstance(held.lease.cause, LeaseLost)


def test_a_receipt_that_is_gone_ends_the_work_at_the_next_beat(held):
    held.clock.advance(NUMBERS.visibility_s - 6)
    held.queue.release(held.delivery)
    held.queue.receive(1, wait_s=0, stop=threading.Event())

    held.beat()

    assert held.lease.lost
    assert held.lease.stop.is_set()


def test_a_newer_fence_ends_the_work_at_the_next_beat(held):
    held.claim()
    held.ledger.interrupt(JOB, 1, "taken back")
    assert held.ledger.claim(SOURCE, "hevc", owner="other", lease_s=60).fence == 2

    held.beat()

    assert held.lease.lost
    assert isinstance(held.lease.cause, StaleFence)


def test_a_reply_that_took_long_does_not_lengthen_the_lease(held):
    held.claim()
    real = held.ledger.renew

    def slow(*args, **named):
        real(*args, **named)
        held.clock.advance(100)

    held.ledger.renew = slow
    held.beat()

    assert held.lease.deadline == held.clock.monotonic() - 100 + NUMBERS.visibility_s - 5


def test_after_max_job_s_the_work_ends_as_a_limit_and_the_lease_lives_a_visibility_longer(held):
    def beat_for(seconds: int) -> None:
        for _ in range(seconds // NUMBERS.heartbeat_s):
            held.clock.advance(NUMBERS.heartbeat_s)
            held.beat()

    beat_for(NUMBERS.max_job_s)
    assert isinstance(held.lease.cause, LimitExceeded)
    assert not held.lease.lost
    assert held.lease.left_s <= 0

    beat_for(NUMBERS.visibility_s + NUMBERS.heartbeat_s)
    assert held.lease.lost


def test_time_that_the_work_stood_still_does_not_count_against_its_limit(held):
    left_s = held.lease.left_s
    held.lease.freeze()
    held.clock.advance(100)
    assert held.lease.left_s == left_s, "still frozen"

    held.lease.thaw()
    held.clock.advance(20)

    assert held.lease.left_s == left_s - 20


def test_a_stop_ends_the_work_but_keeps_the_lease_to_release_it(held):
    held.lease.end(Stopped())
    held.beat()

    assert held.lease.stop.is_set()
    assert not held.lease.lost
    with pytest.raises(Stopped):
        held.lease.check()


def test_losing_the_lease_outranks_a_stop_and_nothing_outranks_it(held):
    held.lease.end(Stopped())
    held.lease.end(LeaseLost("taken"))
    held.lease.end(Stopped())

    assert isinstance(held.lease.cause, LeaseLost)
    assert held.lease.lost


def test_a_claim_that_was_dropped_is_renewed_no_more(held):
    held.claim()
    held.lease.drop()
    held.ledger.interrupt(JOB, 1, "done with it")

    held.beat()

    assert not held.lease.lost
    assert held.ledger.get(JOB).state is JobState.QUEUED


def test_a_short_visibility_has_a_margin_in_proportion():
    numbers = NUMBERS.model_copy(update={"visibility_s": 10})
    held = Held(numbers)

    assert held.lease.deadline == held.clock.monotonic() + 9
    assert held.lease.first_beat_s == 2


def test_a_delivery_that_waited_gets_its_first_heartbeat_earlier(held):
    held.clock.advance(NUMBERS.visibility_s - 15)
    lease = Lease(held.queue, held.delivery, NUMBERS, held.clock, lambda: 0.5)

    assert lease.first_beat_s == pytest.approx(10 / 3)


def test_dropping_a_claim_waits_for_the_beat_in_flight(held):
    held.claim()
    entered, leave = threading.Event(), threading.Event()
    real = held.ledger.renew

    def renew(*args, **named):
        entered.set()
        assert leave.wait(10)
        real(*args, **named)

    held.ledger.renew = renew
    beating = threading.Thread(target=held.beat)
    beating.start()
    assert entered.wait(10)
    dropping = threading.Thread(target=held.lease.drop)
    dropping.start()
    assert dropping.is_alive()
    leave.set()
    dropping.join(10)
    beating.join(10)

    assert not held.lease.lost


def test_a_beat_that_fails_is_retried_soon_and_the_lease_recovers(held):
    answers = [Unavailable("no answer")] * 3
    real = held.queue.extend

    def extend(*args):
        if answers:
            raise answers.pop()
        return real(*args)

    held.queue.extend = extend
    held.clock.advance(NUMBERS.heartbeat_s)

    for _ in range(3):
        wait = held.beat()
        assert 0 < wait <= NUMBERS.heartbeat_s / 4
        held.clock.advance(wait)
    assert held.beat() == NUMBERS.heartbeat_s

    assert not held.lease.lost
    assert held.lease.deadline == pytest.approx(held.clock.monotonic() + NUMBERS.visibility_s - 5)


def test_a_lost_lease_ends_the_hashing(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"x")

    with pytest.raises(LeaseLost):
        sha256_file(path, Mock(side_effect=LeaseLost))


def test_a_file_that_cannot_be_hashed_raises_the_matching_error(tmp_path):
    with pytest.raises(SourceGone):
        sha256_file(tmp_path / "none", lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / "none", lambda: None, missing=Unavailable)
    with pytest.raises(SourceUnreadable):
        sha256_file(tmp_path, lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / ("n" * 300), lambda: None)


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
    assert all(h.verdict.suspected_worker_fault for h in handled[:4]), "this one need not wait"
    assert [h.unfit is not None for h in handled] == [False] * 4 + [True]
    assert {farm.until_settled(source).state for source in sources} == {JobState.DONE}


@pytest.mark.parametrize("most", [1, 3])
def test_a_video_that_always_breaks_the_encoder_is_buried_after_one_uncounted_failure_more(
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
def test_a_first_failure_that_cannot_be_the_machines_is_counted(farm, error):
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
def test_a_worker_that_fails_its_self_test_ends_at_once_and_its_job_is_not_charged(farm, error):
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
def test_only_failures_that_may_be_the_machines_take_it_out_of_service(failure_class):
    fitness = CircuitBreaker(max_failing_jobs=2)
    fitness.record_failure("a", failure_class)

    assert fitness.record_failure("b", failure_class) is (failure_class in SUSPECT)


def test_a_success_in_between_shows_that_the_worker_can_encode():
    fitness = CircuitBreaker(max_failing_jobs=2)
    fitness.record_failure("a", FailureClass.ENCODER)
    fitness.record_success()

    assert not fitness.record_failure("b", FailureClass.ENCODER)
    assert not fitness.record_failure("b", FailureClass.ENCODER), "the same job counts once"
    assert fitness.record_failure("c", FailureClass.ENCODER)
