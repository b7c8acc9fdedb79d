"""The fan-out port: one source becomes one task in every subscribed profile's queue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from hevcq.domain.job import JobRecord, Source


class TaskPublisher(ABC):
    """Publishes sources. Specification: every named profile gets the source once, or the whole
    publication fails and nothing was queued."""

    @abstractmethod
    def publish(
        self, source: Source, profiles: Sequence[str], *, announced: bool
    ) -> list[JobRecord]:
        """Queue the source for each profile, and return the jobs as the ledger has them.

        A job that is settled, queued or running already is not queued again. `announced` says
        that the store's own events (S3 notifications) will bring the task, so that a backend that
        has such events sends nothing itself.
        """

    @abstractmethod
    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen a settled job in the ledger and queue its task, or queue that of a forgotten one.

        False if it was neither.
        """

    def message_expired(self, job: JobRecord) -> bool:  # noqa: ARG002 - for services that forget
        """Return whether the job waits for nothing: its message was kept too long, and is gone."""
        return False
