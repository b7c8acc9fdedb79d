"""The ports as one simulated process reaches them: late, twice, not at all, or with its last breath."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from chaos.sim.sched import Killed, SimEvent
from hevcq.backends.aws.clients import translate_errors
from hevcq.errors import DatabaseBusy

URL = "http://simulated"


def _answer(code: str, status: int) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": "simulated"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "Simulated")


THROTTLED = tuple(
    _answer(code, status)
    for code, status in (
        ("ThrottlingException", 400),
        ("RequestThrottled", 403),
        ("ProvisionedThroughputExceededException", 400),
        ("SlowDown", 503),
        ("ServiceUnavailable", 503),
    )
)
"""Refusals: nothing was done."""
UNANSWERED = (
    _answer("InternalError", 500),
    _answer("InternalFailure", 500),
    _answer("RequestTimeout", 400),
    ReadTimeoutError(endpoint_url=URL),
    ConnectionClosedError(endpoint_url=URL),
)
"""Nobody knows whether it was done."""
UNREACHABLE = (EndpointConnectionError(endpoint_url=URL),)


def fail(label: str, errors: tuple[Exception, ...], random_: random.Random) -> NoReturn:
    """Raise what the adapters make of one of these errors."""
    with translate_errors(f"do {label}"):
        raise errors[int(random_.random() * len(errors))].with_traceback(None)
    raise AssertionError("every error is turned into one of ours")


REMOTE = (
    "throttled",
    "lost_request",
    "lost_reply",
    "slow_before",
    "slow_after",
    "freeze",
    "kill",
    "kill_after",
)
"""What may happen to one call. `freeze` is a SIGSTOP of the whole process, kills are SIGKILLs."""


class Door:
    """Sends every call through the world's faults; `io` is one call, named `<port>.<verb>`."""

    def __init__(self, machine, port: str) -> None:
        self._machine, self._port = machine, port

    def io(self, label: str, effect: Callable[[], Any]) -> Any:
        machine, world = self._machine, self._machine.world
        if machine.process.dead:
            raise Killed
        world.stats.calls[label] += 1
        sched, random, chaos = world.sched, world.random, world.chaos
        late = chaos.latency_s * random.random()
        if self._port in world.outages:
            sched.sleep(late)
            machine.suffered = True
            sched.note(f"{label} outage")
            fail(label, UNREACHABLE, random)
        if random.random() >= chaos.p_fault or world.healed:
            if random.random() < 0.5:
                sched.block(sched.now + late)
                return self._done(label, effect)
            result = self._done(label, effect)
            sched.block(sched.now + late)
            return result
        kind = chaos.pick(random)
        world.stats.faults[kind] += 1
        sched.note(f"{label} ! {kind}")
        return self._faulty(label, effect, kind)

    def _done(self, label: str, effect: Callable[[], Any]) -> Any:
        sched = self._machine.world.sched
        try:
            result = effect()
        except Exception as error:
            sched.note(f"{label} -> {type(error).__name__}")
            raise
        sched.note(f"{label} -> {type(result).__name__}")
        return result

    def _faulty(self, label: str, effect: Callable[[], Any], kind: str) -> Any:
        machine, world = self._machine, self._machine.world
        sched, random = world.sched, world.random
        hang = world.chaos.hang_s * random.random() * random.random() * 3
        if kind == "kill":
            machine.die(f"before {label}")
        machine.suffered = True
        if kind == "throttled":
            sched.sleep(min(1.0, hang))
            if world.embedded and random.random() < 0.5:
                raise DatabaseBusy(f"{label} met a writer.")
            fail(label, THROTTLED, random)
        if kind in {"lost_request", "lost_reply"}:
            if kind == "lost_reply":
                self._done(label, effect)
            sched.sleep(min(60.0, hang))
            fail(label, UNANSWERED, random)
        if kind == "freeze":
            machine.process.frozen_until = sched.now + hang
            if random.random() < 0.5:
                sched.block(sched.now)
        if kind == "slow_before":
            sched.sleep(hang)
        result = self._done(label, effect)
        if kind == "slow_after":
            sched.sleep(hang)
        if kind == "freeze":
            sched.block(sched.now)
        if kind == "kill_after":
            machine.die(f"after {label}")
        return result


class LedgerDoor(Door):
    """The ledger; every effect is checked as it happens."""

    def __init__(self, machine, ledger) -> None:
        super().__init__(machine, "ledger")
        self._ledger = ledger
        self.progress_every_s = ledger.progress_every_s

    def __getattr__(self, name: str) -> Callable[..., Any]:
        machine, ledger, inner = self._machine, self._ledger, getattr(self._ledger, name)
        reads, moved = name in {"get", "recall", "remember"}, machine.world.checks.moved
        label = f"ledger.{name}"

        def call(*args: Any, **named: Any) -> Any:
            if reads:
                return self.io(label, partial(inner, *args, **named))
            return self.io(label, partial(moved, machine, ledger, name, inner, args, named))

        self.__dict__[name] = call
        return call


class QueueDoor(Door):
    """One profile's queue; `bell` rings for all machines of the world."""

    asked = None

    def __init__(self, machine, queue, bell: SimEvent) -> None:
        super().__init__(machine, "queue")
        self._queue, self._bell = queue, bell
        self.name, self.long_poll_s = queue.name, 0.0

    def send(self, tasks, *, delay_s: float = 0.0) -> None:
        world = self._machine.world

        def carried() -> None:
            world.checks.sent(tasks)
            self._queue.send(tasks, delay_s=delay_s)
            world.ring(self.name)

        self.io("queue.send", carried)

    def receive(self, limit: int, *, wait_s: float, stop: Any) -> list[Any]:
        world = self._machine.world
        end = world.sched.now + wait_s
        while True:
            found = self.io("queue.receive", lambda: self._take(limit, stop))
            if found:
                for delivery in found:
                    world.checks.received(self._machine, delivery)
                return found
            if not self._something(end, stop):
                return []

    def _something(self, end: float, stop: Any) -> bool:
        """Wait as a long poll does; False if it ends with nothing to ask for."""
        sched = self._machine.world.sched
        while True:
            if stop.is_set() or sched.now >= end:
                return False
            due = self._machine.world.side.next_due(self._queue)
            sched.block(min(end, max(due, sched.now + 0.01)), self._bell, stop)
            if self._machine.world.side.next_due(self._queue) <= sched.now:
                return True

    def _take(self, limit: int, stop: Any) -> list[Any]:
        self._machine.world.mix(self._queue)
        return self._queue.receive(limit, wait_s=0.0, stop=stop)

    def listen(self, wake: Callable[[], None]) -> None:
        self._machine.world.listen(self._machine, self.name, wake)

    def wake(self) -> None:
        self._bell.ring()

    def extend(self, delivery, seconds: float) -> float:
        checks = self._machine.world.checks
        checks.extend_called(self._machine, delivery)
        return self.io("queue.extend", lambda: self._queue.extend(delivery, seconds))

    def ack(self, delivery) -> bool:
        return self._settle("ack", delivery, lambda: self._queue.ack(delivery))

    def release(self, delivery, *, delay_s: float = 0.0) -> bool:
        return self._settle(
            "release", delivery, lambda: self._queue.release(delivery, delay_s=delay_s)
        )

    def bury(self, delivery, why) -> bool:
        return self._settle("bury", delivery, lambda: self._queue.bury(delivery, why))

    def _settle(self, verb: str, delivery, effect: Callable[[], bool]) -> bool:
        world = self._machine.world
        world.checks.settle_called(self._machine, verb, delivery)

        def carried() -> bool:
            done = effect()
            if done:
                world.checks.settled(self._queue, verb, delivery)
                world.ring(self.name)
            return done

        return self.io(f"queue.{verb}", carried)


class StoreDoor(Door):
    """The store; publications are checked when they are asked for and when they happen."""

    def __init__(self, machine, store) -> None:
        super().__init__(machine, "store")
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        inner, label = getattr(self._store, name), f"store.{name}"
        return lambda *args, **named: self.io(label, partial(inner, *args, **named))

    @contextmanager
    def fetch(self, source, scratch, *, moved, stop) -> Iterator[Any]:
        inner = self._store.fetch(source, scratch, moved=moved, stop=stop)
        try:
            yield self.io("store.fetch", inner.__enter__)
        finally:
            if not self._machine.process.dead:
                self._machine.files.pop(f"{scratch}/source", None)

    def publish(self, publication):
        checks = self._machine.world.checks
        checks.publish_called(self._machine, publication)

        def carried():
            seen = self._store.publish(publication)
            checks.published(publication, seen)
            return seen

        return self.io("store.publish", carried)

    def free_bytes(self) -> int | None:
        return None
