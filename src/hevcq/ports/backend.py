"""The ports of one backend, opened together, and the ports of the machines that encode for it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hevcq.domain.job import JobRecord
from hevcq.domain.model import Frozen, MachineLoad
from hevcq.ports.ledger import Ledger
from hevcq.ports.queue import Queue, TaskPublisher
from hevcq.ports.store import Store

if TYPE_CHECKING:  # orders bring plans and certificates, which most commands need not load
    from hevcq.domain.orders import MachineFacts, Order, OrderEnd, OrderProgress

SILENT_S = 60.0
"""Age of the last sign of life at which a process counts as gone: it missed twelve."""


class WorkerFacts(MachineLoad):
    """What a process reports about itself and its machine.

    `encoders` passed a self-test there; `waits` are the reasons why no work begins.
    """

    machine: str
    version: str
    ffmpeg: str = ""
    cores: float = 0.0
    slots: int = 0
    encoders: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()


class WorkerJob(Frozen):
    """A job, or a chunk of one, that a process encodes now; `speed` is 1 at real time."""

    job_id: str
    profile: str
    key: str
    phase: str = ""
    percent: float = 0.0
    speed: float | None = None
    chunk: int | None = None

    @classmethod
    def of(cls, record: JobRecord) -> WorkerJob:
        part = record.subjob
        return cls(
            job_id=record.job_id if part is None else part.job_id,
            profile=record.profile,
            key=record.source.key,
            chunk=None if part is None else part.chunk,
            **({} if record.progress is None else record.progress.model_dump(exclude={"eta_s"})),
        )


class WorkerProcess(Frozen):
    """A process that encodes, or ended because it cannot; its last sign of life is `seen_s` seconds old."""

    owner: str
    facts: WorkerFacts
    seen_s: float
    drained_by: str = ""
    ended: bool = False
    jobs: tuple[WorkerJob, ...] = ()

    @property
    def alive(self) -> bool:
        return not self.ended and self.seen_s < SILENT_S

    @property
    def joined(self) -> bool:
        """Whether it joined by a token, without a share; `owner` is then the farm's process that serves it."""
        return ":@" in self.owner


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a sign of life: who drained the machine, and a newer hevcq that runs elsewhere."""

    drained_by: str = ""
    newer: str = ""
    newer_on: str = ""


class Machines(ABC):
    """Every method may raise StorageError or Unavailable; times are the database's."""

    @abstractmethod
    def tell(self, owner: str, facts: WorkerFacts) -> Answer:
        """Record a sign of life; the first one removes dead processes of the same machine."""

    @abstractmethod
    def leave(self, owner: str, broken: WorkerFacts | None = None) -> None:
        """Remove a process that ends; a `broken` one stays in the list with its reason.

        A drained machine stays in the list, still drained, until it is resumed or removed.
        """

    @abstractmethod
    def processes(self) -> list[WorkerProcess]:
        """Return every process by machine, with the jobs it runs."""

    @abstractmethod
    def drain(self, name: str, by: str) -> bool:
        """Stop a machine or an owner from taking new work, or end that if `by` is empty; False if unknown."""

    @abstractmethod
    def remove(self, name: str) -> bool:
        """Remove a machine or an owner; False if unknown. A live process returns with its next sign of life."""


def minor(version: str) -> tuple[int, ...]:
    """Return a version's first two numbers; releases of one minor version work together."""
    return tuple(int(word) for word in version.split(".")[:2] if word.isdigit())


@dataclass(frozen=True, slots=True)
class Backend:
    """The queues by profile name, with their ledger, store and task publisher.

    `owner` names this process in leases. `close` closes connections and stops threads; it may be
    called twice.
    `announces_uploads`: accepting a source already queues it (S3 notifications).
    `external_dlq`: the queue service itself moves a message to the dead-letter queue after too many
    receives, without the ledger (SQS).
    `database` names the database that several machines share; "" if there is none.
    `namespace` returns this machine's name in the keys of its uploads; "" if no other machine shares the
    store. `common` returns the path by which all machines of the database know a file. `machines`
    lists the machines at work; None if only the cloud knows them (ECS).
    """

    owner: str
    queues: Mapping[str, Queue]
    ledger: Ledger
    store: Store
    task_publisher: TaskPublisher
    close: Callable[[], None]
    announces_uploads: bool = False
    database: str = ""
    machines: Machines | None = None
    external_dlq: bool = False
    namespace: Callable[[], str] = lambda: ""
    common: Callable[[Path], Path] = lambda path: path


@dataclass(frozen=True, slots=True)
class Errand:
    """An order with what only the farm knows: the `source` to serve, and the `target` of the result.

    The farm accepts at most `most_bytes`.
    """

    order: Order
    source: Path | None = None
    target: Path | None = None
    most_bytes: int = 0


def source_tag(source: Path) -> str:
    """Return a tag that changes when a file is replaced or written to. Raises OSError."""
    status = source.stat()
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


class Machine(Protocol):
    """A joined machine as the farm sees it; `name` is for people, `facts` are its last report."""

    name: str
    facts: MachineFacts

    def carry_out(
        self, errand: Errand, on_progress: Callable[[OrderProgress], None], stop: threading.Event
    ) -> OrderEnd:
        """Wait until the machine has carried out an order; return its answer.

        Raises Stopped once `stop` is set or the machine is gone, and LimitExceeded after `max_seconds`.
        """

    def complain(self, reason: str) -> None:
        """Record that its result is unusable; after several in a row it gets no more orders."""

    def praise(self) -> None:
        """Record that its result passed every gate."""
