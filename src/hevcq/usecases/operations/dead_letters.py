"""List and delete dead letters, and record in the ledger the jobs whose message a queue gave up.

SQS moves a message that exceeded the receive limit to the dead letters without notice: its job stays
queued, running under an expired lease, or split. An embedded queue does both in one transaction (see
`Backend.external_dlq`). The job may have a second message in flight, which reopens the job when received
(`worker/delivery/claim.py`), because no worker gave a verdict.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hevcq.domain.job import SETTLED, JobRecord, JobState, Source, Task, TaskKind, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import HevcqError, StaleFence
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import Granted, Ledger
from hevcq.ports.queue import DeadLetter, Queue
from hevcq.util.log import get_logger

__all__ = ["DeadLetter", "DeadLetterFilter", "find", "purge"]

MIN_PREFIX = 6
"""Least characters of a prefix of a letter's or job's id; ids of letters may be short numbers."""
ID_DIGITS = 32
"""Digits of a full job id; fewer are a prefix."""


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters of which profiles; every given condition must hold.

    `letter` is the id of a letter or of its job, or a prefix of one. `limit` is the largest number of
    letters (None: all).
    """

    profiles: Sequence[str] = ()
    failure_class: FailureClass | None = None
    letter: str = ""
    limit: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether every given condition except profile and limit holds."""
        if self.failure_class not in (None, letter.failure_class):
            return False
        ids = [letter.letter_id, letter.task.job_id if letter.task is not None else ""]
        begins = len(self.letter) >= MIN_PREFIX and any(n.startswith(self.letter) for n in ids)
        return begins or self.letter in {"", *ids}


def find(
    queues: Mapping[str, Queue], criteria: DeadLetterFilter
) -> Iterator[tuple[str, DeadLetter]]:
    """Yield (profile, dead letter), profile by profile, oldest first, without loading all of them."""
    job_id = criteria.letter if len(criteria.letter) == ID_DIGITS else None
    letters = (
        (name, letter)
        for name in list(criteria.profiles) or sorted(queues)
        for letter in queues[name].dead_letters(job_id)
        if criteria.matches(letter)
    )
    return itertools.islice(letters, criteria.limit)


def purge(queues: Mapping[str, Queue], criteria: DeadLetterFilter) -> int:
    """Delete dead letters permanently; return how many still existed.

    The ledger keeps their jobs as dead, with their reasons.
    """
    return sum(queues[name].purge(letter) for name, letter in find(queues, criteria))


LEASE_S = 60.0
"""Seconds of the lease under which a queued job is marked as skipped."""


def skip_waiting(backend: Backend, source: Source, profile: str, words: str) -> bool:
    """Mark a queued job as skipped; return False if it could not be claimed, e.g. a worker has it."""
    claim = backend.ledger.claim(source, profile, owner=backend.owner, lease_s=LEASE_S)
    if not isinstance(claim, Granted):
        return False
    backend.ledger.skip(job_id(source, profile), claim.fence, words)
    return True


WORKER_LOOKS_EVERY_S = 900.0
"""Seconds between a worker's checks for expired messages. A check hides dead letters from others for a
moment, so it is rare; an ingest that waits for a job checks more often."""
FULL_CHECK_EVERY = 20
"""A check lists letters only if their number rose; every FULL_CHECK_EVERY-th lists them anyway, because
a new letter and a purged one leave the number unchanged."""


class ExpiredMessages:
    """Finds the messages that the queues of `profiles` (empty: all) gave up; call `check` regularly.

    A check lists at most `most` letters of each queue (None: all).
    """

    def __init__(
        self, backend: Backend, profiles: Sequence[str] = (), *, most: int | None = None
    ) -> None:
        self._backend, self._names = backend, tuple(profiles) or tuple(sorted(backend.queues))
        self._most = most
        self._checks = 0
        self._dead: dict[str, int] = {}
        self._held: dict[str, DeadLetter] = {}

    def check(self) -> int:
        """Record jobs with expired messages; return how many. Errors are logged and retried next time."""
        if not self._backend.external_dlq:
            return 0
        try:
            return self._record_expired()
        except HevcqError as error:
            get_logger().warning("given_up_not_looked_for", reason=str(error))
            return 0

    def _record_expired(self) -> int:
        full, self._checks = self._checks % FULL_CHECK_EVERY == 0, self._checks + 1
        held, self._held = list(self._held.values()), {}
        recorded = sum(map(self.record, held))
        for name in self._names:
            queue = self._backend.queues[name]
            dead = queue.depth().dead
            if dead > (0 if full else self._dead.get(name, 0)):
                # Not filtered by class: to find `most` of it, the listing would pass all others.
                recorded += sum(
                    map(self.record, itertools.islice(queue.dead_letters(), self._most))
                )
            self._dead[name] = dead
        return recorded

    def record_each(
        self, letters: Iterator[tuple[str, DeadLetter]]
    ) -> Iterator[tuple[str, DeadLetter]]:
        """Yield the letters unchanged, and record the jobs of expired ones."""
        for name, letter in letters:
            if self._backend.external_dlq:
                self.record(letter)
            yield name, letter

    def record(self, letter: DeadLetter) -> bool:
        """Record a letter's job as dead if its message expired; return whether it was recorded."""
        task = letter.task
        if letter.failure_class is not FailureClass.RECEIVES or task is None:
            return False
        ledger = self._backend.ledger
        job = ledger.get(task.job_id)
        if job is None or job.state in SETTLED:
            return False
        if _bury(ledger, job, task, letter.reason):
            get_logger(job=job.job_id).warning("job_given_up", reason=letter.reason)
            return True
        unit = job if task.kind is TaskKind.ENCODE else ledger.get(task.unit_id)
        if unit is not None and unit.state is JobState.RUNNING:
            # Its last worker died or is about to lose its lease: check again until the lease has expired.
            self._held[task.unit_id] = letter
        return False


def _bury(ledger: Ledger, job: JobRecord, task: Task, reason: str) -> bool:
    if task.kind is TaskKind.ENCODE and job.state is not JobState.SPLIT:
        return ledger.bury_unclaimed(job.job_id, reason, FailureClass.RECEIVES)
    if job.state is not JobState.SPLIT or job.split is None:
        return False
    if task.kind is TaskKind.ENCODE:
        # This message was to enqueue the chunks, and is not needed after that.
        return not job.split.announced and _end(ledger, job, reason)
    if job.split.name != task.split:
        return False
    part = ledger.get(task.unit_id)
    if part is None or part.state in {JobState.DONE, JobState.SKIPPED}:
        return False
    dead = part.state is JobState.DEAD
    # The subjob first, as workers do, so that the next check repairs a kill in between.
    dead = dead or ledger.bury_unclaimed(part.job_id, reason, FailureClass.RECEIVES)
    return dead and _end(ledger, job, reason)


def _end(ledger: Ledger, job: JobRecord, reason: str) -> bool:
    try:
        ledger.bury(job.job_id, job.fence, reason, FailureClass.RECEIVES)
    except StaleFence:
        return False
    return True
