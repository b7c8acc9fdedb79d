"""The task publisher on AWS: S3 events queue new uploads, all other tasks are sent to the queues.

S3 notifies the queue of every subscribed profile of a new upload through SNS. Tasks that hevcq
publishes itself (reprocessing, redrive, a file that was uploaded before) go directly to the queue of
each named profile and not over the topic: an SNS filter could drop them silently, and other profiles
would receive them too.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from hevcq.backends.aws.clients import MESSAGE_RETENTION_S
from hevcq.backends.aws.dynamodb.ledger import DynamoLedger
from hevcq.domain.job import JobRecord, JobState, Source, Task
from hevcq.errors import UnknownProfile
from hevcq.ports.queue import Queue, TaskPublisher
from hevcq.util.clock import Clock

ANNOUNCED_WITHIN_S = 3600.0
"""Seconds after which an upload's event, which takes a minute at most, is in its queue."""
DEPTH_EVERY_S = 60.0
"""Seconds between two reads of a queue's depth; SQS's own count may be as old."""


class AwsTaskPublisher(TaskPublisher):
    """Registers jobs and sends their tasks.

    SQS has no transaction over queues. So each job is first registered as "unsent", and the mark is
    removed after its message was sent. A failed send fails the whole publication, and repeating it sends
    exactly the missing messages. A kill between send and unmark leads to a second message, which the
    ledger makes harmless. No registered job ever stays without a message. SQS deletes a message after
    MESSAGE_RETENTION_S; then the job's task is sent again.
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
        self._emptiness: dict[str, tuple[float, bool]] = {}

    def publish(
        self, source: Source, profiles: Sequence[str], *, announced: bool
    ) -> list[JobRecord]:
        """Send the tasks that no S3 event queues, as of a source that was in the bucket already."""
        names = list(dict.fromkeys(profiles))
        for name in names:
            if name not in self._queues:
                raise _no_queue(name)
        if announced and not self._announced_before(source):
            return self._ledger.register(source, names)
        jobs = [self._ledger.ensure_registered(source, name, unsent=True) for name in names]
        for job, unsent in jobs:
            if self._needs_message(job, unsent=unsent):
                self._send(job)
        return [job for job, _ in jobs]

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen a settled job and send its task; send the task of an open job again if none is left.

        That also covers a job whose process died between reopening it and sending. Raises UnknownProfile,
        Unavailable.
        """
        if job.profile not in self._queues:
            raise _no_queue(job.profile)
        if not self._ledger.reopen_unsent(job.job_id, who=who, why=why):
            job, unsent = self._ledger.ensure_registered(job.source, job.profile, unsent=True)
            if not self._needs_message(job, unsent=unsent):
                return False
        self._send(job)
        return True

    def _needs_message(self, job: JobRecord, *, unsent: bool) -> bool:
        return (unsent and job.state is JobState.QUEUED) or self.message_expired(job)

    def message_expired(self, job: JobRecord) -> bool:
        """Return whether an open job can have no message any more.

        It was neither moved nor leased for longer than SQS keeps a message; or for an hour, and its queue
        is empty (after a ledger was restored). A second message would be harmless.
        """
        if job.state not in {JobState.QUEUED, JobState.RUNNING} or job.profile not in self._queues:
            return False
        idle_s = self._clock.now() - max(job.updated_at, job.lease_until)
        return idle_s > MESSAGE_RETENTION_S or (
            idle_s > ANNOUNCED_WITHIN_S and self._is_empty(job.profile)
        )

    def _is_empty(self, profile: str) -> bool:
        now = self._clock.monotonic()
        if now - self._emptiness.get(profile, (-math.inf, False))[0] > DEPTH_EVERY_S:
            self._emptiness[profile] = now, self._queues[profile].depth().empty
        return self._emptiness[profile][1]

    def _send(self, job: JobRecord) -> None:
        expired = self.message_expired(job)
        self._queues[job.profile].send([Task(source=job.source, profile=job.profile)])
        self._ledger.mark_sent(job.job_id)
        if expired:
            self._ledger.mark_resent(job)


def _no_queue(profile: str) -> UnknownProfile:
    return UnknownProfile(
        f"There is no queue for the profile {profile!r}.",
        remedy="Run `terraform apply` to deploy it, then repeat the request; or choose another profile.",
    )
