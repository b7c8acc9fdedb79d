"""Send dead letters back to their queue, with their failures forgiven and the reason recorded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from hevcq.clock import Clock
from hevcq.domain.job import JobState
from hevcq.ports.backend import Backend
from hevcq.ports.queue import DeadLetter
from hevcq.usecases import dead_letters
from hevcq.usecases.dead_letters import Wanted


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
class Order:
    """How to redrive. `rate` is letters per second at most; 0 means no limit."""

    wanted: Wanted
    who: str
    why: str = "redrive"
    dry_run: bool = False
    rate: float = 0.0


def redrive(
    backend: Backend, order: Order, *, clock: Clock, stop: threading.Event
) -> Iterator[Redriven]:
    """Send matching dead letters back, oldest first; stops between two letters when `stop` is set.

    The same task is sent once: one that fails again at once is not sent round in a circle (seen
    by its body, because clocks of several machines cannot tell which burial was first). A letter
    whose job is done or skipped meanwhile is left where it is.
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
