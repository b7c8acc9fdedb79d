"""List and delete dead letters, and record in the ledger what a queue gave up by itself.

SQS moves a message that exceeded the receive limit to the dead letters without notice: its job stays
queued, running under an expired lease, or split. An embedded queue does it in one transaction (see
`Backend.external_dlq`). The job may have a second message in flight, which reopens it when received
(`worker/delivery/claim.py`), because no worker ever judged it.
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
"""Characters from which the beginning of a letter's or job's id names it: letters may be numbers."""
ID_DIGITS = 32
"""Digits of a full job id; fewer are a prefix."""


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters of which profiles; every given condition must hold.

    `letter` is the id of a letter or of its job, or the beginning of one. `limit` is the largest number
    of letters; None for all.
    """

    profiles: Sequence[str] = ()
    failure_class: FailureClass | None = None
    letter: str = ""
    limit: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether every given condition but profile and limit holds."""
        if self.failure_class not in (None, letter.failure_class):
            return False
        ids = [letter.letter_id, letter.task.job_id if letter.task is not None else ""]
        begins = len(self.letter) >= MIN_PREFIX and any(n.startswith(self.letter) for n in ids)
        return begins or self.letter in {"", *ids}


def find(queues: Mapping[str, Queue], wanted: DeadLetterFilter) -> Iterator[tuple[str, DeadLetter]]:
    """Yield (profile, dead letter), profile by profile, oldest first, without loading them all."""
    job_id = wanted.letter if len(wanted.letter) == ID_DIGITS else None
    letters = (
        (name, letter)
        for name in list(wanted.profiles) or sorted(queues)
        for letter in queues[name].dead_letters(job_id)
        if wanted.matches(letter)
    )
    return itertools.islice(letters, wanted.limit)


def purge(queues: Mapping[str, Queue], wanted: DeadLetterFilter) -> int:
    """Delete dead letters permanently; return how many were still there.

    The ledger keeps their jobs as dead, with their reasons.
    """
    return sum(queues[name].purge(letter) for name, letter in find(queues, wanted))


LEASE_S = 60.0
"""Seconds of the claim under which a waiting job is ended."""


def skip_waiting(backend: Backend, source: Source, profile: str, words: str) -> bool:
    """Let a job that waits end as skipped; return whether it does: a worker may have begun it."""
    claim = backend.ledger.claim(source, profile, owner=backend.owner, lease_s=LEASE_S)
    if not isinstance(claim, Granted):
        return False
    backend.ledger.skip(job_id(source, profile), claim.fence, words)
    return True


WORKER_LOOKS_EVERY_S = 900.0
"""Seconds between a worker's looks for expired messages. A look hides dead letters from others for a
moment, so it is rare; an ingest that waits for a job looks more often."""
FULL_CHECK_EVERY = 20
"""Checks list letters only if their number rose; every FULL_CHECK_EVERY-th lists them anyway, because one
may have come as another went."""


class ExpiredMessages:
    """Looks for what the queues of `profiles` (none: all) gave up; `look` again and again.

    At most `most` letters of each queue are listed at a look; None for all.
    """

    def __init__(
        self, backend: Backend, profiles: Sequence[str] = (), *, most: int | None = None
    ) -> None:
        self._backend, self._names = backend, tuple(profiles) or tuple(sorted(backend.queues))
        self._most = most
        self._looks = 0
        self._dead: dict[str, int] = {}
        self._early: dict[str, DeadLetter] = {}

    def check(self) -> int:
        """Record expired messages; return how many jobs. Errors are logged, and retried next time."""
        if not self._backend.external_dlq:
            return 0
        try:
            return self._record_expired()
        except HevcqError as error:
            get_logger().warning("given_up_not_looked_for", reason=str(error))
            return 0

    def _record_expired(self) -> int:
        whole, self._looks = self._looks % FULL_CHECK_EVERY == 0, self._looks + 1
        early, self._early = list(self._early.values()), {}
        marked = sum(self.note(letter) for letter in early)
        for name in self._names:
            dead = self._backend.queues[name].depth().dead
            if dead > (0 if whole else self._dead.get(name, 0)):
                marked += sum(self.note(letter) for letter in self._letters(name))
            self._dead[name] = dead
        return marked

    def _letters(self, name: str) -> Iterator[DeadLetter]:
        # Not selected by class: the listing would pass all others to find `most` of it.
        found = self._backend.queues[name].dead_letters()
        return itertools.islice(found, self._most)

    def record_each(
        self, found: Iterator[tuple[str, DeadLetter]]
    ) -> Iterator[tuple[str, DeadLetter]]:
        """Yield the letters unchanged, recording the expired ones."""
        for name, letter in found:
            if self._backend.external_dlq:
                self.note(letter)
            yield name, letter

    def note(self, letter: DeadLetter) -> bool:
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
        if _is_held(ledger, job, task):
            # Its last worker died or is losing it: check again until the lease has expired.
            self._early[task.unit_id] = letter
        return False


def _bury(ledger: Ledger, job: JobRecord, task: Task, reason: str) -> bool:
    if task.kind is TaskKind.ENCODE and job.state is not JobState.SPLIT:
        return ledger.bury_unclaimed(job.job_id, reason, FailureClass.RECEIVES)
    if job.state is not JobState.SPLIT or job.split is None:
        return False
    if task.kind is TaskKind.ENCODE:
        # This message was to enqueue the chunks: once they are, it is not needed.
        return not job.split.announced and _end(ledger, job, reason)
    if job.split.name != task.split:
        return False
    part = ledger.get(task.unit_id)
    if part is None or part.state in {JobState.DONE, JobState.SKIPPED}:
        return False
    dead = part.state is JobState.DEAD
    # The subjob first, as workers do it: the next check repairs a kill in between.
    dead = dead or ledger.bury_unclaimed(part.job_id, reason, FailureClass.RECEIVES)
    return dead and _end(ledger, job, reason)


def _end(ledger: Ledger, job: JobRecord, reason: str) -> bool:
    try:
        ledger.bury(job.job_id, job.fence, reason, FailureClass.RECEIVES)
    except StaleFence:
        return False
    return True


def _is_held(ledger: Ledger, job: JobRecord, task: Task) -> bool:
    if task.kind is TaskKind.ENCODE:
        return job.state is JobState.RUNNING
    part = ledger.get(task.unit_id)
    return part is not None and part.state is JobState.RUNNING
