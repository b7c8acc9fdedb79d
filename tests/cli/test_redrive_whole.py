"""Redriving a whole queue: by the service's own move where it has one, one by one where not."""

from __future__ import annotations

import threading

import pytest

from cli.redriving import WHY, bury
from hevcq.domain.verdict import FailureClass
from hevcq.errors import Unavailable
from hevcq.ports.backend import Backend
from hevcq.ports.queue import Moving, Selection
from hevcq.usecases.dead_letters import Wanted
from hevcq.usecases.redrive import Moved, Order, Redriven, Result, redrive_whole
from support import ManualClock


class Mover:
    """A queue whose service moves letters by itself, as the steps say."""

    def __init__(self, queue, *steps: Moving, started: bool = True) -> None:
        self.queue, self.steps, self.started = queue, list(steps), started
        self.rates: list[float] = []

    def __getattr__(self, name: str):
        return getattr(self.queue, name)

    def hand_back(self, *, rate: float = 0.0) -> bool:
        self.rates.append(rate)
        return self.started

    def moving(self) -> Moving | None:
        return self.steps.pop(0) if self.steps else None


def whole(backend: Backend, clock: ManualClock, **changes: object) -> list[Moved | Redriven]:
    wanted = Order(Wanted(("hevc",)), who="me", **changes)
    assert wanted.whole
    return list(redrive_whole(backend, wanted, clock=clock, stop=threading.Event()))


def test_a_whole_queue_goes_back_by_the_services_own_move_and_is_watched(
    backend: Backend, clock: ManualClock
):
    steps = [Moving(1, 2, going_on=True), Moving(3, 0, going_on=False)]
    bury(backend, "TODO/a.mp4")
    clock.advance(1)
    mover = Mover(backend.queues["hevc"], *steps)
    backend.queues["hevc"] = mover  # type: ignore[index]
    start = clock.monotonic()

    found = whole(backend, clock, rate=20)

    assert found[:2] == [Moved("hevc", step) for step in steps]
    assert [each.result for each in found[2:]] == [Result.REDRIVEN], "what it could not move"
    assert (mover.rates, clock.monotonic() - start) == ([20], pytest.approx(2.0 + 0.05))


def test_what_fails_again_while_the_service_moves_is_not_sent_round(
    backend: Backend, clock: ManualClock
):
    bury(backend, "TODO/a.mp4")
    queue = backend.queues["hevc"]
    mover = Mover(queue, Moving(1, 0, going_on=False))

    def move(*, rate: float) -> bool:
        (letter,) = queue.dead_letters(Selection())
        queue.redrive(letter)
        clock.advance(1)
        (again,) = queue.receive(1, wait_s=0, stop=threading.Event())
        return queue.bury(again, WHY)

    mover.hand_back = move
    backend.queues["hevc"] = mover  # type: ignore[index]

    assert [type(each) for each in whole(backend, clock)] == [Moved]
    assert queue.depth().dead == 1


def test_a_move_that_the_service_gives_up_is_an_error_with_its_reason(
    backend: Backend, clock: ManualClock
):
    bury(backend, "TODO/a.mp4")
    mover = Mover(backend.queues["hevc"], Moving(0, 1, going_on=False, failure="AccessDenied"))
    backend.queues["hevc"] = mover  # type: ignore[index]

    with pytest.raises(Unavailable, match="AccessDenied"):
        whole(backend, clock)


def test_a_service_without_moves_goes_back_one_by_one_and_an_empty_queue_is_left_alone(
    backend: Backend, clock: ManualClock
):
    mover = Mover(backend.queues["hevc"], started=False)
    backend.queues["hevc"] = mover  # type: ignore[index]
    assert whole(backend, clock) == []
    assert mover.rates == []
    bury(backend, "TODO/a.mp4")

    assert [each.result for each in whole(backend, clock)] == [Result.REDRIVEN]


@pytest.mark.parametrize(
    "narrow",
    [
        Order(Wanted(limit=1), who="me"),
        Order(Wanted(job="a"), who="me"),
        Order(Wanted(failure_class=FailureClass.DISK), who="me"),
        Order(Wanted(buried_before=1.0), who="me"),
        Order(Wanted(), who="me", dry_run=True),
    ],
)
def test_an_order_with_a_filter_is_never_left_to_the_service(narrow: Order):
    assert not narrow.whole
