"""The ports that use cases work with."""

from dataclasses import dataclass
from pathlib import Path

from hevcq.library.replacement.swap import Swap
from hevcq.ports.backend import Backend
from hevcq.sql.catalog import Catalog
from hevcq.util.clock import Clock


@dataclass(frozen=True)
class LibraryPorts:
    """Ports for changing library folders on this machine; `data_dir` holds the placement lock."""

    catalog: Catalog
    clock: Clock
    data_dir: Path

    def open_swap(self, root: Path) -> Swap:
        """Return the swap journal of one library folder."""
        return Swap(root, self.clock)


@dataclass(frozen=True)
class Ports(LibraryPorts):
    """The same with the queues, the ledger and the store."""

    backend: Backend
