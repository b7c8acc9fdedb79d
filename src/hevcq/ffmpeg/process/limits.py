"""Limit the resources of a child process from outside."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.profile import Bounds
from hevcq.ffmpeg.process.sandbox import NOTHING, Access

OPEN_FILES = 256
"""Descriptors that a child may have; ffmpeg needs about ten."""
MORE_THREADS = 4096
"""Threads and processes that there may be besides those of the whole system when a child starts.

The kernel counts all of the user's, so a number of its own would stop ffmpeg on a busy desktop.
Does not bind root."""


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """The resource limits of a child; None means no limit.

    `nice` is added niceness (0 to 19), `memory_mib` the address space, `output_bytes` the largest
    file it may write (SIGXFSZ above it), `cpu_s` its CPU seconds (SIGXCPU above it), `idle_s` the
    seconds it may run without using any (see `output.ChildWatchdog`), `access` what it may read,
    write and connect to.
    """

    nice: int = 0
    memory_mib: int | None = None
    output_bytes: int | None = None
    cpu_s: int | None = None
    idle_s: float | None = None
    access: Access = NOTHING

    def apply(self, pid: int) -> None:
        """Set the limits from outside: code between fork and exec is unsafe in a threaded process."""
        mib = self.memory_mib * 2**20 if self.memory_mib is not None else None
        wanted = (
            (resource.RLIMIT_AS, mib, 0),
            (resource.RLIMIT_FSIZE, self.output_bytes, 0),
            (resource.RLIMIT_CPU, self.cpu_s, 5),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_NOFILE, OPEN_FILES, 0),
            (resource.RLIMIT_NPROC, _most_threads(), 0),
        )
        with contextlib.suppress(ProcessLookupError):
            if self.nice:
                now = os.getpriority(os.PRIO_PROCESS, pid)
                os.setpriority(os.PRIO_PROCESS, pid, min(19, now + self.nice))
            for kind, value, slack in wanted:
                if value is not None:
                    _, hard = resource.prlimit(pid, kind)
                    top = (
                        value + slack
                        if hard == resource.RLIM_INFINITY
                        else min(hard, value + slack)
                    )
                    resource.prlimit(pid, kind, (min(value, top), top))


def _most_threads() -> int | None:
    """Return the limit on the user's threads; None if the system does not say how many there are.

    (man 5 proc: the fourth field of loadavg is <running>/<all> threads of the machine.)
    """
    try:
        everywhere = Path("/proc/loadavg").read_text().split()[3].partition("/")[2]
        return int(everywhere) + MORE_THREADS
    except (OSError, IndexError, ValueError):
        return None


NO_LIMITS = ChildLimits()


def limits_of(bounds: Bounds, *, output_bytes: int = 0) -> ChildLimits:
    """Return the limits of a child that processes a video; by default it may write no file."""
    return ChildLimits(
        nice=bounds.nice,
        memory_mib=bounds.memory_mib,
        output_bytes=output_bytes,
        idle_s=bounds.stall_s,
    )
