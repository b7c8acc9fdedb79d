"""The ports of one backend, opened together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hevcq.ports.ledger import Ledger
from hevcq.ports.machines import Machines
from hevcq.ports.queue import Queue, TaskPublisher
from hevcq.ports.store import Store


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
