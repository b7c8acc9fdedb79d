"""Size the work to this machine: the default number of workers by cores and memory, jobs by free disk space."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""The cgroup file system with the limits of a container (https://docs.kernel.org/admin-guide/cgroup-v2.html)."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The control group of this process; outside a container, as under systemd, it is below the
root."""
CORES_PER_SLOT = 2
"""Many encodes with few threads each yield more frames per second in total than few encodes with
many threads; two threads each measured best (x265 1080p, 16 encodes of 2 threads on 32 cores: 9 %
more; streaminglearningcenter.com, "x265 and WPP"). At least two slots, so that one job's probing
and verification overlap another's encode."""
MEMORY_PER_SLOT = 2 << 30
"""Bytes of memory for one encode: libx265 medium needs about 1 GiB at 1080p and 2.5 GiB at 2160p."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The encode slots of a machine and the threads of each; `cores` may be fractional in a container."""

    cores: float
    slots: int
    threads: int


def capacity(
    workers: int = 0, *, cores: float | None = None, memory: int | None = None
) -> Capacity:
    """Return the slots of the setting `workers`, by default as many as `cores` and `memory` (bytes) allow."""
    cores = usable_cores() if cores is None else cores
    memory = usable_memory() if memory is None else memory
    whole = max(1, int(cores))
    slots = workers or default_workers(whole, memory)
    return Capacity(cores=cores, slots=slots, threads=max(1, whole // slots))


def default_workers(cores: int, memory: int) -> int:
    """Return how many encodes run at a time where the setting `workers` is 0; `memory` is in bytes."""
    by_cores = min(cores, max(2, cores // CORES_PER_SLOT))
    return max(1, min(by_cores, memory // MEMORY_PER_SLOT))


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


def nearest_existing(path: Path) -> Path:
    """Return the path itself if it exists, else its nearest parent that does."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_disk_bytes(path: Path) -> int:
    """Return the free bytes of the disk that holds `path`, which need not exist yet. Raises OSError."""
    return shutil.disk_usage(nearest_existing(path)).free


def disk_shortage(free: Mapping[str, int], least_bytes: int) -> str:
    """Return a sentence that names a disk low on space, or "" if every disk has enough.

    `free` maps the name of each disk to its free bytes; `least_bytes` must stay free on each.
    """
    for name, count in free.items():
        if count < least_bytes:
            return f"Low disk space: the {name} has less than {least_bytes >> 20} MiB free."
    return ""


def max_source_bytes(free: int, *, keep: int, slots: int, copied: bool) -> int:
    """Return the largest source in bytes for which every slot has room at the same time.

    A slot stores a rendition, usually no larger than its source, and the source too if it is
    `copied` to this machine. Of the `free` bytes on the disk, `keep` bytes stay free.
    """
    return max(0, free - keep) // (slots * (2 if copied else 1))


def _groups(cgroup: Path, membership: Path) -> Iterator[Path]:
    """Yield this process's control group and its ancestors: the limits of all of them apply."""
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
