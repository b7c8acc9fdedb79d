"""The ports of one backend, opened together; which machines encode, and what joins one to a farm."""

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
"""Age of a sign of life from which a process counts as gone: twelve signs were missed."""


class WorkerFacts(MachineLoad):
    """What a process says of itself and its machine.

    `encoders` passed a self-test here; `waits` are the reasons for which no work begins.
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
    """A process that encodes, or that ended because it cannot; `seen_s` seconds ago was its last sign of life."""

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
        """Whether it works by a token, without a share: its owner is the farm's process that serves it."""
        return ":@" in self.owner


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sign of life is answered: who drained the machine, and a newer hevcq that works elsewhere."""

    drained_by: str = ""
    newer: str = ""
    newer_on: str = ""


class Machines(ABC):
    """Every method may raise StorageError or Unavailable; times are the database's."""

    @abstractmethod
    def tell(self, owner: str, facts: WorkerFacts) -> Answer:
        """Note a sign of life; the first one forgets dead processes of the same machine."""

    @abstractmethod
    def leave(self, owner: str, broken: WorkerFacts | None = None) -> None:
        """Forget a process that ends; one that is `broken` stays in the list with its reason.

        A drained machine stays in the list too, and drained, until it is resumed or removed.
        """

    @abstractmethod
    def processes(self) -> list[WorkerProcess]:
        """Return every process by machine, with the jobs it runs."""

    @abstractmethod
    def drain(self, name: str, by: str) -> bool:
        """Let a machine or an owner take no new work, or with `by` empty work again; False if unknown."""

    @abstractmethod
    def remove(self, name: str) -> bool:
        """Forget a machine or an owner; False if it is unknown. Whoever is alive there comes back by its next sign."""


def minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: those of one minor version work together."""
    return tuple(int(word) for word in version.split(".")[:2] if word.isdigit())


@dataclass(frozen=True, slots=True)
class Backend:
    """Hold the queues by profile name, with their ledger, store and task publisher.

    `owner` names this process in leases. `close` closes connections and stops threads; it may be
    called twice.
    `announces_uploads`: accepting a source already queues it (S3 notifications).
    `external_dlq`: the queue service itself moves a message to the dead-letter queue after too many
    receives, without the ledger (SQS).
    `database` names the database that several machines share; "" where none does.
    `namespace` returns the name that this machine's uploads have in their keys; "" where no other
    machine shares the store. `common` returns the name of a path that all machines of the database know it
    by. `machines` knows who works; None where only the cloud does (ECS).
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
    """An order with what only the farm knows: `source` to serve, and where the made file goes.

    No more than `most_bytes` are taken.
    """

    order: Order
    source: Path | None = None
    target: Path | None = None
    most_bytes: int = 0


def source_tag(source: Path) -> str:
    """Return what changes when a file is replaced or written to. Raises OSError."""
    seen = source.stat()
    return f"{seen.st_ino:x}-{seen.st_size:x}-{seen.st_mtime_ns:x}"


class Machine(Protocol):
    """A joined machine as the farm sees it; `name` is for people, `facts` what it last said of itself."""

    name: str
    facts: MachineFacts

    def carry_out(
        self, errand: Errand, on_progress: Callable[[OrderProgress], None], stop: threading.Event
    ) -> OrderEnd:
        """Wait until the machine has carried out an order; return its answer.

        Raises Stopped once `stop` is set, or the machine is gone; LimitExceeded after `max_seconds`.
        """

    def complain(self, reason: str) -> None:
        """Note that what it made is not usable; after several in a row it gets no more orders."""

    def praise(self) -> None:
        """Note that what it made passed every gate."""
