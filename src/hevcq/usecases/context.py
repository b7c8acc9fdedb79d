"""The ports that use cases share, and the locks of a data folder: one placement, one service, one sync."""

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hevcq.errors import HevcqError, StorageError, Unavailable
from hevcq.library.filesystem import FileSystem
from hevcq.library.replacement.swap import Swap
from hevcq.ports.backend import Backend
from hevcq.sql.catalog import Catalog
from hevcq.util import file_io, file_lock
from hevcq.util.clock import Clock
from hevcq.util.text import printable, reason_of


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


PLACING_LOCK = "placing.lock"
PLACING = "placing"
IDENTITY = "id"


def data_folder_id(data_dir: Path) -> str:
    """Return the identity of a data folder: the same for all who use it, under whatever path.

    Raises Unavailable if the folder is not writable.
    """
    path = data_dir / IDENTITY
    with placement_lock(data_dir):
        try:
            found = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            found = ""
        if not found.isalnum():
            found = secrets.token_hex(16)
            temp = path.with_name(f"{IDENTITY}.new")
            temp.write_text(found, encoding="ascii")
            file_io.replace_durably(temp, path)
    return found


@contextmanager
def placing(ports: LibraryPorts) -> Iterator[Callable[[], None]]:
    """Hold the placement lock of the data folder, and of all machines that share its placements.

    Read and write a placement's state inside it, so that a placement finished by another process is
    never set back. Yield what raises LockLost if the lock was lost: call it before each write. Raises
    Unavailable if the folder is not writable or the database is away.
    """
    with placement_lock(ports.data_dir), ports.catalog.database.lock(PLACING) as require:
        yield require


@contextmanager
def placement_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's placement lock; the system releases it when the holder dies.

    Raises Unavailable if the folder is not writable.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = file_lock.acquire(data_dir / PLACING_LOCK)
    except OSError as error:
        raise Unavailable(
            f"Cannot write to the data folder {data_dir}: {error.strerror}.",
            remedy="Allow this user to write there, or choose another with --data-dir.",
        ) from error
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def alone(path: Path, refusal: HevcqError) -> Iterator[None]:
    """Hold the lock file at `path`; raise `refusal` if another process does, StorageError for the disk's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock.try_acquire(path)
    except OSError as error:
        raise StorageError(f"Cannot write to {printable(path)}: {reason_of(error)}.") from error
    if lock is None:
        raise refusal
    try:
        yield
    finally:
        os.close(lock)
