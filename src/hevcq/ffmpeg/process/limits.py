"""Limit a child's resources from outside, bound the output that is kept, and detect stalls."""

import contextlib
import os
import resource
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.profile_sections import Bounds
from hevcq.errors import EncoderStalled, LimitExceeded
from hevcq.ffmpeg.process.sandbox import NOTHING, Access
from hevcq.ports.encoder import StopEvent
from hevcq.util.clock import Clock

OPEN_FILES = 256
"""Descriptors that a child may have; ffmpeg needs about ten."""
MORE_THREADS = 4096
"""Threads and processes of the user above those of the whole system when a child starts.

The kernel counts all threads of the user, so a fixed limit would stop ffmpeg on a busy desktop. It does not limit
root."""


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """The resource limits of a child; None means no limit.

    `nice` is added niceness (0 to 19), `memory_mib` the address space, `output_bytes` the largest file that it may
    write (SIGXFSZ above it), `cpu_s` its CPU seconds (SIGXCPU above them), `idle_s` the seconds it may run without
    using CPU time (see `ChildWatchdog`), `access` what it may read, write and connect to.
    """

    nice: int = 0
    memory_mib: int | None = None
    output_bytes: int | None = None
    cpu_s: int | None = None
    idle_s: float | None = None
    access: Access = NOTHING

    def apply(self, pid: int) -> None:
        """Set the limits from outside: code between fork and exec is unsafe in a threaded process."""
        memory_bytes = self.memory_mib * 2**20 if self.memory_mib is not None else None
        resources = (
            (resource.RLIMIT_AS, memory_bytes, 0),
            (resource.RLIMIT_FSIZE, self.output_bytes, 0),
            (resource.RLIMIT_CPU, self.cpu_s, 5),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_NOFILE, OPEN_FILES, 0),
            (resource.RLIMIT_NPROC, _max_threads(), 0),
        )
        with contextlib.suppress(ProcessLookupError):
            if self.nice:
                now = os.getpriority(os.PRIO_PROCESS, pid)
                os.setpriority(os.PRIO_PROCESS, pid, min(19, now + self.nice))
            for kind, value, slack in resources:
                if value is not None:
                    _, hard = resource.prlimit(pid, kind)
                    top = value + slack
                    top = top if hard == resource.RLIM_INFINITY else min(hard, top)
                    resource.prlimit(pid, kind, (min(value, top), top))


def _max_threads() -> int | None:
    """Return the limit on the user's threads; None if the system does not tell how many there are.

    (man 5 proc: the fourth field of loadavg is <running>/<all> threads of the machine.)
    """
    try:
        everywhere = Path("/proc/loadavg").read_text().split()[3].partition("/")[2]
        return int(everywhere) + MORE_THREADS
    except (OSError, IndexError, ValueError):
        return None


NO_LIMITS = ChildLimits()
NICE = 10
"""Niceness of a child that processes a video: people's own programs on this machine go first."""


def limits_of(bounds: Bounds, *, output_bytes: int = 0) -> ChildLimits:
    return ChildLimits(
        nice=NICE,
        memory_mib=bounds.memory_mib,
        output_bytes=output_bytes,
        idle_s=bounds.stall_s,
    )


TAIL_BYTES = 32_768
"""Bytes of stderr that are kept."""
MAX_LINE_BYTES = 65_536
"""A longer line is passed on in pieces."""
MAX_STDOUT_BYTES = 64 * 2**20
"""Largest stdout that is returned whole."""


class LineSplitter:
    """Passes each complete line to `on_line`, decoded as UTF-8; invalid bytes become U+FFFD."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if len(self._rest) > MAX_LINE_BYTES:
            self.close()

    def close(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._on_line(rest.decode("utf-8", "replace").rstrip("\r"))


class Tail:
    """Keeps the last lines, up to 32 KiB, and counts the dropped ones.

    A carriage return overwrites its line, as on a terminal.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = 0
        self._dropped = 0
        self._split = LineSplitter(self._add)

    def feed(self, chunk: bytes) -> None:
        self._split.feed(chunk)

    def lines(self) -> tuple[str, ...]:
        """Return the kept lines; the first one counts those that were dropped, if any."""
        self._split.close()
        if self._dropped:
            return (f"[{self._dropped} earlier lines dropped]", *self._lines)
        return tuple(self._lines)

    def _add(self, line: str) -> None:
        line = line.rpartition("\r")[2].rstrip()
        if not line:
            return
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > TAIL_BYTES and len(self._lines) > 1:
            self._size -= len(self._lines.popleft()) + 1
            self._dropped += 1


CHECK_S = 0.5
"""Seconds between two checks of a child."""
AFTER_HOLD_S = 60.0
"""Seconds until the progress of a child that was held is checked again."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class StallWatchdog:
    """Raises EncoderStalled when a state has not changed for `limit_s` seconds.

    A state is anything comparable: output time, frame count, CPU time, and at the end the file's size, which still
    changes while `-movflags faststart` moves the index to the front.
    """

    def __init__(self, limit_s: float, clock: Clock) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._seen: object = None
        self._moved_at = clock.monotonic()

    def check(self, state: object, what: str) -> None:
        """Compare `state` with the last one; raise EncoderStalled with a message that starts with `what`."""
        now = self._clock.monotonic()
        if state != self._seen:
            self._seen, self._moved_at = state, now
        elif now - self._moved_at >= self._limit_s:
            raise EncoderStalled(f"{what} for {now - self._moved_at:.0f} s.")


class ChildWatchdog:
    """Raises an error when a child exceeds its limits.

    `deadline_s` limits its wall time, `idle_s` the time it may run without using CPU time: a child that is stopped,
    deadlocked or waiting for a dead disk uses none. `check` is the caller's own check.
    """

    def __init__(
        self,
        name: str,
        pid: int,
        clock: Clock,
        *,
        deadline_s: float | None,
        idle_s: float | None,
        check: Callable[[], None] | None,
    ) -> None:
        self._name, self._pid, self._clock = name, pid, clock
        self._started = clock.monotonic()
        self._next_check = self._started + CHECK_S
        self._last_look = self._started
        self._deadline_s, self._check = deadline_s, check
        self._idle = None if idle_s is None else StallWatchdog(idle_s, clock)

    def suspend(self) -> None:
        """Stop the clock of the deadline while the child is held; check its progress AFTER_HOLD_S later."""
        now = self._clock.monotonic()
        self._started += now - max(self._last_look, self._started)
        self._last_look = now
        self._next_check = now + AFTER_HOLD_S

    def check_now(self) -> None:
        """Check the limits now; raise LimitExceeded, EncoderStalled, or what `check` raises."""
        now = self._last_look = self._clock.monotonic()
        if self._deadline_s is not None and now - self._started >= self._deadline_s:
            raise LimitExceeded(f"{self._name} ran for longer than {self._deadline_s:.0f} s.")
        if now < self._next_check:
            return
        self._next_check = now + CHECK_S
        if self._check is not None:
            self._check()
        if self._idle is not None:
            used = cpu_seconds(self._pid)
            if used is not None:
                self._idle.check(used, f"{self._name} used no CPU time")


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of a process and all its threads, or None if it cannot be read.

    (man 5 proc_pid_stat: utime and stime, fields 14 and 15; the second field is a name in brackets that may
    contain anything.)
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    except (OSError, IndexError, ValueError):
        return None


def is_held(stop: threading.Event) -> bool:
    return isinstance(stop, StopEvent) and stop.held


def held_s(stop: threading.Event) -> float:
    """Return for how many seconds the programs that obey `stop` have been held until now."""
    return stop.held_s if isinstance(stop, StopEvent) else 0.0
