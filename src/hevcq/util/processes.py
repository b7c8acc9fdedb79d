"""The processes of a data folder: each writes a row of facts into a file that it keeps locked.

A process id proves nothing: ids are reused and differ between containers. A lock held through an
open file ends exactly when its process does, however it ended.

A process that died while another one lived, or while memory ran out, may have been killed by its job.
One that ended with all others (kill -9 of the whole program, a restart of the machine) was not.

Also calls to the kernel about processes: did it kill some because memory ran out; let no other process
of this user read this one's keys; and those of the sandbox.
"""

import ctypes
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from hevcq.util import file_lock
from hevcq.util.clock import Clock

VMSTAT = Path("/proc/vmstat")
"""Counters of the kernel; its `oom_kill` also counts those within control groups, since Linux 4.13."""
FOLDER = "processes"
"""The folder of the rows in a data folder."""
OWNER = re.compile(r"[0-9a-f]{16}(?![0-9a-f])")
"""An owner name starts with 16 hexadecimal digits; callers may append `:<slot>` or the like."""
SET_DUMPABLE, GET_DUMPABLE = 4, 3
SET_SECCOMP = 22
NO_NEW_PRIVILEGES = 38
DROP_CAPABILITY = 24
CAPABILITIES = range(41)
"""Numbers of prctl's options (man 2 prctl)."""
_SECRET = re.compile(
    r"^AWS_|SECRET|TOKEN|PASSW|CREDENTIAL|_KEY|^HEVCQ_(POSTGRES|NOTIFY|WEBHOOK|MEDIA_SERVER)",
    re.IGNORECASE,
)
"""Names of environment variables whose values may be secret."""
SUFFIX = ".alive"
REAP_INTERVAL_S = 0.5
"""Seconds between checks of the others: a death is noticed within this plus one poll interval."""
MAX_READS = 3
"""Attempts to read a row, which its process may be writing."""
Row = Mapping[str, Any]


class Processes:
    """Hold this process's row and check the others'. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        interval_s: float = REAP_INTERVAL_S,
        shared: bool = False,
    ) -> None:
        """Write the row. Raises OSError.

        With `shared`, several machines may use the folder. Then a lock proves nothing about another
        machine's process, because many network file systems do not share locks.
        """
        self._folder, self._clock, self._interval_s = folder, clock, interval_s
        self._shared = shared
        self._next_reap = 0.0
        self._reaping, self._writing = threading.Lock(), threading.Lock()
        self._seen_alive: set[str] = set()
        self.owner = secrets.token_hex(8)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor: int | None = file_lock.acquire(self._path(self.owner))
        self._row: dict[str, Any] = {}
        self._length = 0
        self.tell(node=node(), pid=os.getpid(), boot=clock.boot(), oom_kills=oom_kills() or 0)
        self._here_before = set(self._owners())

    def tell(self, **facts: object) -> None:
        """Add facts to this process's row, or replace those of the same names.

        If the row cannot be written, others see it grow old.
        """
        with self._writing:
            if self._descriptor is None or facts.items() <= self._row.items():
                return
            self._row |= facts
            content = json.dumps(self._row).encode().ljust(self._length)
            self._length = len(content)
            with suppress(OSError):
                os.pwrite(self._descriptor, content, 0)

    def close(self, *, forget: bool = False) -> None:
        """Release the lock; others may then free everything that this process still holds.

        `forget` also removes the row; only for a process that holds no delivery, lease or version.
        """
        with self._writing:
            if self._descriptor is not None:
                if forget:
                    self._path(self.owner).unlink(missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = None

    def is_dead(self, owner: str) -> bool:
        """Return whether the owner has certainly ended; False for an unknown name.

        The row of a dead owner stays until `reap` has freed what it held. So a missing row means
        "freed already, or never one of ours", and the lease's own deadline decides.
        """
        match = OWNER.match(owner)
        if match is None or match.group() == self.owner or self._is_elsewhere(match.group()):
            return False
        try:
            return not file_lock.is_locked(self._path(match.group()))
        except OSError:
            return False

    def _is_elsewhere(self, owner: str) -> bool:
        row = read_row(self._path(owner)) if self._shared else {}
        return bool(row) and row.get("boot") != self._clock.boot() and row.get("node") != node()

    def dead_owners(self) -> list[str]:
        """Return the owners that have a row whose lock is free."""
        owners = self._owners()
        dead = [owner for owner in owners if self.is_dead(owner)]
        self._seen_alive.update(set(owners) - set(dead) - {self.owner})
        return dead

    def reap(self, free: Callable[[str, bool], None], *, now: bool = False) -> None:
        """Call `free` for each dead owner, then remove its row; at most every `interval_s` unless `now`.

        The second argument of `free` is whether the owner died alone, so that a job may have killed it.
        If this process dies in between, another one frees the owner again.
        """
        if not now and self._clock.monotonic() < self._next_reap:
            return
        if not self._reaping.acquire(blocking=now):
            return
        try:
            self._next_reap = self._clock.monotonic() + self._interval_s
            for owner in self.dead_owners():
                free(owner, self._died_alone(owner))
                self._seen_alive.discard(owner)
                self._path(owner).unlink(missing_ok=True)
        finally:
            self._reaping.release()

    def _died_alone(self, owner: str) -> bool:
        """Return whether this process outlived the owner, or memory ran out meanwhile.

        It outlived every owner that came after it, even between two checks, and every one it saw alive.
        """
        if owner not in self._here_before or owner in self._seen_alive:
            return True
        row, boot = read_row(self._path(owner)), self._clock.boot()
        is_same_boot = "boot" in row and row["boot"] == boot
        return is_same_boot and (oom_kills() or 0) > row["oom_kills"]

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner}{SUFFIX}"

    def _owners(self) -> list[str]:
        return [path.stem for path in self._folder.glob(f"*{SUFFIX}")]


def process_rows(data_dir: Path) -> Iterator[Row]:
    """Yield the rows of the processes that live."""
    for path in (data_dir / FOLDER).glob(f"*{SUFFIX}"):
        try:
            if file_lock.is_locked(path):
                yield read_row(path)
        except OSError:
            continue  # its process has just ended


def read_row(path: Path) -> Row:
    """Return the row in a file, empty if it cannot be read."""
    for _ in range(MAX_READS):
        try:
            row = json.loads(path.read_bytes())
        except OSError:
            break
        except ValueError:
            continue
        return row if isinstance(row, dict) else {}
    return {}


def node() -> str:
    return os.uname().nodename


def oom_kills() -> int | None:
    """Return how many processes the kernel has killed since its start because memory ran out, if it tells."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    words = next((line.split() for line in lines if line.startswith("oom_kill ")), [])
    return int(words[1]) if len(words) == 2 and words[1].isdigit() else None


@lru_cache(maxsize=1)
def libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    library.getenv.restype = ctypes.c_void_p
    return library


def prctl(option: int, *arguments: object, check: bool = True) -> int:
    """Call prctl with unused arguments 0; raise OSError if it fails, unless `check` is false."""
    words = [
        ctypes.c_ulong(word) if isinstance(word, int) else word
        for word in (*arguments, 0, 0, 0, 0)[:4]
    ]
    done = int(libc().prctl(ctypes.c_int(option), *words))
    if done < 0 and check:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return done


def drop_capabilities(needed: frozenset[int]) -> None:
    """Take root's capabilities from programs that this thread starts, except the needed ones.

    Does nothing for other users, who have none, and raises nothing where root itself may not drop one.
    """
    if os.geteuid() == 0:
        for capability in CAPABILITIES:
            if capability not in needed:
                prctl(DROP_CAPABILITY, capability, check=False)


def block_inspection(variables: MutableMapping[str, str]) -> None:
    """Keep other processes of this user from reading this one's memory and environment.

    Clears the kernel's "dumpable" flag: /proc/<pid>/environ, mem, fd, root and cwd then belong to root,
    ptrace is refused, and a crash leaves no core dump with keys in it. Root can still read them, so
    those values of `variables`, the environment, that may be secret are overwritten where /proc shows
    them; this process still has them. Does nothing on a system other than Linux.
    """
    try:
        prctl(SET_DUMPABLE, 0)
    except (OSError, AttributeError):
        return
    for name, value in list(variables.items()):
        shown = libc().getenv(os.fsencode(name)) if _SECRET.search(name) and value else None
        if shown:
            variables[name] = value  # moves it to fresh memory
            if libc().getenv(os.fsencode(name)) != shown:
                ctypes.memset(shown, 0, len(os.fsencode(value)))


def is_inspection_blocked() -> bool:
    """Return whether other processes of this user cannot read this one's memory and environment."""
    try:
        return prctl(GET_DUMPABLE, check=False) != 1
    except AttributeError:
        return False
