"""Several queues where each look costs money: long polls side by side, as far as slots are free."""

import threading
from collections.abc import Callable
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from hevcq.domain.job import JobState
from hevcq.errors import AccessDenied, ConfigError, DatabaseDamaged, Unavailable
from hevcq.ports.ledger import JobFilter
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.poller import Poller
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.slot import SlotOutcome
from support.fakes.backend import HEVC, Faulty, memory_backend
from support.fakes.farm import Farm

NAMES = ("1080p", "720p", "hevc")


@pytest.fixture
def farm(tmp_path):
    """Three queues, each with a long poll of 20 s, on a clock that the test moves."""
    made = Farm(tmp_path)
    made.clock.auto = False
    profiles = {name: HEVC.model_copy(update={"name": name}) for name in NAMES}
    backend = memory_backend(made.clock, profiles)
    for queue in backend.queues.values():
        queue.long_poll_s = 20.0
    made.with_context(backend=backend)
    made.backend, made.store, made.ledger = backend, backend.store, backend.ledger
    made.served = [ProfileQueue(profiles[name], backend.queues[name]) for name in NAMES]
    made.receives, made.guard = [], threading.Lock()
    return made


def watched(
    farm, before: Callable[[str, int], None] = lambda _name, _limit: None
) -> list[ProfileQueue]:
    """Note (queue, limit, wait) of every receive; `before` may raise in its place."""

    def stand_before(served: ProfileQueue) -> ProfileQueue:
        queue, real = served.queue, served.queue.receive

        def receive(limit, *, wait_s, stop):
            with farm.guard:
                farm.receives.append((queue.name, limit, wait_s))
            before(queue.name, limit)
            return real(limit, wait_s=wait_s, stop=stop)

        queue.receive = receive
        return served

    return [stand_before(served) for served in farm.served]


def submit(farm, count: int, *names: str) -> None:
    for number in range(count):
        source = farm.store.add_source(f"TODO/all/{number}.mp4", str(number).encode())
        farm.backend.task_publisher.publish(source, list(names or NAMES), announced=False)


def done(farm) -> int:
    return sum(1 for _ in farm.ledger.jobs(JobFilter(states=frozenset({JobState.DONE}))))


def drive(farm, pool: WorkerPool, until: Callable[[], bool], *, step_s: float = 0.25) -> float:
    """Move time on until something holds; return how many seconds that took on the clock."""
    began, pause = farm.clock.monotonic(), threading.Event()
    for _ in range(8_000):
        if until():
            return farm.clock.monotonic() - began
        farm.clock.advance(step_s)
        pool.step()
        pause.wait(0.002)
    raise AssertionError("it never came to that")


def pool_of(farm, served: list[ProfileQueue], slots: int) -> WorkerPool:
    return WorkerPool(farm.context, served, Numbers(slots=slots, grace_s=20))


def end(farm, pool: WorkerPool) -> SlotOutcome:
    pool.ask()
    drive(farm, pool, lambda: pool.stopped)
    return pool.finish()


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_all_work_of_all_queues_is_done_and_no_message_waits_in_the_process(farm, slots) -> None:
    held: list[int] = []

    def look(_name: str, limit: int) -> None:
        depths = [served.queue.depth() for served in farm.served]
        held.append(sum(depth.in_flight for depth in depths) + limit)

    pool = pool_of(farm, watched(farm, look), slots)
    submit(farm, 6)
    pool.start()

    drive(farm, pool, lambda: done(farm) == 18)

    assert end(farm, pool) is SlotOutcome.STOPPED
    assert max(held) <= slots, "a receive asked for more than there were free slots"


def test_one_slot_serves_every_queue_in_turn(farm) -> None:
    order: list[str] = []
    farm.with_context(
        on_event=lambda e: order.append(e.profile) if e.kind == "job_started" else None
    )
    pool = pool_of(farm, farm.served, 1)
    submit(farm, 3)
    pool.start()

    drive(farm, pool, lambda: done(farm) == 9)

    end(farm, pool)
    assert all(sorted(order[n : n + 3]) == sorted(NAMES) for n in (0, 3, 6)), order


def test_a_message_is_taken_by_an_idle_slot_at_once(farm) -> None:
    pool = pool_of(farm, farm.served, 3)
    pool.start()
    drive(farm, pool, lambda: farm.clock.waiting >= 6)  # every slot and every receiver waits

    submit(farm, 1, "720p")

    assert drive(farm, pool, lambda: done(farm) == 1) < 5
    end(farm, pool)


@pytest.mark.parametrize(("slots", "a_minute"), [(3, 9), (6, 9), (1, 12)])
def test_idle_receives_a_minute(farm, slots, a_minute) -> None:
    pool = pool_of(farm, watched(farm), slots)
    pool.start()
    drive(farm, pool, lambda: len(farm.receives) >= 6)
    before = len(farm.receives)

    drive(farm, pool, lambda left=[1200]: left.append(left.pop() - 1) or left[0] <= 0)

    minutes = 1200 * 0.25 / 60
    assert (len(farm.receives) - before) / minutes <= a_minute * 1.1
    end(farm, pool)


def test_with_more_slots_than_queues_a_burst_is_received_in_batches(farm) -> None:
    pool = pool_of(farm, watched(farm), 9)
    pool.start()

    def asked_last() -> dict[str, int]:
        with farm.guard:
            return {name: limit for name, limit, _ in farm.receives}

    # A slot that starts late is not in the first round, so wait for one that has them all.
    drive(farm, pool, lambda: sum(asked_last().values()) == 9)

    assert sorted(asked_last()) == sorted(served.queue.name for served in farm.served)
    assert set(asked_last().values()) <= {1, 2, 3, 4, 5}
    end(farm, pool)


def test_a_message_that_a_stopped_poll_brings_goes_back_at_once(farm) -> None:
    served, stop = farm.served[0], threading.Event()
    receivers = Poller(farm.context, [served], stop)
    real = served.queue.receive

    def receive(limit, *, wait_s, stop):
        stop.set()  # the service hands out a message although the worker was told to stop
        return real(limit, wait_s=0, stop=threading.Event())

    served.queue.receive = receive
    submit(farm, 1, served.queue.name)
    receivers.start()
    assert receivers.next_delivery() is None

    for thread in receivers._threads:
        thread.join(10)
    assert receivers.alive == []
    assert (served.queue.depth().ready, served.queue.depth().in_flight) == (1, 0)


def test_a_stop_waits_for_polls_under_way_and_no_longer(farm) -> None:
    pool = pool_of(farm, farm.served, 3)
    pool.start()
    drive(farm, pool, lambda: farm.clock.waiting >= 6)

    pool.ask()

    assert drive(farm, pool, lambda: pool.stopped) <= 20
    assert pool.finish() is SlotOutcome.STOPPED


def test_a_queue_that_fails_is_left_alone_and_the_others_are_served(farm) -> None:
    def fails(name: str, _limit: int) -> None:
        if name == "720p":
            raise Unavailable("no answer")

    pool = pool_of(farm, watched(farm, fails), 1)
    submit(farm, 3)
    pool.start()

    drive(farm, pool, lambda: done(farm) == 6)

    end(farm, pool)
    tried = sum(1 for name, _, _ in farm.receives if name == "720p")
    assert 0 < tried < len(farm.receives) / 2


def test_a_queue_that_vanishes_is_named_once_and_the_others_are_served(farm) -> None:
    gone = {"720p"}

    def vanished(name: str, _limit: int) -> None:
        if name in gone:
            raise ConfigError("AWS could not find the queue")

    pool = pool_of(farm, watched(farm, vanished), 2)
    submit(farm, 3)
    with capture_logs() as logged:
        pool.start()
        drive(farm, pool, lambda: done(farm) == 6)
        began = farm.clock.monotonic()
        drive(farm, pool, lambda: farm.clock.monotonic() > began + 200, step_s=1.0)
        assert not pool.stopped
        gone.clear()
        drive(farm, pool, lambda: done(farm) == 9)
        assert end(farm, pool) is SlotOutcome.STOPPED

    said = [(e["event"], e["profile"]) for e in logged if e["event"].startswith("queue_")]
    assert said == [("queue_gone", "720p"), ("queue_back", "720p")]


def test_a_worker_whose_last_queue_vanishes_ends(farm) -> None:
    gone: set[str] = {"720p"}

    def vanished(name: str, _limit: int) -> None:
        if name in gone:
            raise ConfigError(f"AWS could not find the queue {name}")

    pool = pool_of(farm, watched(farm, vanished), 2)
    submit(farm, 1, "hevc")
    pool.start()
    drive(farm, pool, lambda: done(farm) == 1)

    gone.update(NAMES)
    drive(farm, pool, lambda: pool.stopped)

    assert pool.finish() is SlotOutcome.UNFIT
    assert isinstance(pool.error, ConfigError)


def test_where_no_queue_answers_the_pool_is_seen_to_be_unwell(farm) -> None:
    pool = pool_of(farm, watched(farm, Mock(side_effect=Unavailable("no answer"))), 2)
    pool.start()

    drive(farm, pool, lambda: pool.state().oldest_poll_s > 300, step_s=1.0)

    end(farm, pool)


@pytest.mark.parametrize("admitted", [0, 1])
def test_a_pool_ends_only_where_every_queue_denies_it_from_the_start(farm, admitted) -> None:
    def denied(name: str, _limit: int) -> None:
        if name not in NAMES[:admitted]:
            raise AccessDenied("AWS could not receive: access is denied.")

    pool = pool_of(farm, watched(farm, denied), 2)
    pool.start()
    began = farm.clock.monotonic()

    if admitted:
        drive(farm, pool, lambda: farm.clock.monotonic() > began + 300, step_s=1.0)
        assert pool.error is None
        end(farm, pool)
        return
    drive(farm, pool, lambda: pool.stopped, step_s=1.0)
    assert pool.finish() is SlotOutcome.UNFIT
    assert "access is denied" in str(pool.error)
    assert farm.clock.monotonic() - began <= 240


def test_an_error_that_does_not_pass_takes_the_worker_out(farm) -> None:
    def damaged(name: str, _limit: int) -> None:
        if name == "hevc":
            raise DatabaseDamaged("damaged")

    pool = pool_of(farm, watched(farm, damaged), 2)
    pool.start()

    drive(farm, pool, lambda: pool.stopped)

    assert pool.finish() is SlotOutcome.UNFIT
    assert isinstance(pool.error, DatabaseDamaged)


def test_a_slot_whose_disk_is_full_takes_nothing(farm) -> None:
    farm.with_context(min_free_bytes=1 << 62)
    pool = pool_of(farm, watched(farm), 1)
    farm.context.scratch.total_bytes = lambda: 1 << 63
    submit(farm, 1)
    pool.start()
    for _ in range(40):
        farm.clock.advance(0.5)
        pool.step()

    assert farm.receives == []
    end(farm, pool)


def test_queues_that_are_free_to_look_at_are_served_without_threads(farm) -> None:
    for served in farm.served:
        served.queue.long_poll_s = 0.0

    assert pool_of(farm, farm.served, 2)._receivers is None
    assert pool_of(farm, farm.served[:1], 2)._receivers is None


def test_a_release_that_fails_at_the_stop_is_no_error(farm) -> None:
    served, stop = farm.served[0], threading.Event()
    submit(farm, 1, served.queue.name)
    (delivery,) = served.queue.receive(1, wait_s=0, stop=stop)

    def fails(name: str) -> None:
        if name == "release":
            raise Unavailable("no answer")

    broken = ProfileQueue(served.profile, Faulty(served.queue, before=fails))

    Poller(farm.context, [broken], stop)._release(broken, delivery)
    assert served.queue.depth().in_flight == 1
