"""What every queue promises to consumers that wait and that compete (ports/queue.py)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.backends import SIGNALS, VISIBILITY_S, World, task
from contracts.messages import DAMAGED, one, take
from hevcq.ports.queue import Delivery


def names(found: list[Delivery]) -> list[str]:
    return [delivery.tasks[0].source.key for delivery in found]


def test_depth_counts_what_is_where(world: World) -> None:
    world.queue.send([task(number) for number in range(5)])
    world.queue.send([task("late")], delay_s=500)
    held = take(world, 2)
    world.queue.bury(held[0], DAMAGED)

    depth = world.queue.depth()

    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (3, 1, 1, 1)
    world.advance(VISIBILITY_S + 1)
    assert world.queue.depth().ready == 4


def test_two_consumers_never_hold_one_delivery(world: World) -> None:
    tasks = [task(number) for number in range(150)]
    for start in range(0, len(tasks), 10):
        world.queue.send(tasks[start : start + 10])
    barrier = threading.Barrier(2)

    def consume() -> list[str]:
        mine: list[str] = []
        barrier.wait()
        while found := take(world, 3):
            for delivery in found:
                assert world.queue.ack(delivery) is True
                mine.append(delivery.tasks[0].job_id)
        return mine

    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(consume) for _ in range(2)])

    assert sorted(first + second) == sorted(t.job_id for t in tasks)


def test_only_one_of_two_that_settle_at_once_does(world: World) -> None:
    for number in range(20):
        world.queue.send([task(number)])
        delivery, barrier = one(world), threading.Barrier(3)

        def settle(verb: str, delivery: Delivery = delivery, barrier=barrier) -> bool:
            barrier.wait()
            if verb == "bury":
                return world.queue.bury(delivery, DAMAGED)
            return getattr(world.queue, verb)(delivery)

        with ThreadPoolExecutor(3) as pool:
            won = [pool.submit(settle, verb) for verb in ("ack", "bury", "ack")]
            assert [future.result() for future in won].count(True) == 1
    assert take(world) == []


def test_a_waiting_consumer_hears_a_send_at_once(world: World) -> None:
    world.needs(SIGNALS)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.queue.receive, 1, wait_s=20, stop=threading.Event())
        world.clock.until_waiting()

        world.queue.send([task()])

        assert names(waiting.result(timeout=10)) == [task().source.key]


@pytest.mark.parametrize("how", ["delay", "deadline"])
def test_a_waiting_consumer_gets_a_task_when_it_becomes_visible(world: World, how: str) -> None:
    world.needs(SIGNALS)
    world.queue.send([task()], delay_s=VISIBILITY_S if how == "delay" else 0)
    if how == "deadline":
        one(world)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.queue.receive, 1, wait_s=500, stop=threading.Event())
        world.clock.until_waiting()

        world.advance(VISIBILITY_S + 1)

        assert names(waiting.result(timeout=10)) == [task().source.key]


def test_a_listener_hears_a_send_and_a_release_of_its_process(world: World) -> None:
    world.needs(SIGNALS)
    heard: list[str] = []
    world.queue.listen(lambda: heard.append("rung"))

    world.queue.send([task()])
    after_send = len(heard)
    world.queue.release(one(world))

    assert after_send >= 1
    assert len(heard) > after_send


def test_waiting_ends_with_nothing_when_the_time_is_over(world: World) -> None:
    world.needs(SIGNALS)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.queue.receive, 1, wait_s=20, stop=threading.Event())
        world.clock.until_waiting()

        world.advance(21)

        assert waiting.result(timeout=10) == []


def test_a_stop_ends_the_waiting_early(world: World) -> None:
    world.needs(SIGNALS)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.queue.receive, 1, wait_s=500, stop=stop)
        world.clock.until_waiting()

        stop.set()
        world.advance(1)

        assert waiting.result(timeout=10) == []
