"""Admit work or hold it back, and test profiles before their first job.

Admission is asked before every receive, and by the pool for the work that runs. What it knows of the
pauses is at most `Ledger.pauses_read_every_s` seconds old. A profile is tested before its first job
with a build of ffmpeg, and its jobs wait in their queue if it fails: they would fail one after another.
A failed one is tested again once ffmpeg or the recipe is another, and now and then.

Unfinished encodes are in a locked folder per process, which is swept once that is dead:

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.profile import Profile
from hevcq.domain.schedule import Closed, Hours, Pause, RunningWork, find_closure
from hevcq.domain.verdict import FailureClass
from hevcq.errors import (
    DiskFull,
    HevcqError,
    SourceGone,
    SourceUnreadable,
    Stopped,
    Unavailable,
    WorkerUnfit,
    file_error,
)
from hevcq.ports.encoder import Encoder
from hevcq.ports.ledger import Ledger
from hevcq.util import file_io, file_lock
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger


class Admission:
    """Decide for each profile whether its work may begin now. Safe to use from any thread.

    `hours` returns the hours in force; `condition` returns a sentence while this machine forbids
    work, else "", and `out` one while it takes no new work. All must be quick. `self_tests` knows the
    profiles that ffmpeg cannot make here.
    """

    def __init__(
        self,
        pauses: Ledger,
        clock: Clock,
        hours: Callable[[], Hours] = Hours,
        condition: Callable[[], str] = lambda: "",
        self_tests: SelfTests | None = None,
        out: Callable[[], str] = lambda: "",
    ) -> None:
        self._pauses, self._clock, self._self_tests = pauses, clock, self_tests
        self._hours, self._condition, self._out = hours, condition, out
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._known: tuple[Pause, ...] = ()
        self._unread = ""
        self._reasons: dict[str, str] = {}
        self._logged: set[str] = set()

    def closed(self, profile: str, *, now: bool = False) -> Closed | None:
        """Return why no work of this profile may begin, or None; with `now` the pauses are read anew.

        A failed read leaves what was known: the receive that follows meets the same failure.
        """
        with self._lock:
            self._read(now=now)
            at, hours = self._clock.now(), self._hours()
            found = find_closure(profile, self._known, hours, at, self._condition())
            if found is None and (reason := self._out()):
                found = Closed(reason, RunningWork.BORDER)
            if found is None and self._self_tests is not None:
                found = self._self_tests.closed(profile)
            self._log_change(profile, found)
        return found

    def unfit(self, profile: str) -> str:
        """Return why ffmpeg cannot make this profile here, as far as it was tested, or ""."""
        found = None if self._self_tests is None else self._self_tests.closed(profile)
        return "" if found is None else found.reason

    def require_tested(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Let ffmpeg prove that it can make this profile, once; return why its job must wait, or None.

        Takes one to three seconds at the first job with a build of ffmpeg, and no time after a pass.
        """
        return None if self._self_tests is None else self._self_tests.require(profile, stop)

    def _read(self, *, now: bool) -> None:
        at, every = self._clock.monotonic(), self._pauses.pauses_read_every_s
        if not now and self._read_at is not None and at - self._read_at < every:
            return
        self._read_at = at
        try:
            self._known, self._unread = self._pauses.pauses(), ""
        except HevcqError as error:
            # Once an outage: it is read every few seconds.
            if str(error) != self._unread:
                get_logger().info("pauses_not_read", reason=str(error))
            self._unread = str(error)

    def _log_change(self, profile: str, found: Closed | None) -> None:
        """Log a change once, though every profile meets it: the reason names its profile."""
        before, reason = self._reasons.get(profile, ""), found.reason if found is not None else ""
        if reason == before:
            return
        self._reasons[profile] = reason
        ended = before in self._logged
        self._logged.discard(before)
        if found is not None and reason not in self._logged:
            self._logged.add(reason)
            get_logger().warning("work_paused", reason=reason, running=found.running.value)
        elif found is None and ended:
            get_logger().info("work_goes_on", was=before)


AGAIN_EVERY_S = 5.0
"""Seconds between looks whether ffmpeg or a recipe was replaced."""
RETEST_S = 120.0
"""Seconds after which a failed profile is tested again all the same: its library may have been mended."""
STOPPED = Closed("The self-test of ffmpeg was stopped.", RunningWork.BORDER)


Identity = tuple[str, str]
"""A revision of a profile, and a build of ffmpeg."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a profile cannot be made, and by which recipe and build; `at` is in monotonic seconds."""

    problem: str
    known: Identity | None
    at: float


class SelfTests:
    """What each profile's self-test said; safe to use from any thread.

    `folder` makes an empty folder for a test. `profiles` returns those in force, by name. `report` is
    called with all problems by profile whenever they change.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: Callable[[str], AbstractContextManager[Path]],
        clock: Clock,
        profiles: Callable[[], Mapping[str, Profile]],
        report: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._encoder, self._folder, self._clock = encoder, folder, clock
        self._profiles, self._report = profiles, report
        self._failures: dict[str, _Failure] = {}
        self._testing, self._never = threading.Lock(), threading.Event()

    def closed(self, profile: str) -> Closed | None:
        """Return why work of this profile waits, or None; what runs goes on to its end."""
        failed = self._failures.get(profile)
        return Closed(failed.problem, RunningWork.BORDER) if failed is not None else None

    def require(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Test a profile before a job of it begins; return why the job must wait, or None."""
        with self._testing:
            if profile.name not in self._failures and not self._test(profile, stop):
                return STOPPED
        return self.closed(profile.name)

    def look_again(self) -> None:
        """Test failed profiles again for which there is a reason."""
        known = self._profiles()
        for name, failed in list(self._failures.items()):
            profile, old = known.get(name), self._clock.monotonic() - failed.at >= RETEST_S
            if profile is not None and (old or self._identity(profile) != failed.known):
                with self._testing:
                    self._test(profile, self._never)

    def _test(self, profile: Profile, stop: threading.Event) -> bool:
        """Test a profile and note the result; return whether there is one."""
        log, problem = get_logger(profile=profile.name), ""
        known: Identity | None = self._identity(profile)
        try:
            with self._folder("self-test") as folder:
                self._encoder.self_test(profile, folder, stop=stop)
        except Stopped:
            return False
        except WorkerUnfit as error:
            problem = str(error)
        except HevcqError as error:  # such as a full disk, which may pass at any moment
            problem, known = str(error), None
        except Exception as error:
            log.exception("self_test_broke")
            problem = f"The self-test of the profile {profile.name} broke: {error!r}."
        before = self._failures.get(profile.name)
        if problem:
            self._failures[profile.name] = _Failure(problem, known, self._clock.monotonic())
        else:
            self._failures.pop(profile.name, None)
        if problem != (before.problem if before is not None else ""):
            log.warning("self_test", reason=problem or "It passes now.")
            self._report({name: each.problem for name, each in self._failures.items()})
        return True

    def _identity(self, profile: Profile) -> Identity:
        try:
            return profile.revision, self._encoder.build()
        except HevcqError as error:
            return profile.revision, str(error)


SICK_AFTER = 5
"""Different jobs that must fail in a row, in ways that do not point at their source, before the
worker stops: five such videos in a row mean a broken encoder rather than broken videos. A worker
whose encoder fails its self-test right after the first failure stops at once. If the self-test
passes, each of these failures is suspected to be the worker's and returns uncounted while its
message has receives to spare. So neither costs a job an attempt."""
SUSPECT = frozenset({FailureClass.ENCODER, FailureClass.STALLED, FailureClass.INTERNAL})
"""The failure classes that may be this machine's fault."""


class CircuitBreaker:
    """Count different jobs that failed in a row; shared by all slots of a process.

    After `sick_after` such jobs the worker counts as unfit.
    """

    def __init__(self, sick_after: int = SICK_AFTER) -> None:
        self._sick_after = sick_after
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        with self._lock:
            self._failing.clear()

    def doubtful(self, job_id: str, failure_class: FailureClass, *, first: bool) -> bool:
        """Return whether this job's failure may be the worker's fault; call it before `failed`.

        It may be if no failure of the job was suspected before (`first`): a worker that has just
        become unfit shows no other failure, so another worker tries too. Later it may be if another
        job failed here too and none succeeded in between. The caller must limit how often it acts
        on this, so that a video that always breaks the encoder still ends.
        """
        with self._lock:
            others = bool(self._failing - {job_id})
        return failure_class in SUSPECT and (first or others)

    def failed(self, job_id: str, failure_class: FailureClass) -> bool:
        """Record a failure; return whether this worker is unfit.

        Repeated failures of one job count once: they are that job's problem.
        """
        if failure_class not in SUSPECT:
            return False
        with self._lock:
            self._failing.add(job_id)
            return len(self._failing) >= self._sick_after


UNUSABLE = frozenset(
    {errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
)
"""Errors of a folder that this worker may not write, or that has no locks."""
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
    if error.errno in UNUSABLE:
        return WorkerUnfit(
            f"The scratch folder {folder} cannot be used: {error.strerror}.",
            remedy="Correct its permissions, or choose another on a local disk with scratch_dir.",
        )
    return file_error(error, "used as the scratch folder", folder)


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
