"""The task publisher port: put one task for a source in the queue of each profile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from hevcq.domain.job import JobRecord, Source


class TaskPublisher(ABC):
    """Queues the tasks of sources.

    Specification: every named profile gets the task once, or the whole publication fails and
    nothing was queued.
    """

    @abstractmethod
    def publish(
        self, source: Source, profiles: Sequence[str], *, announced: bool
    ) -> list[JobRecord]:
        """Queue the source for each profile; return the jobs as the ledger has them.

        A job that is already settled, queued or running is not queued again. `announced` says
        that the store's own events (S3 notifications) queue the task, so that a backend with such
        events sends nothing. Raises UnknownProfile before anything is queued, Unavailable.
        """

    @abstractmethod
    def requeue(self, job: JobRecord, *, who: str, why: str) -> bool:
        """Reopen a settled job and queue its task, or queue the task of an expired message again.

        Returns False if the job is neither. `who` and `why` go into the ledger. Raises
        UnknownProfile, Unavailable.
        """

    def message_expired(self, job: JobRecord) -> bool:  # noqa: ARG002 - only a service expires messages
        """Return whether the job's message is gone because the queue's retention period ended."""
        return False
