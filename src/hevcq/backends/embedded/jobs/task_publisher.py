"""Implement the task publisher port in SQLite: jobs and their messages in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from hevcq.backends.embedded.database import Database
from hevcq.backends.embedded.jobs import tables
from hevcq.backends.embedded.jobs.ledger import reopen
from hevcq.backends.embedded.jobs.queue import SqliteQueue
from hevcq.domain.job import JobRecord, Source, Task
from hevcq.errors import UnknownProfile
from hevcq.ports.queue import TaskPublisher
from hevcq.util.clock import Clock


class SqliteTaskPublisher(TaskPublisher):
    """Insert jobs and messages atomically, then wake the consumers of the queues."""

    def __init__(self, database: Database, clock: Clock, queues: Mapping[str, SqliteQueue]) -> None:
        self._database = database
        self._clock = clock
        self._queues = queues

    def publish(
        self,
        source: Source,
        profiles: Sequence[str],
        *,
        announced: bool,  # noqa: ARG002 - files send no notifications, so tasks are always sent
    ) -> list[JobRecord]:
        """Insert the missing jobs, each with a task.

        Raises UnknownProfile before it writes anything.
        """
        for profile in profiles:
            self._known(profile)
        now = self._clock.now()
        new: list[str] = []

        def work(connection: sqlite3.Connection) -> list[JobRecord]:
            new.clear()
            for profile in profiles:
                if tables.insert_job(connection, source, profile, now):
                    new.append(profile)
                    task = tables.outgoing([Task(source=source, profile=profile)])
                    tables.send(connection, profile, task, now=now)
            return [tables.ensured_job(connection, source, profile, now) for profile in profiles]

        found = self._database.write(work)
        for profile in new:
            self._queues[profile].notify()
        return found

    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen the job and send its task in one transaction; return False if it is not settled."""
        queue, now = self._known(job.profile), self._clock.now()
        task = tables.outgoing([Task(source=job.source, profile=job.profile)])

        def work(connection: sqlite3.Connection) -> bool:
            if not reopen(connection, job.job_id, who, why, now):
                return False
            tables.send(connection, job.profile, task, now=now)
            return True

        sent = self._database.write(work)
        if sent:
            queue.notify()
        return sent

    def _known(self, profile: str) -> SqliteQueue:
        if profile not in self._queues:
            raise UnknownProfile(
                f"There is no queue for the profile {profile!r}.",
                remedy="Restart this process if the profile is new; or choose another profile.",
            )
        return self._queues[profile]
