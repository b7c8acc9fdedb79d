"""Send dead letters back to their queue, with their failures forgiven and the reason recorded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from hevcq.domain.job import JobState
from hevcq.errors import Unavailable
from hevcq.ports.backend import Backend
from hevcq.ports.queue import DeadLetter, Moving
from hevcq.usecases import dead_letters
from hevcq.usecases.dead_letters import Wanted
from hevcq.util.clock import Clock

LOOK_S = 2.0
"""How often a move that the service carries out is looked at."""


class Result(StrEnum):
    """What became of one dead letter."""

    REDRIVEN = "redriven"
    WOULD_REDRIVE = "would_redrive"
    DONE_ALREADY = "done_already"
    TWICE = "twice"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Redriven:
    """One dead letter and what became of it."""

    profile: str
    letter: DeadLetter
    result: Result


@dataclass(frozen=True, slots=True)
class Moved:
    """How far the service itself is with one profile's dead letters."""

    profile: str
    moving: Moving


@dataclass(frozen=True, slots=True)
class Order:
    """How to redrive. `rate` is letters per second at most; 0 means no limit."""

    wanted: Wanted
    who: str
    why: str = "redrive"
    dry_run: bool = False
    rate: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether every dead letter of the profiles is meant, so that the service may move them."""
        return not self.dry_run and self.wanted == Wanted(self.wanted.profiles)


def redrive(
    backend: Backend, order: Order, *, clock: Clock, stop: threading.Event
) -> Iterator[Redriven]:
    """Send matching dead letters back, oldest first; stops between two letters when `stop` is set.

    The same task is sent once: one that fails again at once is not sent round in a circle (seen
    by its body, because clocks of several machines cannot tell which burial was first). A letter
    whose job is done or skipped meanwhile is left where it is. Killed at any point, or cut off
    from the service, a letter is sent or still there, or both: run it again.
    """
    seen: set[bytes] = set()
    for name, letter in dead_letters.find(backend.queues, order.wanted):
        if stop.is_set():
            return
        body = hashlib.blake2b(letter.body.encode("utf-8", "surrogatepass"), digest_size=16)
        twice = body.digest() in seen
        seen.add(body.digest())
        result = Result.TWICE if twice else _one(backend, name, letter, order)
        yield Redriven(name, letter, result)
        if order.rate > 0 and result is Result.REDRIVEN:
            clock.wait(stop, 1.0 / order.rate)


def redrive_whole(
    backend: Backend, order: Order, *, clock: Clock, stop: threading.Event
) -> Iterator[Redriven | Moved]:
    """Send everything back: by the service's own move where it has one, the rest one by one.

    What fails again meanwhile is buried after the start, and stays. The worker that receives a
    moved letter reopens its job. `stop` ends the waiting; a move goes on by itself. Raises
    Unavailable if the service gave a move up.
    """
    started = clock.now()
    for name in list(order.wanted.profiles) or sorted(backend.queues):
        if stop.is_set():
            return
        wanted = Wanted((name,))
        queue = backend.queues[name]
        if queue.depth().dead and queue.hand_back(rate=order.rate):
            yield from _watched(backend, name, clock, stop)
            wanted = replace(wanted, buried_before=started)
        yield from redrive(backend, replace(order, wanted=wanted), clock=clock, stop=stop)


def _watched(
    backend: Backend, name: str, clock: Clock, stop: threading.Event
) -> Iterator[Redriven | Moved]:
    while (moving := backend.queues[name].moving()) is not None:
        yield Moved(name, moving)
        if moving.failure:
            raise Unavailable(
                f"The service gave the move of the dead letters of {name} up: {moving.failure}.",
                remedy="What it had not moved is still there; run it again.",
            )
        if not moving.going_on or clock.wait(stop, LOOK_S):
            return


def _one(backend: Backend, name: str, letter: DeadLetter, order: Order) -> Result:
    job_id = letter.task.job_id if letter.task is not None else None
    record = backend.ledger.get(job_id) if job_id is not None else None
    if record is not None and record.state in {JobState.DONE, JobState.SKIPPED}:
        return Result.DONE_ALREADY
    if order.dry_run:
        return Result.WOULD_REDRIVE
    if record is not None and record.state is JobState.DEAD:
        # Before the message goes: a worker that received it first would find the job dead,
        # acknowledge it, and the job would be lost.
        backend.ledger.reopen(record.job_id, who=order.who, why=order.why)
    return Result.REDRIVEN if backend.queues[name].redrive(letter) else Result.GONE
