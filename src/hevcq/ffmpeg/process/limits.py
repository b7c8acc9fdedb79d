"""Limit the resources of a child process from outside."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass

from hevcq.domain.profile import Bounds


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """The resource limits of a child; None means no limit.

    `nice` is added niceness (0 to 19), `memory_mib` the address space, `output_bytes` the largest
    file it may write (SIGXFSZ above it), `cpu_s` its CPU seconds (SIGXCPU above it), `idle_s` the
    seconds it may run without using any (see `output.ChildWatchdog`).
    """

    nice: int = 0
    memory_mib: int | None = None
    output_bytes: int | None = None
    cpu_s: int | None = None
    idle_s: float | None = None

    def apply(self, pid: int) -> None:
        """Set the limits from outside: code between fork and exec is unsafe in a threaded process."""
        mib = self.memory_mib * 2**20 if self.memory_mib is not None else None
        wanted = (
            (resource.RLIMIT_AS, mib, 0),
            (resource.RLIMIT_FSIZE, self.output_bytes, 0),
            (resource.RLIMIT_CPU, self.cpu_s, 5),
            (resource.RLIMIT_CORE, 0, 0),
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


NO_LIMITS = ChildLimits()


def limits_of(bounds: Bounds, *, output_bytes: int = 0) -> ChildLimits:
    """Return the limits of a child that processes a video; by default it may write no file."""
    return ChildLimits(
        nice=bounds.nice,
        memory_mib=bounds.memory_mib,
        output_bytes=output_bytes,
        idle_s=bounds.stall_s,
    )
