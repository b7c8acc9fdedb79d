"""Look at dead letters, and delete those a person has given up on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hevcq.domain.verdict import FailureClass
from hevcq.ports.queue import DeadLetter, Queue, Selection

__all__ = ["DeadLetter", "Wanted", "find", "purge"]

ID_DIGITS = 32
"""Digits of a whole job id; fewer select by how the id begins."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters of which profiles; every given condition must hold.

    `job` and `letter` may be the beginning of an id; `buried_before` is wall seconds.
    """

    profiles: Sequence[str] = ()
    failure_class: FailureClass | None = None
    job: str | None = None
    letter: str | None = None
    limit: int | None = None
    buried_before: float | None = None


def find(queues: Mapping[str, Queue], wanted: Wanted) -> Iterator[tuple[str, DeadLetter]]:
    """Yield (profile, dead letter), profile by profile, oldest first, without loading them all."""
    return itertools.chain.from_iterable(find_batches(queues, wanted))


def find_batches(
    queues: Mapping[str, Queue], wanted: Wanted
) -> Iterator[list[tuple[str, DeadLetter]]]:
    """Yield the same in batches that may be redriven together, each before the next is asked for."""
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


def purge(queues: Mapping[str, Queue], wanted: Wanted) -> Iterator[tuple[str, DeadLetter, bool]]:
    """Delete dead letters for good; yield each with whether it was still there.

    The ledger keeps the job as dead, with its reason; only the message goes.
    """
    for name, letter in find(queues, wanted):
        yield name, letter, queues[name].purge(letter)


def _matches(letter: DeadLetter, wanted: Wanted) -> bool:
    if wanted.letter and not letter.letter_id.startswith(wanted.letter):
        return False
    if not wanted.job:
        return True
    return letter.task is not None and letter.task.job_id.startswith(wanted.job)
