"""What every queue promises (ports/queue.py), over every backend."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.backends import LATE, MAX_RECEIVES, SIGNALS, VISIBILITY_S, World, task
from hevcq.domain.job import TaskKind
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import LeaseLost
from hevcq.ports.queue import DeadLetter, Delivery

DAMAGED = Bury(reason="it is damaged", failure_class=FailureClass.DAMAGED, tail=("line 1", "é 2"))


def take(world: World, limit: int = 10, *, queue: str = "hevc") -> list[Delivery]:
    return world.backend.queues[queue].receive(limit, wait_s=0, stop=threading.Event())


def one(world: World) -> Delivery:
    (delivery,) = take(world)
    return delivery


def letters(world: World) -> list[DeadLetter]:
    return list(world.queue.dead_letters())


def names(found: list[Delivery]) -> list[str]:
    return [delivery.tasks[0].source.key for delivery in found]


def test_a_task_arrives_as_it_was_sent_to_its_own_queue_only(world):
    world.queue.send([task("a b")])

    delivery = one(world)

    assert delivery.tasks == (task("a b"),)
    assert (delivery.queue, delivery.attempt, delivery.problem) == ("hevc", 1, "")
    assert take(world, queue="720p") == []


def test_many_tasks_arrive_once_each_within_the_limit_asked_for(world):
    world.queue.send([task(number) for number in range(25)])
    found: list[Delivery] = []

    while batch := take(world, 4):
        assert len(batch) <= 4
        found += batch

    assert sorted(names(found)) == sorted(task(n).source.key for n in range(25))


def test_a_received_task_is_hidden_until_its_deadline_and_back_after_it(world):
    world.queue.send([task()])
    first = one(world)
    assert first.deadline == pytest.approx(world.clock.monotonic() + VISIBILITY_S, abs=2)

    world.advance(VISIBILITY_S - 2)
    assert take(world) == []
    world.advance(3)
    second = one(world)

    assert (first.attempt, second.attempt) == (1, 2)
    assert second.receipt != first.receipt


def test_an_extended_lease_hides_the_task_longer(world):
    world.queue.send([task()])
    delivery = one(world)
    world.advance(VISIBILITY_S - 5)

    deadline = world.queue.extend(delivery, 100)

    assert deadline == pytest.approx(world.clock.monotonic() + 100, abs=2)
    world.advance(95)
    assert take(world) == []
    world.advance(6)
    assert one(world).attempt == 2


def test_a_stale_receipt_neither_extends_nor_settles(world):
    world.queue.send([task()])
    stale = one(world)
    world.advance(VISIBILITY_S + 1)
    live = one(world)

    with pytest.raises(LeaseLost):
        world.queue.extend(stale, 60)
    assert world.queue.ack(stale) is False
    assert world.queue.release(stale) is False
    assert world.queue.bury(stale, DAMAGED) is False

    assert letters(world) == []
    assert world.queue.ack(live) is True


def test_a_late_receipt_that_nobody_took_over_still_settles(world):
    world.needs(LATE)
    world.queue.send([task()])
    late = one(world)

    world.advance(VISIBILITY_S + 1)

    assert world.queue.ack(late) is True
    assert take(world) == []


def test_an_acknowledged_task_never_comes_back_and_acknowledging_twice_is_harmless(world):
    world.queue.send([task()])
    delivery = one(world)

    assert [world.queue.ack(delivery), world.queue.ack(delivery)] == [True, False]

    world.advance(VISIBILITY_S * 2)
    assert take(world) == []
    with pytest.raises(LeaseLost):
        world.queue.extend(delivery, 60)


def test_a_released_task_is_back_at_once_with_the_next_attempt(world):
    world.queue.send([task()])
    first = one(world)

    assert world.queue.release(first) is True
    second = one(world)

    assert second.attempt == 2
    assert world.queue.release(first) is False
    assert world.queue.ack(first) is False


def test_a_release_with_a_delay_is_not_early(world):
    world.queue.send([task()])
    world.queue.release(one(world), delay_s=30)

    world.advance(28)
    assert take(world) == []
    world.advance(3)
    assert one(world).attempt == 2


def test_a_delayed_send_is_not_early(world):
    world.queue.send([task()], delay_s=30)

    world.advance(28)
    assert take(world) == []
    world.advance(3)
    assert one(world).attempt == 1


def test_a_buried_task_is_a_dead_letter_with_its_reason_class_attempts_and_tail(world):
    world.queue.send([task()])
    world.queue.release(one(world))
    delivery = one(world)

    assert world.queue.bury(delivery, DAMAGED) is True

    (letter,) = letters(world)
    assert (letter.queue, letter.reason, letter.failure_class) == (
        "hevc",
        "it is damaged",
        FailureClass.DAMAGED,
    )
    assert (letter.attempts, letter.tail, letter.task) == (2, ("line 1", "é 2"), task())
    assert letter.buried_at == pytest.approx(world.clock.now(), abs=5)
    assert world.queue.bury(delivery, DAMAGED) is False
    assert world.queue.ack(delivery) is False
    world.advance(VISIBILITY_S + 1)
    assert take(world) == []
    assert len(letters(world)) == 1


def test_a_task_received_too_often_becomes_a_dead_letter_instead(world):
    world.queue.send([task(1)])
    for attempt in range(1, MAX_RECEIVES + 1):
        assert one(world).attempt == attempt
        world.advance(VISIBILITY_S + 1)

    assert take(world) == []

    (letter,) = letters(world)
    assert (letter.failure_class, letter.attempts) == (FailureClass.RECEIVES, MAX_RECEIVES)
    assert letter.task == task(1)


def test_an_exhausted_task_does_not_hide_those_behind_it(world):
    world.queue.send([task(1)])
    for _ in range(MAX_RECEIVES):
        one(world)
        world.advance(VISIBILITY_S + 1)
    world.queue.send([task(2)])

    found = take(world, 1) or take(world, 1)

    assert names(found) == [task(2).source.key]


def test_an_unreadable_body_arrives_with_its_problem_and_can_be_buried(world):
    world.put_body("hevc", '{"not": "a task"}')

    delivery = one(world)

    assert (delivery.tasks, delivery.body) == ((), '{"not": "a task"}')
    assert delivery.problem
    why = Bury(reason=delivery.problem, failure_class=FailureClass.MESSAGE)
    assert world.queue.bury(delivery, why) is True
    (letter,) = letters(world)
    assert (letter.task, letter.body) == (None, '{"not": "a task"}')


def test_a_task_for_another_profile_is_ignored_with_a_word(world):
    world.put_body("hevc", task(1, profile="720p").body())

    delivery = one(world)

    assert (delivery.tasks, delivery.problem) == ((), "")
    assert delivery.ignored


def test_a_purged_letter_is_gone_for_good(world):
    world.queue.send([task()])
    world.queue.bury(one(world), DAMAGED)
    (letter,) = letters(world)
    assert world.backend.queues["720p"].purge(letter) is False, "it is of another queue"

    assert [world.queue.purge(letter), world.queue.purge(letter)] == [True, False]

    assert letters(world) == []
    assert take(world) == []


def test_dead_letters_come_oldest_first_and_those_of_a_job_alone(world):
    for number in range(3):
        world.queue.send([task(number)])
        world.queue.bury(one(world), DAMAGED)
        world.advance(10)

    assert [letter.task for letter in letters(world)] == [task(0), task(1), task(2)]
    assert [x.task for x in world.queue.dead_letters(task(2).job_id)] == [task(2)]


def test_letters_may_be_purged_while_they_are_listed(world):
    world.queue.send([task(number) for number in range(12)])
    while found := take(world):
        for delivery in found:
            world.queue.bury(delivery, DAMAGED)

    gone = [world.queue.purge(x) for x in world.queue.dead_letters()]

    assert gone == [True] * 12
    assert letters(world) == []


def test_depth_counts_what_is_where(world):
    world.queue.send([task(number) for number in range(5)])
    world.queue.send([task("late")], delay_s=500)
    held = take(world, 2)
    world.queue.bury(held[0], DAMAGED)

    depth = world.queue.depth()

    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (3, 1, 1, 1)
    world.advance(VISIBILITY_S + 1)
    assert world.queue.depth().ready == 4


def test_two_consumers_never_hold_one_delivery(world):
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


def test_only_one_of_two_that_settle_at_once_does(world):
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


def test_a_waiting_consumer_hears_a_send_at_once(world):
    world.needs(SIGNALS)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.queue.receive, 1, wait_s=20, stop=threading.Event())
        world.clock.until_waiting()

        world.queue.send([task()])

        assert names(waiting.result(timeout=10)) == [task().source.key]


@pytest.mark.parametrize("how", ["delay", "deadline"])
def test_a_waiting_consumer_gets_a_task_when_it_becomes_visible(world, how):
    world.needs(SIGNALS)
    world.queue.send([task()], delay_s=VISIBILITY_S if how == "delay" else 0)
    if how == "deadline":
        one(world)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.queue.receive, 1, wait_s=500, stop=threading.Event())
        world.clock.until_waiting()

        world.advance(VISIBILITY_S + 1)

        assert names(waiting.result(timeout=10)) == [task().source.key]


def test_a_listener_hears_a_send_and_a_release_of_its_process(world):
    world.needs(SIGNALS)
    heard: list[str] = []
    world.queue.listen(lambda: heard.append("rung"))

    world.queue.send([task()])
    after_send = len(heard)
    world.queue.release(one(world))

    assert after_send >= 1
    assert len(heard) > after_send


def test_a_stop_ends_the_waiting_early(world):
    world.needs(SIGNALS)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.queue.receive, 1, wait_s=500, stop=stop)
        world.clock.until_waiting()

        stop.set()
        world.advance(1)

        assert waiting.result(timeout=10) == []


def test_a_waiting_task_moves_first_or_last_where_the_queue_has_an_order(world):
    world.queue.send([task(number) for number in range(4)])
    if not world.queue.ordered:
        assert not world.queue.move([task(2)], "first")
        assert not world.queue.waiting()
        return

    assert world.queue.move([task(2)], "first") == {task(2).job_id}
    assert world.queue.move([task(3)], "first"), "whoever came last goes before the first"
    assert world.queue.move([task(0)], "last")
    world.queue.send([task(9)])
    assert not world.queue.move([task(8)], "first"), "it does not wait"
    assert list(world.queue.waiting())[:3] == [task(number).job_id for number in (3, 2, 1)]

    moved = names(take(world, 3))
    assert moved == [task(number).source.key for number in (3, 2, 1)]
    assert not world.queue.move([task(3)], "last"), "somebody holds it"
    assert set(names(take(world, 3))) == {task(0).source.key, task(9).source.key}


def test_a_task_moves_whatever_a_command_chose_for_it(world):
    chosen = task(1).model_copy(update={"asked": (30.0, None)})
    world.queue.send([task(0), chosen])
    if world.queue.ordered:
        assert world.queue.move([task(1)], "first") == {task(1).job_id}
        (first, _) = take(world, 2)
        assert first.tasks == (chosen,)


@pytest.mark.parametrize("where", ["first", "higher"])
def test_the_parts_of_a_video_keep_its_place(world, where):
    queue = world.queue
    if not queue.ordered:
        return
    queue.send([task(number) for number in range(3)])
    queue.move([task(1), task(2)], "higher")
    queue.move([task(2)], where)
    queue.move([task(0)], "lower")
    (split,) = take(world, 1)
    part = {"split": "s", "group": "its"}
    chunks = [
        task(2).model_copy(update={**part, "kind": TaskKind.CHUNK, "chunk": n}) for n in (0, 1)
    ]
    queue.send([task(9), *chunks])
    queue.ack(split)
    (last,) = [take(world, 1) for _ in range(2)][1]
    queue.send([task(2).model_copy(update={**part, "kind": TaskKind.JOIN})])
    (join,) = take(world, 1)

    assert split.tasks == (task(2),)
    assert last.tasks == (chunks[1],)
    assert join.tasks[0].kind is TaskKind.JOIN
    assert names(take(world, 3)) == [task(number).source.key for number in (1, 9, 0)]


def test_a_priority_holds_against_tasks_of_its_own_queue_that_came_later(world):
    if not world.queue.ordered:
        return
    queue = world.queue
    queue.send([task(number) for number in range(6)])
    low = [task(0), task(1)]
    assert queue.move(low, "lower") == {each.job_id for each in low}
    assert queue.move([task(4), task(3), task(4)], "higher") == {task(3).job_id, task(4).job_id}
    assert queue.move([task(5)], "higher")
    queue.move([task(5)], "higher")
    queue.send([task(6)])
    queue.move([task(1)], "higher")

    order = [task(number).source.key for number in (5, 3, 4)]
    assert names(take(world, 3)) == order
    assert set(names(take(world, 3))) == {task(number).source.key for number in (1, 2, 6)}
    queue.send([task(7)])
    assert names(take(world, 2)) == [task(7).source.key, task(0).source.key]
