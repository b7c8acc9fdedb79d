"""Admit work or hold it back; keep the scratch folder.

Slots ask the admission before every receive, and the pool asks it about running work. Its pauses are
at most `Ledger.pauses_read_every_s` seconds old.

Each process keeps unfinished encodes in a locked folder of its own, which others sweep after its death:

    <scratch>/hevcq-<pid>-<n>.lock   held (flock) by its process as long as that lives
    <scratch>/hevcq-<pid>-<n>/       its jobs' folders

The kernel releases the lock however the process ends, so a folder whose lock can be acquired
belongs to a dead process, even among containers that share process ids.
"""

from __future__ import annotations

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

from hevcq.domain.profile import Profile
from hevcq.domain.schedule import Closed, Hours, Pause, RunningWork, find_closure
from hevcq.errors import (
    DiskFull,
    HevcqError,
    SourceGone,
    SourceUnreadable,
    Unavailable,
    WorkerUnfit,
    file_error,
)
from hevcq.ports.ledger import Ledger
from hevcq.util import file_io, file_lock
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.out_of_service import SelfTests


class Admission:
    """Decide for each profile whether its work may begin now. Safe to use from any thread.

    `hours` returns the hours in force. `condition` returns why this machine forbids work now, and
    `withdrawn` why it takes no new work; both return "" if nothing does. All three must be quick.
    `self_tests` knows the profiles that ffmpeg cannot make here.
    """

    def __init__(
        self,
        pauses: Ledger,
        clock: Clock,
        hours: Callable[[], Hours] = Hours,
        condition: Callable[[], str] = lambda: "",
        self_tests: SelfTests | None = None,
        withdrawn: Callable[[], str] = lambda: "",
    ) -> None:
        self._pauses, self._clock, self._self_tests = pauses, clock, self_tests
        self._hours, self._condition, self._withdrawn = hours, condition, withdrawn
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._last_pauses: tuple[Pause, ...] = ()
        self._read_problem = ""
        self._reasons: dict[str, str] = {}
        self._logged: set[str] = set()

    def why_closed(self, profile: str, *, now: bool = False) -> Closed | None:
        """Return why no work of this profile may begin, or None; `now` reads the pauses again first.

        If that fails, the last known pauses stay in force: the next receive meets the same failure.
        """
        with self._lock:
            self._read_pauses(now=now)
            at, hours = self._clock.now(), self._hours()
            reason = find_closure(profile, self._last_pauses, hours, at, self._condition())
            if reason is None and (sentence := self._withdrawn()):
                reason = Closed(sentence, RunningWork.BORDER)
            if reason is None and self._self_tests is not None:
                reason = self._self_tests.why_closed(profile)
            self._log_change(profile, reason)
        return reason

    def why_unfit(self, profile: str) -> str:
        """Return why ffmpeg failed this profile's self-test, or "" if it passed or was not tested."""
        failure = None if self._self_tests is None else self._self_tests.why_closed(profile)
        return "" if failure is None else failure.reason

    def require_tested(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Run this profile's self-test unless it passed before; return why its job must wait, or None.

        Takes one to three seconds at the first job with a build of ffmpeg, and no time after a pass.
        """
        return None if self._self_tests is None else self._self_tests.require(profile, stop)

    def _read_pauses(self, *, now: bool) -> None:
        at, every_s = self._clock.monotonic(), self._pauses.pauses_read_every_s
        if not now and self._read_at is not None and at - self._read_at < every_s:
            return
        self._read_at = at
        try:
            self._last_pauses, self._read_problem = self._pauses.pauses(), ""
        except HevcqError as error:
            # Logged once per outage, although the pauses are read every few seconds.
            if str(error) != self._read_problem:
                get_logger().info("pauses_not_read", reason=str(error))
            self._read_problem = str(error)

    def _log_change(self, profile: str, closed: Closed | None) -> None:
        """Log each reason once when it begins and ends, even if it holds back several profiles."""
        before, reason = self._reasons.get(profile, ""), closed.reason if closed is not None else ""
        if reason == before:
            return
        self._reasons[profile] = reason
        was_logged = before in self._logged
        self._logged.discard(before)
        if closed is not None and reason not in self._logged:
            self._logged.add(reason)
            get_logger().warning("work_paused", reason=reason, running=closed.running.value)
        elif closed is None and was_logged:
            get_logger().info("work_goes_on", was=before)


UNUSABLE = frozenset(
    {errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
)
"""Error numbers of a folder that this worker may not write to, or that supports no locks."""
_LOCK_NAME = re.compile(r"hevcq-\d+-\d+\.lock")


class Scratch:
    """This process's folder in the scratch folder; created on first use, removed by `close`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._opening = threading.Lock()
        self._numbers = itertools.count(1)
        self._lock: int | None = None
        self._own_folder: Path | None = None

    @property
    def folder(self) -> Path:
        return self._folder

    @contextmanager
    def job(self, name: str, *, min_free_bytes: int = 0) -> Iterator[Path]:
        """Create an empty folder for one job; remove it with all its content afterwards.

        Raises DiskFull (also if fewer than `min_free_bytes` are free), Unavailable, or WorkerUnfit if
        this worker can never write there.
        """
        if min_free_bytes and self.free_bytes() < min_free_bytes:
            raise DiskFull(
                f"The scratch folder {self._folder} has less than {min_free_bytes >> 20} MiB free.",
                remedy="Free some, or set scratch_dir to a folder on another disk.",
            )
        with _scratch_errors(self._folder):
            # A unique name: a slot that lost its lease may still be ending its encode of this job
            # while another begins it, and neither may touch the other's files.
            folder = self._open_own_folder() / f"{name}-{next(self._numbers)}"
            folder.mkdir()
        try:
            yield folder
        finally:
            _remove(folder)

    def sweep(self) -> int:
        """Remove the folders of dead processes; return their number.

        Raises DiskFull, Unavailable or WorkerUnfit.
        """
        removed = 0
        if not self._folder.is_dir():
            return 0
        began = self._clock.monotonic()
        with _scratch_errors(self._folder):
            for lock in sorted(self._folder.iterdir()):
                if _LOCK_NAME.fullmatch(lock.name) and self._sweep_if_dead(lock):
                    removed += 1
        if removed:
            seconds = round(self._clock.monotonic() - began, 3)
            get_logger().info("scratch_swept", folders=removed, seconds=seconds)
        return removed

    def free_bytes(self) -> int:
        """Return the free bytes of the scratch folder's disk. Raises DiskFull, Unavailable or WorkerUnfit."""
        return self._disk_usage()[2]

    def total_bytes(self) -> int:
        """Return the size of the scratch folder's disk in bytes; raises like `free_bytes`."""
        return self._disk_usage()[0]

    def _disk_usage(self) -> tuple[int, int, int]:
        with _scratch_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return shutil.disk_usage(self._folder)

    def close(self) -> None:
        """Remove this process's folder and release its lock; idempotent."""
        with self._opening:
            lock, own_folder = self._lock, self._own_folder
            self._lock = self._own_folder = None
        if lock is None or own_folder is None:
            return
        _remove(own_folder)
        # Unlink while the lock is held: a sweep that opened the file meanwhile sees that it is gone.
        own_folder.with_name(f"{own_folder.name}.lock").unlink(missing_ok=True)
        os.close(lock)

    def _open_own_folder(self) -> Path:
        with self._opening:
            if self._own_folder is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock, self._own_folder = self._create_locked_folder()
            return self._own_folder

    def _create_locked_folder(self) -> tuple[int, Path]:
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
            own_folder = path.with_suffix("")
            own_folder.mkdir(exist_ok=True)
            return lock, own_folder

    def _sweep_if_dead(self, path: Path) -> bool:
        lock = file_lock.take_over(path)
        if lock is None:
            return False
        try:
            # The lock file goes last, so that the next sweep continues if this one is killed.
            _remove(path.with_suffix(""))
            path.unlink(missing_ok=True)
            return True
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder; log a failure, and leave the rest to the next sweep."""
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            get_logger().warning("scratch_not_removed", folder=str(folder), reason=str(error))


@contextmanager
def _scratch_errors(folder: Path) -> Iterator[None]:
    """Translate OSError: WorkerUnfit if this worker can never write in the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in UNUSABLE:
            raise WorkerUnfit(
                f"The scratch folder {folder} cannot be used: {error.strerror}.",
                remedy="Correct its permissions, or choose another on a local disk with scratch_dir.",
            ) from error
        raise file_error(error, "used as the scratch folder", folder) from error


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
