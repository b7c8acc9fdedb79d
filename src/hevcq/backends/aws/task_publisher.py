"""The fan-out port on AWS: uploads announce themselves, the rest is sent to each profile's queue.

An upload reaches every profile's queue by S3's notification through SNS. What hevcq publishes
itself (re-processing, redrive, a file that was uploaded before) goes straight to the queue of each
profile that is named and not over the topic: an SNS filter, whose job is to save messages, would
drop it unseen, and profiles that were not named would get it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hevcq.backends.aws.dynamodb.ledger import DynamoLedger, Registered
from hevcq.domain.job import JobRecord, JobState, Source, Task
from hevcq.errors import UnknownProfile
from hevcq.ports.queue import Queue
from hevcq.ports.task_publisher import TaskPublisher
from hevcq.util.clock import Clock


class AwsTaskPublisher(TaskPublisher):
    """Publishes sources.

    SQS has no transaction over queues. Instead each job is first registered as "unsent", and the
    mark is taken off after its message has gone out. When a send fails, the whole publication
    raises, and doing it again sends exactly what is missing; killed between the two, a job is
    sent twice, which its ledger record makes harmless. No job is ever registered and forgotten.
    SQS itself forgets what it kept for `kept_s` seconds, which is by profile: such a job is sent anew.
    """

    def __init__(
        self,
        queues: Mapping[str, Queue],
        ledger: DynamoLedger,
        announced_before: Callable[[Source], bool],
        clock: Clock,
        kept_s: Mapping[str, float],
    ) -> None:
        self._queues, self._ledger, self._clock = queues, ledger, clock
        self._announced_before, self._kept_s = announced_before, kept_s

    def publish(
        self, source: Source, profiles: Sequence[str], *, announced: bool
    ) -> list[JobRecord]:
        """Queue the source for each profile; nothing is sent if S3's own event brings the task.

        A source whose bytes were in the bucket already gets no new event, so it is sent.
        """
        names = list(dict.fromkeys(profiles))
        for name in names:
            if name not in self._queues:
                raise UnknownProfile(f"There is no queue for the profile {name!r}.")
        if announced and not self._announced_before(source):
            return self._ledger.register(source, names)
        jobs = [self._ledger.registered(source, name, unsent=True) for name in names]
        for job in jobs:
            if self._waits_in_vain(job):
                self._send(job.record)
        return [job.record for job in jobs]

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen a settled job and send its task to its own queue; or send that of a forgotten one.

        One that was reopened before, by a process that died before the send, counts as settled.
        """
        if job.profile not in self._queues:
            raise UnknownProfile(f"There is no queue for the profile {job.profile!r}.")
        if not self._ledger.reopened(job.job_id, who=who, why=why, unsent=True):
            seen = self._ledger.seen(job.job_id)
            if seen is None or not self._waits_in_vain(seen):
                return False
            job = seen.record
        self._send(job)
        return True

    def _waits_in_vain(self, job: Registered) -> bool:
        unsent = job.unsent and job.record.state is JobState.QUEUED
        return unsent or self.message_expired(job.record)

    def message_expired(self, job: JobRecord) -> bool:
        """Return whether nobody moved or held the job for as long as SQS keeps a message.

        What is sent anew and was not gone after all is a second message of the job: harmless.
        """
        if job.state not in {JobState.QUEUED, JobState.RUNNING} or job.profile not in self._kept_s:
            return False
        last = max(job.updated_at, job.lease_until)
        return self._clock.now() - last > self._kept_s[job.profile]

    def _send(self, job: JobRecord) -> None:
        self._queues[job.profile].send([Task(source=job.source, profile=job.profile)])
        self._ledger.sent(job.job_id)
        if self.message_expired(job):
            self._ledger.sent_anew(job)
