"""The ports between a farm and a joined machine: one for each side. See domain.orders."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hevcq.domain.orders import MachineFacts, Order, OrderEnd, OrderProgress
from hevcq.ports.store import Write


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


class Home(ABC):
    """The farm as a joined machine sees it.

    Every method raises Unavailable if it does not answer, AccessDenied if the machine was removed, and
    WorkerUnfit, with the reason, if the farm takes nothing from it.
    """

    @abstractmethod
    def poll(self, facts: MachineFacts) -> Order | None:
        """Wait some seconds for an order; return None if there is none."""

    @abstractmethod
    def beat(self, order: Order, progress: OrderProgress | None) -> tuple[bool, bool]:
        """Tell that the order is worked on; return whether it is still wanted, and whether it is held."""

    @abstractmethod
    def fetch(self, order: Order, target: Path, stop: threading.Event) -> None:
        """Append what is missing of the source to `target`.

        Raises Stopped, SourceGone if the order is no longer wanted or its source changed, DiskFull.
        """

    @abstractmethod
    def read(
        self, order: Order, span: tuple[int, int], write: Write, stop: threading.Event
    ) -> None:
        """Read the bytes of `span` (start, end) of the source; pass them on with their offset, each once.

        Raises Stopped, SourceGone as `fetch` does.
        """

    @abstractmethod
    def put(self, order: Order, file: Path, stop: threading.Event) -> None:
        """Send the file, from where an earlier attempt broke off. Raises Stopped, SourceGone."""

    @abstractmethod
    def answer(self, order: Order, answer: OrderEnd) -> None:
        """End the order. One that is no longer wanted is no error."""
