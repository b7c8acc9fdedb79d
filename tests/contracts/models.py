"""The models that queues are held against, and what all models have in common."""

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from contracts.backends import MAX_RECEIVES, OPENERS, VISIBILITY_S, task
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import LeaseLost

WHY = Bury(reason="so", failure_class=FailureClass.DAMAGED)
SECONDS = st.sampled_from([1.0, 10.0, 29.0, 61.0, 200.0])
DELAYS = st.sampled_from([0.0, 0.0, 5.0, 90.0])


class Machine(RuleBasedStateMachine):
    """One opened backend of the kind `backend`, on a clock that only the rules move."""

    backend = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.world = OPENERS[self.backend](Path(self._folder.name))
        self.now = 0.0

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.world.advance(seconds)

    def teardown(self) -> None:
        self.world.close()
        self._folder.cleanup()


@dataclass
class Waiting:
    """What the model knows of one message; `receipt` is the delivery that holds it."""

    visible_at: float
    attempts: int = 0
    receipt: object = None


class QueueMachine(Machine):
    """Messages are told apart by their videos: each is sent once."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.queue = self.world.queue
        self.waiting: dict[int, Waiting] = {}
        self.dead: dict[int, FailureClass] = {}
        self.sent = 0

    @rule(delay=DELAYS)
    def send(self, delay: float) -> None:
        self.sent += 1
        self.queue.send([task(self.sent)], delay_s=delay)
        self.waiting[self.sent] = Waiting(self.now + delay)

    @rule(target=held)
    def receive(self) -> tuple[int, object]:
        ready = {n: w for n, w in self.waiting.items() if w.visible_at <= self.now}
        spent = {n for n, w in ready.items() if w.attempts >= MAX_RECEIVES}
        found = self.queue.receive(1, wait_s=0.0, stop=threading.Event())
        buried = {n for n in spent if n in self._letters()}
        for number in buried:
            del self.waiting[number]
            self.dead[number] = FailureClass.RECEIVES
        if not found:
            assert not set(ready) - spent, "something was ready, and nothing came"
            assert buried == spent
            return (0, None)
        (delivery,) = found
        number = _number(delivery.tasks[0])
        assert number in ready
        assert number not in spent
        one = self.waiting[number]
        assert delivery.attempt == one.attempts + 1
        one.attempts, one.receipt = delivery.attempt, delivery
        one.visible_at = self.now + VISIBILITY_S
        return (number, delivery)

    def _mine(self, number: int, delivery: object) -> Waiting | None:
        one = self.waiting.get(number)
        return one if one is not None and one.receipt is delivery else None

    @rule(one=held, seconds=st.sampled_from([1.0, 60.0, 300.0]))
    def extend(self, one: tuple[int, object], seconds: float) -> None:
        number, delivery = one
        if delivery is None:
            return
        mine = self._mine(number, delivery)
        if mine is None:
            with pytest.raises(LeaseLost):
                self.queue.extend(delivery, seconds)
            return
        before = self.world.clock.monotonic()
        assert self.queue.extend(delivery, seconds) == pytest.approx(before + seconds)
        mine.visible_at = self.now + seconds

    @rule(one=held)
    def ack(self, one: tuple[int, object]) -> None:
        number, delivery = one
        if delivery is not None:
            mine = self._mine(number, delivery)
            assert self.queue.ack(delivery) is (mine is not None)
            if mine is not None:
                del self.waiting[number]

    @rule(one=held, delay=DELAYS)
    def release(self, one: tuple[int, object], delay: float) -> None:
        number, delivery = one
        if delivery is not None:
            mine = self._mine(number, delivery)
            assert self.queue.release(delivery, delay_s=delay) is (mine is not None)
            if mine is not None:
                mine.visible_at, mine.receipt = self.now + delay, None

    @rule(one=held)
    def bury(self, one: tuple[int, object]) -> None:
        number, delivery = one
        if delivery is not None:
            mine = self._mine(number, delivery)
            assert self.queue.bury(delivery, WHY) is (mine is not None)
            if mine is not None:
                del self.waiting[number]
                self.dead[number] = WHY.failure_class

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.dead)))
        letter = self._letters()[number]
        assert self.queue.purge(letter)
        assert not self.queue.purge(letter)
        del self.dead[number]

    def _letters(self) -> dict[int, object]:
        found = self.queue.dead_letters()
        return {_number(letter.task): letter for letter in found}

    @invariant()
    def every_message_is_somewhere_and_once(self) -> None:
        depth = self.queue.depth()
        assert depth.ready + depth.in_flight + depth.delayed == len(self.waiting)
        assert depth.dead == len(self.dead)
        assert depth.ready == sum(w.visible_at <= self.now for w in self.waiting.values())
        letters = self._letters()
        assert {n: letter.failure_class for n, letter in letters.items()} == self.dead


def _number(one: object) -> int:
    return int(one.source.key.rsplit("/", 1)[1].split(".")[0])
