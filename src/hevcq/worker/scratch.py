"""The scratch folder: a locked folder of unfinished encodes per process, swept once that is dead.

    <scratch>/hevcq-<pid>-<n>.lock   held (flock) by its process as long as that lives
    <scratch>/hevcq-<pid>-<n>/       its jobs' folders

The kernel releases the lock however the process ends, so a folder whose lock can be acquired
belongs to a dead process, even among containers that share process ids.
"""

import contextlib
import errno
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.errors import (
    DiskFull,
    HevcqError,
    SourceGone,
    SourceUnreadable,
    Unavailable,
    WorkerUnfit,
    is_full,
)
from hevcq.util import file_io, file_lock
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger

_LOCK_NAME = re.compile(r"hevcq-\d+-\d+\.lock")


class Scratch:
    """This process's folder in the scratch folder; created on first use, removed by `close`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._opening = threading.Lock()
        self._numbers = itertools.count(1)
        self._lock: int | None = None
        self._mine: Path | None = None

    @property
    def folder(self) -> Path:
        return self._folder

    @contextmanager
    def job(self, name: str) -> Iterator[Path]:
        """Create an empty folder for one job; remove it with all its content afterwards.

        Raises DiskFull, Unavailable, or WorkerUnfit if this worker can never write there.
        """
        with _translated(self._folder):
            # A unique name: a slot that lost its lease may still be ending its encode of this job
            # while another begins it, and neither may touch the other's files.
            folder = self._own() / f"{name}-{next(self._numbers)}"
            folder.mkdir()
        try:
            yield folder
        finally:
            _remove(folder)

    @contextmanager
    def spare(self, name: str, least: int) -> Iterator[Path]:
        """Create an empty folder as `job` does. Raises DiskFull unless `least` bytes are free."""
        if self.free_bytes() < least:
            raise DiskFull(
                f"The scratch folder {self._folder} has less than {least >> 20} MiB free.",
                remedy="Free some, or set `scratch` to a folder on another disk.",
            )
        with self.job(name) as folder:
            yield folder

    def sweep(self) -> int:
        """Remove the folders of dead processes; return their number.

        Raises DiskFull, Unavailable or WorkerUnfit.
        """
        removed = 0
        if not self._folder.is_dir():
            return 0
        began = self._clock.monotonic()
        with _translated(self._folder):
            for lock in sorted(self._folder.iterdir()):
                if _LOCK_NAME.fullmatch(lock.name) and self._swept(lock):
                    removed += 1
        if removed:
            seconds = round(self._clock.monotonic() - began, 3)
            get_logger().info("scratch_swept", folders=removed, seconds=seconds)
        return removed

    def free_bytes(self) -> int:
        """Return the free bytes of the scratch folder's file system.

        Raises DiskFull, Unavailable or WorkerUnfit.
        """
        with _translated(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return shutil.disk_usage(self._folder).free

    def total_bytes(self) -> int:
        """Return the size of the scratch folder's file system in bytes; raises like `free_bytes`."""
        with _translated(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return shutil.disk_usage(self._folder).total

    def close(self) -> None:
        """Remove this process's folder and release its lock; idempotent."""
        with self._opening:
            lock, mine = self._lock, self._mine
            self._lock = self._mine = None
        if lock is None or mine is None:
            return
        _remove(mine)
        # Unlink while the lock is held: a sweep that opened the file meanwhile sees that it is gone.
        mine.with_name(f"{mine.name}.lock").unlink(missing_ok=True)
        os.close(lock)

    def _own(self) -> Path:
        with self._opening:
            if self._mine is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock, self._mine = self._locked_folder()
            return self._mine

    def _locked_folder(self) -> tuple[int, Path]:
        number = 0
        while True:
            number += 1
            path = self._folder / f"hevcq-{os.getpid()}-{number}.lock"
            try:
                lock = file_lock.try_acquire(path, new=True)
            except FileExistsError:
                continue
            if lock is None:
                continue  # A sweep locked the file between its creation and this lock.
            mine = path.with_suffix("")
            mine.mkdir(exist_ok=True)
            return lock, mine

    def _swept(self, path: Path) -> bool:
        lock = file_lock.take_over(path)
        if lock is None:
            return False
        try:
            # The lock file goes last: the next sweep continues one that is killed here.
            _remove(path.with_suffix(""))
            path.unlink(missing_ok=True)
            return True
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder; log what cannot be removed and leave it to the next sweep."""
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            get_logger().warning("scratch_not_removed", folder=str(folder), reason=str(error))


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _named(folder, error) from error


def _named(folder: Path, error: OSError) -> HevcqError:
    why = error.strerror or str(error)
    if is_full(error):
        return DiskFull(f"The scratch folder {folder} is full.", remedy="Free some space there.")
    if error.errno in {errno.ENOLCK, errno.EOPNOTSUPP}:
        return WorkerUnfit(
            f"The scratch folder {folder} has no file locks: {why}.",
            remedy="Choose a local folder with scratch_dir.",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
        return WorkerUnfit(
            f"The scratch folder {folder} cannot be written: {why}.",
            remedy="Correct its permissions, or choose another with scratch_dir.",
        )
    return Unavailable(f"The scratch folder {folder} cannot be used: {why}.")


def sha256_file(
    path: Path, check: Callable[[], None], *, missing: type[HevcqError] = SourceGone
) -> str:
    """Return the hexadecimal SHA-256 of a file.

    `check` is called for every MiB and may raise. Raises `missing` if there is no such file,
    SourceUnreadable if permissions forbid reading, and Unavailable for errors that may pass (a
    network drive).
    """
    try:
        return file_io.sha256_file(path, check)
    except FileNotFoundError as error:
        raise missing(f"{path} no longer exists.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except OSError as error:
        raise Unavailable(f"{path} could not be read: {error.strerror or error}.") from error
