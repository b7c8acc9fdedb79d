"""The ports that use cases share, the locks of a data folder, the state of library folders, and browsing."""

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from hevcq.domain.profile import Profile
from hevcq.errors import ConfigError, HevcqError, StorageError, Unavailable, UsageError
from hevcq.library.filesystem import FileSystem
from hevcq.library.replacement.swap import Swap
from hevcq.library.scanning.scan import SYSTEM_FOLDERS, Filter, FoundFile, find
from hevcq.library.scanning.watch_folder import LOCAL, file_system_of
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import Encoder
from hevcq.settings.libraries import Library
from hevcq.sql.catalog import Catalog, find_linked_media_folder, holds_recorded_video
from hevcq.util import file_io, file_lock
from hevcq.util.capacity import free_disk_bytes, nearest_existing
from hevcq.util.clock import Clock
from hevcq.util.text import printable, reason_of, size


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
    """LibraryPorts with the queues, the ledger and the store."""

    backend: Backend


class Tools(Protocol):
    """The tools of a use case on this machine, each opened on first use."""

    clock: Clock

    @property
    def backend(self) -> Backend: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def encoder(self) -> Encoder: ...
    @property
    def profiles(self) -> Mapping[str, Profile]: ...

    def scratch(self, needed_bytes: int) -> AbstractContextManager[Path]:
        """Create an empty folder with `needed_bytes` free; remove it on leaving. Raises DiskFull."""


PLACING_LOCK = "placing.lock"
PLACING = "placing"
IDENTITY = "id"


def data_folder_id(data_dir: Path) -> str:
    """Return the identity of a data folder, which is the same under every path of the folder.

    Raises Unavailable if the folder is not writable.
    """
    path = data_dir / IDENTITY
    with _placement_lock_file(data_dir):
        try:
            identity = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            identity = ""
        if not identity.isalnum():
            identity = secrets.token_hex(16)
            file_io.write_durably(path, identity)
    return identity


@contextmanager
def placing(ports: LibraryPorts) -> Iterator[Callable[[], None]]:
    """Hold the placement lock of the data folder and of all machines that share its placements.

    Read and write a placement's state inside it, so that a placement finished by another process is
    never set back. It yields a function that raises Unavailable if the lock was lost: call it before each
    write. Raises Unavailable if the folder is not writable or the database is away.
    """
    with (
        _placement_lock_file(ports.data_dir),
        ports.catalog.database.lock(PLACING) as require,
    ):
        yield require


@contextmanager
def _placement_lock_file(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's lock file, which the system releases when the holder dies.

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
def hold_lock_file(path: Path, refusal: HevcqError) -> Iterator[None]:
    """Hold the lock file at `path`. Raises `refusal` if another process holds it, StorageError on disk errors."""
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


REMEDY = "Mount it, or correct the path or its permissions."


@dataclass(frozen=True, slots=True)
class FolderState:
    """The state of a library's folder; no video is opened. `free` is in bytes (None: unknown).

    `problem` is why nothing can be ingested, or "". `identity` changes when another disk or folder
    appears at the path, which must then be watched anew.
    """

    problem: str
    free: int | None
    file_system: str
    identity: tuple[str, int, int] = ("", 0, 0)


def folder_state(library: Library) -> FolderState:
    """Return the state of a library's folder and of the folder of its renditions."""
    problem, home = _problem(library), library.output or library.path
    try:
        free: int | None = free_disk_bytes(home)
    except OSError:
        free = None
    kind = file_system_of(library.path)
    try:
        facts = library.path.stat()
    except OSError:
        return FolderState(problem, free, kind)
    return FolderState(problem, free, kind, (kind, facts.st_dev, facts.st_ino))


def _problem(library: Library) -> str:
    path, name = library.path, printable(library.path)
    if not path.exists():
        return f"{name} is not there: is its disk mounted?"
    if not path.is_dir():
        return f"{name} is no folder."
    if not os.access(path, os.R_OK | os.X_OK):
        return f"{name} cannot be read: give this user read permission."
    home = library.output or path
    there = nearest_existing(home)
    if not os.access(there, os.W_OK | os.X_OK):
        if _read_only(there):
            return (
                f"{printable(home)} is mounted read-only here. Under systemd or Docker: add it to the"
                " unit's ReadWritePaths, or mount the folder for writing."
            )
        return f"{printable(home)} cannot be written: give this user write permission."
    return ""


def _read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def library_words(library: Library) -> str:
    """Return a library's state as `hevcq doctor` prints it. Raises StorageError if it cannot be used."""
    state = folder_state(library)
    if state.problem:
        raise StorageError(state.problem, remedy=REMEDY)
    free = "unknown" if state.free is None else size(state.free)
    return f"{printable(library.path)}: {free} free, {watch_words(state)}"


def share_words(catalog: Catalog, name: Path) -> str:
    """Return the state of a folder of the setting `paths`, as `hevcq doctor` prints it.

    Raises StorageError if it cannot be read, or holds none of the videos that are recorded in it.
    """
    here = catalog.database.paths.folders[name]
    shown, called = printable(here), printable(name)
    if not here.is_dir():
        raise StorageError(f"{shown} is not there, where {called} should be here.", remedy=REMEDY)
    if not os.access(here, os.R_OK | os.X_OK):
        raise StorageError(f"{shown} cannot be read by this user.", remedy=REMEDY)
    has_videos = holds_recorded_video(catalog.database, name)
    if has_videos is False:
        raise StorageError(
            f"{shown} has none of the videos that were last queued in {called}: it is another folder.",
            remedy="Correct the setting `paths` on this machine, or mount the right share there.",
        )
    rights = "" if os.access(here, os.W_OK) else ", read-only: nothing is put in place from here"
    return f"{called} is {shown}{', with its videos' if has_videos else ''}{rights}"


def require_one_name(catalog: Catalog) -> None:
    """Raise ConfigError if other machines record videos by a path that is a symbolic link on this one.

    Each such video would be encoded twice.
    """
    if (paths := find_linked_media_folder(catalog.database)) is not None:
        link, real = map(printable, paths)
        raise ConfigError(
            f"{link} is a link to {real} here, and other machines know videos by the link's name: each would"
            " be encoded twice.",
            remedy=f'Set `paths` on this machine: "{link}" = "{real}".',
        )


def require_shares(catalog: Catalog, paths: Iterable[Path] | None = None) -> None:
    """Check the folders of the setting `paths` that hold these paths (None: all folders).

    Raises StorageError as `share_words` does, and ConfigError as `require_one_name` does.
    """
    require_one_name(catalog)
    shares = catalog.database.paths
    used = map(shares.mapping_of, paths) if paths is not None else shares.folders.items()
    for name, _here in filter(None, used):
        share_words(catalog, name)


def watch_words(state: FolderState) -> str:
    """Return how new files in a library's folder are noticed."""
    kind = state.file_system or "unknown file system"
    if state.file_system in LOCAL:
        return f"new files are seen at once ({kind})"
    return f"new files are looked for every few minutes ({kind} reports no changes)"


def count_videos(path: Path, skip: Path) -> tuple[int, int]:
    """Return the number and the bytes of files below a folder that are videos by their names."""
    sizes = [
        each.fingerprint.size
        for each in find([path], Filter(skip=[skip]))
        if isinstance(each, FoundFile)
    ]
    return len(sizes), sum(sizes)


_TOP = "bin boot dev etc lib lib32 lib64 libx32 proc run sbin snap sys tmp usr var"
SYSTEM = frozenset(Path("/", name) for name in _TOP.split())
"""Folders of the system, which hold nobody's videos."""
DISKS = (Path("/run/media"), Path("/var/media"))
"""Where desktops mount disks inside folders of the system."""
MAX_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class SubFolder:
    """A folder in a listing; `closed` is why it can be neither opened nor chosen, or ""."""

    name: str
    path: Path
    link: bool = False
    closed: str = ""


def roots_of(configured: Sequence[str], mounts: Iterable[str] | None = None) -> list[Path]:
    """Return the folders where browsing begins: the configured ones, else home and the mounted disks."""
    if configured:
        return [Path(os.path.abspath(Path(each).expanduser())) for each in configured]  # noqa: PTH100 - links are kept
    roots = [] if Path.home() == Path("/") else [Path.home()]
    for mount in map(Path, sorted(set(_mounts() if mounts is None else mounts))):
        ours = mount != Path("/") and not _is_of_system(mount, Path("/"))
        if (ours or any(mount.is_relative_to(disk) for disk in DISKS)) and mount.is_dir():
            roots.append(mount)
    return [root for root in dict.fromkeys(roots) if not _is_hidden(root.name)]


def subfolders(folder: Path, roots: Sequence[Path], own: Path) -> list[SubFolder]:
    """Return the folders in `folder`, sorted, without hidden ones, the system's and hevcq's `own`.

    A link is listed; it is closed if it leads out of the roots.
    Raises UsageError if the folder may not be browsed or cannot be read.
    """
    require_browsable(folder, roots, own)
    listed = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if _is_hidden(entry.name) or path in SYSTEM or path == own or not _is_folder(entry):
                    continue
                listed.append(
                    SubFolder(entry.name, path, entry.is_symlink(), _why_closed(path, roots))
                )
                if len(listed) >= MAX_SHOWN:
                    break
    except OSError as error:
        raise UsageError(f"Cannot read {printable(folder)}: {reason_of(error)}.") from error
    return sorted(listed, key=lambda each: each.name.casefold())


def require_browsable(folder: Path, roots: Sequence[Path], own: Path) -> None:
    """Raise UsageError unless the folder is below a root, as named and with its links resolved."""
    root = next((each for each in roots if folder.is_relative_to(each)), None)
    real = Path(os.path.realpath(folder))
    outside = root is None or ".." in folder.parts or not _is_within(real, roots)
    if root is None or outside or _is_of_system(folder, root) or real.is_relative_to(own):
        raise UsageError(
            f"{printable(folder)} is not among the folders that this page may see.",
            remedy="The setting web.browse names them.",
        )
    if not folder.is_dir():
        raise UsageError(f"No such folder: {printable(folder)}.")


def _why_closed(path: Path, roots: Sequence[Path]) -> str:
    if not _is_within(Path(os.path.realpath(path)), roots):
        return "leads out of the folders that this page may see"
    if not os.access(path, os.R_OK | os.X_OK):
        return "cannot be read by this user"
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    return ""


def _is_within(real: Path, roots: Sequence[Path]) -> bool:
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def _is_of_system(path: Path, root: Path) -> bool:
    """Return whether a folder or a parent of it, both below `root`, is hidden or the system's."""
    below = [path, *path.parents][: len(path.parts) - len(root.parts)]
    return any(each in SYSTEM or _is_hidden(each.name) for each in below)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _mounts() -> list[str]:
    with suppress(OSError, psutil.Error):
        return [each.mountpoint for each in psutil.disk_partitions(all=True)]
    return []
