"""One way of running, opened: the ports that belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hevcq.ports.fanout import Fanout
from hevcq.ports.ledger import Ledger
from hevcq.ports.queue import Queue
from hevcq.ports.store import Store


@dataclass(frozen=True, slots=True)
class Backend:
    """Queues by profile name, and the ledger, store and fan-out beside them.

    `owner` names this process in leases. `close` ends connections and threads; it may be called
    twice. `announces_uploads` says that accepting a source already queues it (S3 notifications),
    `gives_up_apart` that a queue may make a message a dead letter, after too many receives,
    without the ledger's knowing (SQS).
    """

    owner: str
    queues: Mapping[str, Queue]
    ledger: Ledger
    store: Store
    fanout: Fanout
    close: Callable[[], None]
    announces_uploads: bool = False
    gives_up_apart: bool = False
