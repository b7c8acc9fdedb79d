"""Send dead letters back to their queue, with their failures forgiven and the reason recorded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from hevcq.domain.job import JobState
from hevcq.ports.backend import Backend
from hevcq.ports.queue import DeadLetter
from hevcq.usecases import dead_letters
from hevcq.usecases.dead_letters import Wanted
from hevcq.util.clock import Clock

PARALLEL = 10
"""Letters that go back at the same time: as many as one receive of SQS brings. Each takes four
calls in a row (look, reopen, send, delete), so that one at a time 100,000 would take hours."""


class RedriveResult(StrEnum):
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
    result: RedriveResult


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
    """Send matching dead letters back, oldest first, PARALLEL at a time, or one by one at a rate.

    The same task is sent once: one that fails again at once is not sent round in a circle (seen
    by its body, because clocks of several machines cannot tell which burial was first). A letter
    whose job is done or skipped meanwhile is left where it is. `stop` lets those under way finish.
    Killed at any point, or cut off from the service, a letter is sent or still there, or both: run
    it again. Raises Unavailable or StorageError after what was under way beside it has been told.
    """
    seen: set[bytes] = set()
    at_once = 1 if order.rate > 0 else PARALLEL
    with ThreadPoolExecutor(at_once, thread_name_prefix="redrive") as pool:
        for batch in dead_letters.find_batches(backend.queues, order.wanted):
            for start in range(0, len(batch), at_once):
                if stop.is_set():
                    return
                sent = False
                for each in _together(backend, batch[start : start + at_once], order, pool, seen):
                    sent = sent or each.result is RedriveResult.REDRIVEN
                    yield each
                if sent and order.rate > 0:
                    clock.wait(stop, 1.0 / order.rate)


def _together(
    backend: Backend,
    letters: Sequence[tuple[str, DeadLetter]],
    order: Order,
    pool: ThreadPoolExecutor,
    seen: set[bytes],
) -> Iterator[Redriven]:
    """Yield what became of each; raise the first error only after those that went well."""
    under_way = [
        pool.submit(_one, backend, name, letter, order, first=_is_first(letter, seen))
        for name, letter in letters
    ]
    errors = [error for future in under_way if (error := future.exception()) is not None]
    for (name, letter), future in zip(letters, under_way, strict=True):
        if future.exception() is None:
            yield Redriven(name, letter, future.result())
    if errors:
        raise errors[0]


def _is_first(letter: DeadLetter, seen: set[bytes]) -> bool:
    body = hashlib.blake2b(letter.body.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    first = body not in seen
    seen.add(body)
    return first


def _one(
    backend: Backend, name: str, letter: DeadLetter, order: Order, *, first: bool
) -> RedriveResult:
    if not first:
        return RedriveResult.TWICE
    job_id = letter.task.job_id if letter.task is not None else None
    record = backend.ledger.get(job_id) if job_id is not None else None
    if record is not None and record.state in {JobState.DONE, JobState.SKIPPED}:
        return RedriveResult.DONE_ALREADY
    if order.dry_run:
        return RedriveResult.WOULD_REDRIVE
    if record is not None and record.state is JobState.DEAD:
        # Before the message goes: a worker that received it first would find the job dead,
        # acknowledge it, and the job would be lost.
        backend.ledger.reopen(record.job_id, who=order.who, why=order.why)
    return RedriveResult.REDRIVEN if backend.queues[name].redrive(letter) else RedriveResult.GONE
