"""A lease keeps its own deadline: nothing is published or settled once it may be somebody else's."""

import threading
from unittest.mock import Mock

import pytest

from hevcq.domain.job import JobState, Source, Task, job_id
from hevcq.errors import (
    LeaseLost,
    LimitExceeded,
    SourceGone,
    SourceUnreadable,
    StaleFence,
    Stopped,
    Unavailable,
)
from hevcq.ports.ledger import Granted
from hevcq.worker.admission import sha256_file
from hevcq.worker.delivery.lease import Fence, Lease
from support.clips import ManualClock
from support.fakes.backend import HEVC
from support.fakes.ledger import MemoryLedger
from support.fakes.queue import MemoryQueue

NUMBERS = HEVC.queue
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v1", size=4)
JOB = job_id(SOURCE, "hevc")


class Held:
    """A delivery taken from a memory queue, and the lease over it."""

    def __init__(self, numbers=NUMBERS) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue("hevc", self.clock, visibility_s=numbers.visibility_s)
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
    assert held.lease.alive()

    held.clock.advance(0.2)

    assert not held.lease.alive()
    assert held.lease.stop.is_set()
    with pytest.raises(LeaseLost):
        held.lease.check()


def test_a_failing_ledger_loses_the_lease_although_the_queue_answers(held):
    held.claim()

    held.ledger.renew = Mock(side_effect=Unavailable("no answer"))
    for _ in range(1000):
        if not held.lease.alive():
            break
        held.clock.advance(held.beat())

    assert isinstance(held.lease.cause, LeaseLost)


def test_beats_that_fail_until_the_deadline_lose_the_lease_on_time(held):
    held.queue.extend = Mock(side_effect=Unavailable("no answer"))
    began = held.clock.monotonic()
    while held.lease.alive():
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


def test_after_max_job_s_the_work_ends_as_a_limit_and_the_lease_still_lives_to_settle(held):
    for _ in range(NUMBERS.max_job_s // NUMBERS.heartbeat_s):
        held.clock.advance(NUMBERS.heartbeat_s)
        held.beat()

    assert isinstance(held.lease.cause, LimitExceeded)
    assert held.lease.alive()
    assert held.lease.left_s <= 0


def test_time_that_the_work_stood_still_does_not_count_against_its_limit(held):
    left_s = held.lease.left_s
    held.lease.freeze()
    held.clock.advance(100)
    assert held.lease.left_s == left_s, "still frozen"

    held.lease.thaw()
    held.clock.advance(20)

    assert held.lease.left_s == left_s - 20


def test_work_that_ignores_its_limit_loses_the_lease_a_visibility_later(held):
    for _ in range((NUMBERS.max_job_s + NUMBERS.visibility_s) // NUMBERS.heartbeat_s + 1):
        held.clock.advance(NUMBERS.heartbeat_s)
        held.beat()

    assert held.lease.lost


def test_a_stop_ends_the_work_but_keeps_the_lease_to_release_it(held):
    held.lease.end(Stopped())
    held.beat()

    assert held.lease.stop.is_set()
    assert held.lease.alive()
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

    assert held.lease.alive()
    assert held.ledger.get(JOB).state is JobState.QUEUED


def test_a_short_visibility_has_a_margin_in_proportion():
    numbers = NUMBERS.model_copy(update={"visibility_s": 10})
    held = Held(numbers)

    assert held.lease.deadline == held.clock.monotonic() + 9
    assert held.lease.first_beat_s == 2


def test_a_delivery_that_waited_is_beaten_for_earlier(held):
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

    assert held.lease.alive()


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

    assert held.lease.alive()
    assert held.lease.deadline == pytest.approx(held.clock.monotonic() + NUMBERS.visibility_s - 5)


def test_a_lost_lease_ends_the_hashing(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"x")

    with pytest.raises(LeaseLost):
        sha256_file(path, Mock(side_effect=LeaseLost))


def test_what_cannot_be_hashed_is_named(tmp_path):
    with pytest.raises(SourceGone):
        sha256_file(tmp_path / "none", lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / "none", lambda: None, missing=Unavailable)
    with pytest.raises(SourceUnreadable):
        sha256_file(tmp_path, lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / ("n" * 300), lambda: None)
