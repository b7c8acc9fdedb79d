"""A task publisher in memory."""

from collections.abc import Mapping, Sequence

from hevcq.domain.job import JobRecord, Source, Task, job_id
from hevcq.errors import UnknownProfile
from hevcq.ports.queue import TaskPublisher
from support.fakes.ledger import MemoryLedger
from support.fakes.queue import MemoryQueue


class MemoryTaskPublisher(TaskPublisher):
    """Sends to memory queues; a send that fails takes back those before it."""

    def __init__(self, queues: Mapping[str, MemoryQueue], ledger: MemoryLedger) -> None:
        self._queues, self._ledger = queues, ledger

    def publish(
        self, source: Source, profiles: Sequence[str], *, announced: bool
    ) -> list[JobRecord]:
        for profile in profiles:
            if profile not in self._queues:
                raise UnknownProfile(f"There is no queue for the profile {profile!r}.")
        new = [p for p in dict.fromkeys(profiles) if self._ledger.get(job_id(source, p)) is None]
        sent: list[tuple[MemoryQueue, str]] = []
        try:
            for profile in new:
                queue, task = self._queues[profile], Task(source=source, profile=profile)
                sent.append((queue, queue.send_body(task.body())))
        except BaseException:
            for queue, message in sent:
                queue.retract(message)
            raise
        return self._ledger.register(source, list(profiles))

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        if not self._ledger.reopen(job.job_id, who=who, why=why):
            return False
        self._queues[job.profile].send([Task(source=job.source, profile=job.profile)])
        return True
