"""The task publisher on AWS: S3 events queue new uploads, all other tasks are sent to the queues.

A new upload reaches every subscribed profile's queue by S3's notification through SNS. Tasks that
hevcq publishes itself (reprocessing, redrive, a file that was uploaded before) go directly to the
queue of each named profile and not over the topic: an SNS filter could drop them silently, and
other profiles would receive them too.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from hevcq.backends.aws.clients import RETENTION_S
from hevcq.backends.aws.dynamodb.ledger import DynamoLedger
from hevcq.domain.job import JobRecord, JobState, Source, Task
from hevcq.errors import UnknownProfile
from hevcq.ports.queue import Queue, TaskPublisher
from hevcq.util.clock import Clock

ANNOUNCED_WITHIN_S = 3600.0
"""Seconds after which an upload's event, which takes a minute at most, is in its queue."""
LOOK_EVERY_S = 60.0
"""Seconds between looks at the depth of a queue; SQS's own count is as old."""


class AwsTaskPublisher(TaskPublisher):
    """Queues the tasks of sources.

    SQS has no transaction over queues. Instead each job is first registered as "unsent", and the
    mark is removed after its message was sent. A failed send fails the whole publication, and a
    repeated one sends exactly the missing messages. A kill between send and unmark sends a message
    twice, which the ledger record makes harmless. No registered job is ever left without a message.
    SQS expires a message after RETENTION_S: such a job is sent again.
    """

    def __init__(
        self,
        queues: Mapping[str, Queue],
        ledger: DynamoLedger,
        announced_before: Callable[[Source], bool],
        clock: Clock,
    ) -> None:
        self._queues, self._ledger, self._clock = queues, ledger, clock
        self._announced_before = announced_before
        self._looked: dict[str, tuple[float, bool]] = {}

    def publish(
        self, source: Source, profiles: Sequence[str], *, announced: bool
    ) -> list[JobRecord]:
        """Send what no event of S3 queues: a source whose bytes were already in the bucket has none."""
        names = list(dict.fromkeys(profiles))
        for name in names:
            if name not in self._queues:
                raise _no_queue(name)
        if announced and not self._announced_before(source):
            return self._ledger.register(source, names)
        jobs = [self._ledger.registered(source, name, unsent=True) for name in names]
        for job, unsent in jobs:
            if self._needs_message(job, unsent=unsent):
                self._send(job)
        return [job for job, _ in jobs]

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen a settled job and send its task, or send that of an expired message again.

        A job that was reopened by a process that died before the send counts as settled. Raises
        UnknownProfile, Unavailable.
        """
        if job.profile not in self._queues:
            raise _no_queue(job.profile)
        if not self._ledger.reopened(job.job_id, who=who, why=why):
            job, unsent = self._ledger.registered(job.source, job.profile, unsent=True)
            if not self._needs_message(job, unsent=unsent):
                return False
        self._send(job)
        return True

    def _needs_message(self, job: JobRecord, *, unsent: bool) -> bool:
        return (unsent and job.state is JobState.QUEUED) or self.message_expired(job)

    def message_expired(self, job: JobRecord) -> bool:
        """Return whether no message of an open job can be left: it was not moved or leased for longer
        than SQS keeps one, or for an hour and its queue is empty (a ledger that was restored).

        If its message still exists after all, a second one for the job is harmless.
        """
        if job.state not in {JobState.QUEUED, JobState.RUNNING} or job.profile not in self._queues:
            return False
        idle_s = self._clock.now() - max(job.updated_at, job.lease_until)
        return idle_s > RETENTION_S or (idle_s > ANNOUNCED_WITHIN_S and self._is_empty(job.profile))

    def _is_empty(self, profile: str) -> bool:
        now = self._clock.monotonic()
        if now - self._looked.get(profile, (-math.inf, False))[0] > LOOK_EVERY_S:
            self._looked[profile] = now, self._queues[profile].depth().empty
        return self._looked[profile][1]

    def _send(self, job: JobRecord) -> None:
        expired = self.message_expired(job)
        self._queues[job.profile].send([Task(source=job.source, profile=job.profile)])
        self._ledger.sent(job.job_id)
        if expired:
            self._ledger.sent_anew(job)


def _no_queue(profile: str) -> UnknownProfile:
    return UnknownProfile(
        f"There is no queue for the profile {profile!r}.",
        remedy="Run `terraform apply` to deploy it, then repeat the request; or choose another profile.",
    )
