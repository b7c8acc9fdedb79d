"""Lock a library root during a swap, and a job during its placement.

The locks are `flock` locks on files below `<root>/.hevcq`. They exclude two processes on one library
and two threads of one process; the kernel drops them when the holder dies, even by kill -9. Not every
share carries them to other machines, so whoever holds one also holds a lock of the `FileSystem`.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hevcq.errors import SwapRefused, Unavailable
from hevcq.library.certificates import RECORDS, own_folder
from hevcq.library.filesystem import FileSystem
from hevcq.util import file_lock
from hevcq.util.file_io import fsync_folder
from hevcq.util.file_lock import LocksUnsupported
from hevcq.util.text import printable

BUSY = "busy"
IN_USE = "in-use"
LOCK = "lock"
MAX_NAME = 4096
SWAPS = "swap"
"""One lock for all libraries of a house: a library has other paths on other machines."""


def require_own_folders(root: Path) -> None:
    """Raise SwapRefused if `<root>/.hevcq`, or a folder of records in it, is a symbolic link.

    A library may come with a download: whoever made the link would choose what is written where.
    """
    own = own_folder(root)
    for path in (own, *(own / name for name in RECORDS)):
        if path.is_symlink():
            raise SwapRefused(
                f"{printable(path)} is a symbolic link; hevcq keeps its records only in folders of the"
                " library itself.",
                remedy="Remove the link, or put the folder itself in its place.",
            )


def has_records(root: Path) -> bool:
    """Return whether `<root>/.hevcq` holds more than lock files, or is a link. Raises OSError.

    Looking for records where there are none must not leave a lock file behind.
    """
    own = own_folder(root)
    try:
        names = os.listdir(own)  # noqa: PTH208 - names only
    except (FileNotFoundError, NotADirectoryError):
        return False
    return own.is_symlink() or not {IN_USE, LOCK}.issuperset(names)


@contextmanager
def root_lock(root: Path, fs: FileSystem) -> Iterator[None]:
    """Hold the swap lock of a root; wait while another holder has it.

    Raises SwapRefused if the root cannot be written, its file system has no locks, or its own
    folders are links.
    """
    require_own_folders(root)
    folder = own_folder(root)
    try:
        folder.mkdir(exist_ok=True)
        descriptor = file_lock.acquire(folder / LOCK)
    except LocksUnsupported as error:
        raise _no_locks(folder, error) from error
    except OSError as error:
        raise SwapRefused(
            f"Files in {printable(root)} cannot be replaced: {printable(folder)} cannot be written"
            f" ({error.strerror}).",
            remedy="Give this user write permission there, or use `hevcq ingest --output`.",
        ) from error
    try:
        with fs.lock(SWAPS):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def in_use(homes: Iterable[Path], user: str, where: str) -> Iterator[None]:
    """Hold libraries for one data folder: `user` is its identity, `where` names it to people.

    Processes of one data folder share a library; of two data folders each would encode the same
    videos, and meet when they put them in place. Libraries above a given one are held too. Raises
    Unavailable if another data folder's hevcq holds one. Where no lock can be made nothing is held.
    """
    with ExitStack() as stack:
        for home in homes:
            above = [folder for folder in home.parents if own_folder(folder).is_dir()]
            for folder in (home, *above):
                descriptor = _hold(folder, f"{user} {where}".encode()[:MAX_NAME])
                if descriptor is not None:
                    stack.callback(_stop_sharing, folder, descriptor)
        yield


def _stop_sharing(root: Path, descriptor: int) -> None:
    file_lock.unshare(descriptor, own_folder(root) / IN_USE)
    with suppress(OSError):
        own_folder(root).rmdir()  # only if nothing else was written


def _hold(root: Path, user: bytes) -> int | None:
    """Share the lock of a library's use; return None if there can be none."""
    path = own_folder(root) / IN_USE
    try:
        if own_folder(root).is_symlink():
            return None
        own_folder(root).mkdir(exist_ok=True)
        descriptor = file_lock.share(path, user)
        if descriptor is not None:
            return descriptor
        _, _, where = path.read_bytes()[:MAX_NAME].decode(errors="replace").partition(" ")
    except OSError:
        return None
    raise Unavailable(
        f"Another hevcq is working in {printable(root)}, with another data folder"
        f" ({printable(where)}).",
        remedy="Wait until it has finished, or use its data folder (--data-dir).",
    )


@contextmanager
def job_lock(root: Path, job_id: str, note: bytes, fs: FileSystem) -> Iterator[Callable[[], None]]:
    """Hold the placement lock of one job below `root`; `note` names what a later sweep is to remove.

    Yield a function that removes the lock file `<root>/.hevcq/busy/<job id>` with the note; call it
    when nothing is left to sweep. Raises Unavailable if another holder is alive, SwapRefused if
    the file system has no locks or the root's own folders are links.
    """
    require_own_folders(root)
    path = own_folder(root) / BUSY / job_id
    descriptor = _own(path)
    busy = Unavailable(f"Waiting: another hevcq is writing to the library {printable(root)}.")
    if descriptor is None:
        raise busy
    try:
        with fs.lock(f"job {job_id}", busy):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, note)
            os.fsync(descriptor)
            # Before the files that the note lists, or a power cut could orphan them.
            for folder in (path.parent, path.parent.parent, root):
                fsync_folder(folder)
            yield functools.partial(path.unlink, missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def stale_job_lock(root: Path, job_id: str, fs: FileSystem) -> Iterator[bytes | None]:
    """Take over a dead holder's lock and yield its note; remove the lock file afterwards.

    Yield None if the holder is alive or left no note.
    """
    path = own_folder(root) / BUSY / job_id
    descriptor = _own(path) if path.exists() else None
    if descriptor is None:
        yield None
        return
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(fs.lock(f"job {job_id}", Unavailable("held")))
            except Unavailable:
                note = None  # another machine holds it, or the database is away
            else:
                note = os.pread(descriptor, 1 << 16, 0)
            yield note
            if note is not None:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def noted_jobs(root: Path) -> list[str]:
    """Return the ids of jobs with a lock file below `root`, whether or not the holder is alive.

    Anything but a regular file is not ours and is ignored.
    """
    folder = own_folder(root) / BUSY
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if entry.is_file(follow_symlinks=False))


def _own(path: Path) -> int | None:
    """Open and lock the file at `path`; return None if another holder has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return file_lock.try_acquire(path)
    except LocksUnsupported as error:
        raise _no_locks(path, error) from error


def _no_locks(path: Path, error: OSError) -> SwapRefused:
    return SwapRefused(
        f"The file system of {printable(path)} does not support locks ({error.strerror}), so two"
        " hevcq processes could work on one file.",
        remedy="Mount it with lock support, or use --output.",
    )
