"""Size the work to this machine: encode slots by cores and memory, jobs by free disk space.

Also what its kernel is asked: what it killed for want of memory, and to close this process to others of
the same user, who could read its keys in /proc. The sandbox of child processes uses the same calls
(`prctl` and raw system calls).
"""

import ctypes
import os
import re
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""The cgroup file system with the limits of a container (https://docs.kernel.org/admin-guide/cgroup-v2.html)."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The control group of this process; outside a container, as under systemd, it is below the
root."""
VMSTAT = Path("/proc/vmstat")
"""Counters of the kernel; its `oom_kill` also counts those within control groups, since Linux 4.13."""
CORES_PER_SLOT = 2
"""Many encodes with few threads each yield more frames per second in total than few encodes with
many threads; two threads each measured best (x265 1080p, 16 encodes of 2 threads on 32 cores: 9 %
more; streaminglearningcenter.com, "x265 and WPP"). At least two slots, so that one job's probing
and verification overlap another's encode."""
MEMORY_PER_SLOT = 2 << 30
"""Bytes of memory for one encode: libx265 medium needs about 1 GiB at 1080p and 2.5 GiB at 2160p."""
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


@dataclass(frozen=True, slots=True)
class Capacity:
    """The encode slots of a machine and the threads of each; `cores` may be fractional in a container."""

    cores: float
    slots: int
    threads: int


def capacity(wanted: int = 0, *, cores: float | None = None, memory: int | None = None) -> Capacity:
    """Return the encode slots: `wanted`, or if 0 as many as `cores` and `memory` (bytes) allow."""
    have = cores if cores is not None else usable_cores()
    whole = max(1, int(have))
    slots = wanted
    if slots == 0:
        room = (memory if memory is not None else usable_memory()) // MEMORY_PER_SLOT
        slots = max(1, min(max(2, whole // CORES_PER_SLOT), whole, room))
    return Capacity(cores=have, slots=slots, threads=max(1, whole // slots))


def usable_cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> float:
    """Return the cores this process may use: its CPU affinity, limited by its cgroup quotas."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 0.0
    cores = cores or float(os.cpu_count() or 1)
    for group in _groups(cgroup, membership):
        words = _words(group / "cpu.max")
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            cores = min(cores, int(words[0]) / int(words[1]))
    return cores


def usable_memory(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Return the memory of this machine in bytes, limited by its cgroup limits."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for group in _groups(cgroup, membership):
        words = _words(group / "memory.max")
        if words and words[0].isdigit():
            memory = min(memory, int(words[0]))
    return memory


def existing(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_beside(path: Path) -> int:
    """Return the free bytes on the disk of `path`, or of its nearest existing parent.

    Raises OSError.
    """
    return shutil.disk_usage(existing(path)).free


def disk_shortage(free: Mapping[str, int], least_bytes: int) -> str:
    """Return a sentence that names a disk low on space, or "" if every disk has enough.

    `free` maps the name of each disk to its free bytes; `least_bytes` must stay free on each.
    """
    for name, count in free.items():
        if count < least_bytes:
            return f"Low disk space: the {name} has less than {least_bytes >> 20} MiB free."
    return ""


def source_room(free: int, *, keep: int, slots: int, copied: bool) -> int:
    """Return the largest source size in bytes that fits in every slot at once.

    A slot stores a rendition, usually no larger than its source, and the source too if it is
    `copied` to this machine. Of the `free` bytes, `keep` bytes stay free.
    """
    return max(0, free - keep) // (slots * (2 if copied else 1))


def _groups(cgroup: Path, membership: Path) -> Iterator[Path]:
    """Yield this process's control group and its ancestors, since the limits of each apply."""
    yield cgroup
    paths = [word[3:] for word in _words(membership) if word.startswith("0::/")]
    names = paths[0].strip("/").split("/") if paths else []
    if ".." not in names:  # a group outside the container is not visible
        for depth in range(1, len(names) + 1):
            yield cgroup.joinpath(*names[:depth])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def oom_kills() -> int | None:
    """Return how many processes the kernel killed for want of memory since it started, None if unknown."""
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
    """Call prctl, filled up with zeros; raise OSError if it fails, unless `check` is false."""
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
    """Let programs that this thread starts have no capability of root's but the needed ones.

    Does nothing for other users: they have none. Raises nothing where root itself may not.
    """
    if os.geteuid() == 0:
        for capability in CAPABILITIES:
            if capability not in needed:
                prctl(DROP_CAPABILITY, capability, check=False)


def close_to_others(variables: MutableMapping[str, str]) -> None:
    """Keep other processes of this user from reading this one's memory and environment.

    Clears the kernel's "dumpable" flag: /proc/<pid>/environ, mem, fd, root and cwd are then root's,
    ptrace is refused, and a crash leaves no core dump with keys in it. Root may still look; so the
    values of `variables`, the environment, that may be secret are overwritten where /proc shows them. This
    process itself still sees them. Does nothing where the system is not Linux.
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


def is_closed() -> bool:
    """Whether other processes of this user may not look into this one."""
    try:
        return prctl(GET_DUMPABLE, check=False) != 1
    except AttributeError:
        return False
