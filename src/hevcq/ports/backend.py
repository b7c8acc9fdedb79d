"""One way of running, opened: the ports that belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hevcq.ports.ledger import JobLedger
from hevcq.ports.queue import Queue
from hevcq.ports.skip_memory import SkipMemory
from hevcq.ports.store import Store
from hevcq.ports.subjob_ledger import SubjobLedger
from hevcq.ports.task_publisher import TaskPublisher


class Ledger(JobLedger, SubjobLedger, SkipMemory):
    """The three ledger ports by one object: a split moves a job and puts its subjobs in at once."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Queues by profile name, and the ledger, store and fan-out beside them.

    `ledger` is asked for jobs alone; `subjobs` and `skips` are the same object, by their own ports.

    `owner` names this process in leases. `close` ends connections and threads; it may be called
    twice. `announces_uploads` says that accepting a source already queues it (S3 notifications),
    `external_dlq` that a queue may make a message a dead letter, after too many receives,
    without the ledger's knowing (SQS).
    """

    owner: str
    queues: Mapping[str, Queue]
    ledger: Ledger
    store: Store
    task_publisher: TaskPublisher
    close: Callable[[], None]
    announces_uploads: bool = False
    external_dlq: bool = False

    @property
    def subjobs(self) -> SubjobLedger:
        """The chunks and joins of split jobs."""
        return self.ledger

    @property
    def skips(self) -> SkipMemory:
        """What is known not to be worth encoding."""
        return self.ledger
