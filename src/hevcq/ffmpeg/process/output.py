"""Turn a child's output, which comes in pieces, into lines; bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from hevcq.errors import EncoderStalled, LimitExceeded
from hevcq.util.clock import Clock

TAIL_BYTES = 32_768
"""How much of stderr is kept."""
MAX_LINE = 65_536
"""A longer line is handed on in parts."""
MAX_STDOUT_BYTES = 64 * 2**20
"""The most of stdout that is kept when it is returned whole."""


class LineSplitter:
    """Hands each whole line to `on_line`, decoded as UTF-8; odd bytes become U+FFFD."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if len(self._rest) > MAX_LINE:
            self.close()

    def close(self) -> None:
        """Hand on what is left after the last line end."""
        rest, self._rest = self._rest, b""
        if rest:
            self._on_line(rest.decode("utf-8", "replace").rstrip("\r"))


class Tail:
    """Keeps the last lines, 32 KiB at most, and counts what it dropped.

    A carriage return overwrites its line, as on a terminal.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = 0
        self._dropped = 0
        self._split = LineSplitter(self._add)

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        self._split.feed(chunk)

    def lines(self) -> tuple[str, ...]:
        """Return the lines kept; the first one says so if others were dropped."""
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


class BoundedBuffer:
    """Keeps everything, up to a bound."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next piece; raise LimitExceeded above 64 MiB."""
        self.content += chunk
        if len(self.content) > MAX_STDOUT_BYTES:
            raise LimitExceeded(f"A program printed more than {MAX_STDOUT_BYTES >> 20} MiB.")


CHECK_S = 0.5
"""How often a child is looked at."""


class StallWatchdog:
    """Raises EncoderStalled when nothing has moved for `limit_s` seconds.

    What moves is anything comparable: output time, frame count, CPU time, and at the end the file,
    which is still written when `-movflags faststart` moves the index to the front.
    """

    def __init__(self, limit_s: float, clock: Clock) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._seen: object = None
        self._moved_at = clock.monotonic()

    def check(self, state: object, what: str) -> None:
        """Compare `state` with the last one; `what` stands still then, for the sentence."""
        now = self._clock.monotonic()
        if state != self._seen:
            self._seen, self._moved_at = state, now
        elif now - self._moved_at >= self._limit_s:
            raise EncoderStalled(f"{what} for {now - self._moved_at:.0f} s.")


class ChildWatchdog:
    """Raises what ends one child before its time.

    `deadline_s` bounds its wall time, `idle_s` how long it may go without using any CPU time: a
    child that is stopped, deadlocked or waits for a dead disk uses none. `check` is its user's own.
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
        self._deadline_s, self._check = deadline_s, check
        self._idle = None if idle_s is None else StallWatchdog(idle_s, clock)

    def check_now(self) -> None:
        """Look now; raise LimitExceeded, EncoderStalled, or what `check` raises."""
        now = self._clock.monotonic()
        if self._deadline_s is not None and now - self._started >= self._deadline_s:
            raise LimitExceeded(f"{self._name} ran for longer than {self._deadline_s:.0f} s.")
        if now < self._next_check:
            return
        self._next_check = now + CHECK_S
        if self._check is not None:
            self._check()
        if self._idle is not None:
            used = cpu_ticks(self._pid)
            if used is not None:
                self._idle.check(used, f"{self._name} used no CPU time")


def cpu_ticks(pid: int) -> int | None:
    """Return the CPU time of a process and all its threads, in the kernel's ticks of 10 ms.

    None where the system does not say. (man 5 proc_pid_stat: utime and stime, fields 14 and 15;
    the second field is a name in brackets that may hold anything.)
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, IndexError, ValueError):
        return None
