"""The ports that use cases work with."""

import threading
from dataclasses import dataclass
from pathlib import Path

from hevcq.library.filesystem import FileSystem
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

    def open_swap(self, root: Path, stop: threading.Event | None = None) -> Swap:
        """Return the swap journal of one library folder."""
        return Swap(root, self.clock, self.files(stop))

    def files(self, stop: threading.Event | None = None) -> FileSystem:
        """Return the file system for changes of libraries, for one thread."""
        database = self.catalog.database
        return FileSystem(stop, database.lock if database.shared else None)


@dataclass(frozen=True)
class Ports(LibraryPorts):
    """The same with the queues, the ledger and the store."""

    backend: Backend
