"""List, delete and redrive dead letters."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum

from hevcq.domain.job import JobState
from hevcq.domain.verdict import FailureClass
from hevcq.ports.backend import Backend
from hevcq.ports.queue import DeadLetter, Queue, Selection
from hevcq.util.clock import Clock

__all__ = ["DeadLetter", "DeadLetterFilter", "find", "purge"]

MAX_REDRIVEN = 10_000
"""Dead letters that one press of a button, or one request to the API, sends back at most."""
ID_DIGITS = 32
"""Digits of a full job id; fewer are a prefix."""


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters of which profiles; every given condition must hold.

    `job` and `letter` may be the beginning of an id; `buried_before` is wall seconds.
    `limit` is the largest number of letters; None for all.
    """

    profiles: Sequence[str] = ()
    failure_class: FailureClass | None = None
    job: str | None = None
    letter: str | None = None
    limit: int | None = None
    buried_before: float | None = None


def find(queues: Mapping[str, Queue], wanted: DeadLetterFilter) -> Iterator[tuple[str, DeadLetter]]:
    """Yield (profile, dead letter), profile by profile, oldest first, without loading them all."""
    return itertools.chain.from_iterable(find_batches(queues, wanted))


def find_batches(
    queues: Mapping[str, Queue], wanted: DeadLetterFilter
) -> Iterator[list[tuple[str, DeadLetter]]]:
    """Yield the same in batches, each before the next is received."""
    whole = wanted.job if wanted.job and len(wanted.job) == ID_DIGITS else None
    selection = Selection(
        failure_class=wanted.failure_class, job_id=whole, buried_before=wanted.buried_before
    )
    if not wanted.job and not wanted.letter:
        selection = replace(selection, limit=wanted.limit)
    names = list(wanted.profiles) or sorted(queues)
    left = wanted.limit
    for name in names:
        for batch in queues[name].dead_letter_batches(selection):
            found = [(name, letter) for letter in batch if _matches(letter, wanted)][:left]
            left = None if left is None else left - len(found)
            if found:
                yield found
            if left is not None and left <= 0:
                return


def purge(
    queues: Mapping[str, Queue], wanted: DeadLetterFilter
) -> Iterator[tuple[str, DeadLetter, bool]]:
    """Delete dead letters permanently; yield each with whether it was still there.

    The ledger keeps the job as dead, with its reason.
    """
    for name, letter in find(queues, wanted):
        yield name, letter, queues[name].purge(letter)


def _matches(letter: DeadLetter, wanted: DeadLetterFilter) -> bool:
    if wanted.letter and not letter.letter_id.startswith(wanted.letter):
        return False
    if not wanted.job:
        return True
    return letter.task is not None and letter.task.job_id.startswith(wanted.job)


PARALLEL = 10
"""Letters redriven in parallel: as many as one SQS receive returns. Each takes four calls in a row
(get, reopen, send, delete), so 100,000 one by one would take hours."""


class RedriveResult(StrEnum):
    """The result for one dead letter; values are stable."""

    REDRIVEN = "redriven"
    WOULD_REDRIVE = "would_redrive"
    DONE_ALREADY = "done_already"
    TWICE = "twice"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Redriven:
    """One dead letter and the result."""

    profile: str
    letter: DeadLetter
    result: RedriveResult


@dataclass(frozen=True, slots=True)
class RedriveRequest:
    """What to redrive. `rate` is the maximum of letters per second; 0 means no limit."""

    wanted: DeadLetterFilter
    who: str
    why: str = "redrive"
    dry_run: bool = False
    rate: float = 0.0


def redrive(
    backend: Backend, request: RedriveRequest, *, clock: Clock, stop: threading.Event
) -> Iterator[Redriven]:
    """Send matching dead letters back, oldest first: PARALLEL at a time, or one by one with a rate.

    Each task is sent once, so one that fails again at once does not loop (compared by body: clocks of
    several machines cannot order burials). Letters of jobs done or skipped meanwhile are left. `stop`
    lets those in progress finish. After a kill or an outage a letter is sent, still there, or both:
    run it again. Raises Unavailable or StorageError after the others in progress were yielded.
    """
    seen: set[bytes] = set()
    at_once = 1 if request.rate > 0 else PARALLEL
    with ThreadPoolExecutor(at_once, thread_name_prefix="redrive") as pool:
        for batch in find_batches(backend.queues, request.wanted):
            for start in range(0, len(batch), at_once):
                if stop.is_set():
                    return
                sent = False
                for each in _together(backend, batch[start : start + at_once], request, pool, seen):
                    sent = sent or each.result is RedriveResult.REDRIVEN
                    yield each
                if sent and request.rate > 0:
                    clock.wait(stop, 1.0 / request.rate)


def _together(
    backend: Backend,
    letters: Sequence[tuple[str, DeadLetter]],
    request: RedriveRequest,
    pool: ThreadPoolExecutor,
    seen: set[bytes],
) -> Iterator[Redriven]:
    """Yield each result; raise the first error after those that succeeded."""
    under_way = [
        pool.submit(_one, backend, name, letter, request, first=_is_first(letter, seen))
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
    backend: Backend, name: str, letter: DeadLetter, request: RedriveRequest, *, first: bool
) -> RedriveResult:
    if not first:
        return RedriveResult.TWICE
    job_id = letter.task.job_id if letter.task is not None else None
    record = backend.ledger.get(job_id) if job_id is not None else None
    if record is not None and record.state in {JobState.DONE, JobState.SKIPPED}:
        return RedriveResult.DONE_ALREADY
    if request.dry_run:
        return RedriveResult.WOULD_REDRIVE
    if record is not None and record.state is JobState.DEAD:
        # Before the message goes: a worker that received it first would find the job dead,
        # acknowledge it, and the job would be lost.
        backend.ledger.reopen(record.job_id, who=request.who, why=request.why)
    return RedriveResult.REDRIVEN if backend.queues[name].redrive(letter) else RedriveResult.GONE
