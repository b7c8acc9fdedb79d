"""Write into the ledger what a queue has given up by itself, so that nobody waits for it for ever.

SQS moves a message to the dead letters after too many receives and tells nobody: its job stays
queued, running under a lease that ran out, or split. Whoever looks at dead letters, waits for a
job or works for the queue records it, by a conditional write. An embedded queue does it in one
transaction (`Backend.external_dlq` says which), and there is nothing to do here.

It may be too early, where the job has a second message on its way. Such a message reopens the job
when it comes (`worker/delivery/claim.py`), for no worker ever judged it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hevcq.domain.job import SETTLED, JobRecord, JobState, Task, TaskKind
from hevcq.domain.verdict import FailureClass
from hevcq.errors import HevcqError, StaleFence
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import JobLedger
from hevcq.ports.queue import DeadLetter, Selection
from hevcq.util.log import get_logger

WHOLE_EVERY = 20
"""A look lists letters only where there are more than before; every so often it does so anyway,
for one may have come as another went."""


class GivenUp:
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

    def look(self) -> int:
        """Record what was given up; return how many jobs. An error is logged, and tried again."""
        if not self._backend.external_dlq:
            return 0
        try:
            return self._look()
        except HevcqError as error:
            get_logger().warning("given_up_not_looked_for", reason=str(error))
            return 0

    def _look(self) -> int:
        whole, self._looks = self._looks % WHOLE_EVERY == 0, self._looks + 1
        early, self._early = list(self._early.values()), {}
        marked = sum(self.note(letter) for letter in early)
        for name in self._names:
            dead = self._backend.queues[name].depth().dead
            if dead > (0 if whole else self._dead.get(name, 0)):
                marked += sum(self.note(letter) for letter in self._letters(name))
            self._dead[name] = dead
        return marked

    def _letters(self, name: str) -> Iterator[DeadLetter]:
        # Not by class alone: the listing would pass all others to find `most` of it.
        found = self._backend.queues[name].dead_letters(Selection())
        return itertools.islice(found, self._most)

    def noting(self, found: Iterator[tuple[str, DeadLetter]]) -> Iterator[tuple[str, DeadLetter]]:
        """Pass letters on to somebody who looks at them, and record those that were given up."""
        for name, letter in found:
            if self._backend.external_dlq:
                self.note(letter)
            yield name, letter

    def note(self, letter: DeadLetter) -> bool:
        """Record one letter's job as dead if its queue gave it up; return whether it was."""
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
            # Its last worker died, or loses it just now: asked again until the lease is over.
            self._early[task.unit_id] = letter
        return False


def _bury(ledger: JobLedger, job: JobRecord, task: Task, reason: str) -> bool:
    if task.kind is TaskKind.ENCODE and job.state is not JobState.SPLIT:
        return ledger.bury_unclaimed(job.job_id, reason, FailureClass.RECEIVES)
    if job.state is not JobState.SPLIT or job.split is None:
        return False
    if task.kind is TaskKind.ENCODE:
        # The message that was to send the chunks: once they are sent, nobody needs it.
        return not job.split.announced and _end(ledger, job, reason)
    if job.split.name != task.split:
        return False
    part = ledger.get(task.unit_id)
    if part is None or part.state in {JobState.DONE, JobState.SKIPPED}:
        return False
    dead = part.state is JobState.DEAD
    # The part first, as where a worker gives one up: a kill between is made up for by the next.
    dead = dead or ledger.bury_unclaimed(part.job_id, reason, FailureClass.RECEIVES)
    return dead and _end(ledger, job, reason)


def _end(ledger: JobLedger, job: JobRecord, reason: str) -> bool:
    try:
        ledger.bury(job.job_id, job.fence, reason, FailureClass.RECEIVES)
    except StaleFence:
        return False
    return True


def _is_held(ledger: JobLedger, job: JobRecord, task: Task) -> bool:
    if task.kind is TaskKind.ENCODE:
        return job.state is JobState.RUNNING
    part = ledger.get(task.unit_id)
    return part is not None and part.state is JobState.RUNNING
