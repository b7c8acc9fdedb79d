"""Run child processes within limits. No other module starts a process.

A child gets its own session, a closed stdin, a clean environment, limits, and a sandbox. A thread of its own gives
up rights, starts the child and waits (see `sandbox`). One loop in the calling thread drains both pipes, so no pipe
can fill up. However the call ends, the whole process group is killed, the child is reaped and the thread ends.
Where util-linux's setpriv is installed, a child also dies if this process dies, even by SIGKILL (see
`_with_death_signal`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from hevcq.errors import (
    EncoderFailed,
    LimitExceeded,
    MediaRefused,
    OutOfMemory,
    Stopped,
    WorkerUnfit,
)
from hevcq.ffmpeg.process.limits import (
    MAX_STDOUT_BYTES,
    NO_LIMITS,
    ChildLimits,
    ChildWatchdog,
    LineSplitter,
    Tail,
    is_held,
)
from hevcq.ffmpeg.process.sandbox import Access, confine_thread
from hevcq.util.clock import SystemClock
from hevcq.util.log import get_logger
from hevcq.util.processes import oom_kills
from hevcq.util.text import reason_of

TICK_S = 0.25
"""Seconds between two checks of `stop`; the child's exit wakes the call at once."""
TERM_GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL."""
KILL_WAIT_S = 10.0
"""Seconds that a killed child may stay in an uninterruptible system call before it is abandoned."""
READ_BYTES = 65_536
EXTERNAL_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Exit signals sent from outside: when hevcq itself ends a child, the call raises instead of returning."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    # SVT-AV1 1.4 prints its settings like errors, ignoring ffmpeg's -loglevel.
    "SVT_LOG": "1",
}
"""A child's environment: no credentials, and messages in English; see also `Access.relay`."""
STARTER = "hevcq-start"
"""The shell's name in its error messages; see `_with_death_signal`."""

_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a child; a negative `returncode` is the signal that ended it. Times in seconds.

    `stdout` is empty if a callback received it. `stderr` holds the last lines, up to 32 KiB; if lines were dropped,
    the first one says how many.
    """

    returncode: int
    stdout: bytes
    stderr: tuple[str, ...]
    seconds: float
    cpu_s: float

    @property
    def ending(self) -> str:
        return ending(self.returncode)


def ending(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"


def run_child(
    argv: Sequence[str],
    *,
    stop: threading.Event,
    limits: ChildLimits = NO_LIMITS,
    on_line: Callable[[str], None] | None = None,
    deadline_s: float | None = None,
    check: Callable[[], None] | None = None,
) -> Finished:
    """Run a program to its end in the calling thread.

    `on_line` receives each line of stdout at once; without it stdout is returned whole. `deadline_s` limits the
    wall time. `check` is called about twice a second; an error that it or `on_line` raises ends the child and is
    raised here.

    Raises Stopped when `stop` is set, LimitExceeded past the deadline or above 64 MiB of stdout, EncoderStalled
    when the child uses no CPU time for `limits.idle_s` seconds, WorkerUnfit when the program cannot be started,
    MediaRefused when the command is longer than the system allows (it contains the video's labels), and OutOfMemory
    or EncoderFailed when the child was killed from outside: its output until then says nothing about the video.
    """
    whole, lines = bytearray(), LineSplitter(on_line or (lambda _line: None))

    def keep(chunk: bytes) -> None:
        whole.extend(chunk)
        if len(whole) > MAX_STDOUT_BYTES:
            raise LimitExceeded(f"A program printed more than {MAX_STDOUT_BYTES >> 20} MiB.")

    done = stream_child(
        argv,
        stop=stop,
        limits=limits,
        on_chunk=keep if on_line is None else lines.feed,
        deadline_s=deadline_s,
        check=check,
    )
    lines.close()
    return replace(done, stdout=bytes(whole))


def stream_child(
    argv: Sequence[str],
    *,
    stop: threading.Event,
    on_chunk: Callable[[bytes], object],
    limits: ChildLimits = NO_LIMITS,
    deadline_s: float | None = None,
    check: Callable[[], None] | None = None,
) -> Finished:
    """Run a program like `run_child`, but pass stdout to `on_chunk` in pieces of at most 64 KiB."""
    if stop.is_set():
        raise Stopped
    child = start_child(argv, limits, on_chunk)
    watch = ChildWatchdog(
        child.name, child.pid, _CLOCK, deadline_s=deadline_s, idle_s=limits.idle_s, check=check
    )
    try:
        _supervise(child, stop, watch)
    except BaseException:
        child.discard()
        child.end_group()
        raise
    finally:
        child.close()
    if child.unstarted():
        raise WorkerUnfit(f"{argv[0]} cannot be started: {' '.join(child.tail.lines())}.")
    _require_own_end(child)
    return Finished(
        child.returncode, b"", child.tail.lines(), _CLOCK.monotonic() - child.started, child.cpu_s
    )


def _require_own_end(child: Child) -> None:
    """Raise OutOfMemory or EncoderFailed if a signal from outside ended the child."""
    kind, why = EncoderFailed, ""
    if child.returncode == -signal.SIGKILL:
        why = f"{child.name} was killed from outside; memory had not run out."
        if child.oom_kills is None or oom_kills() != child.oom_kills:
            kind, why = OutOfMemory, f"{child.name} was killed, most likely because memory ran out."
    elif -child.returncode in EXTERNAL_SIGNALS:
        why = f"{child.name} was ended from outside by signal {-child.returncode}."
    if why:
        raise kind(why, returncode=child.returncode, tail=child.tail.lines())


def _supervise(child: Child, stop: threading.Event, watch: ChildWatchdog) -> None:
    while True:
        child.pump(TICK_S)
        if child.exited:
            break
        if stop.is_set():
            raise Stopped
        if child.hold(is_held(stop)):
            watch.suspend()
        else:
            watch.check_now()
    child.end_group()


class Child:
    """A started child and its open descriptors; used by one thread only."""

    def __init__(self, starter: _Starter, name: str, on_chunk: Callable[[bytes], object]) -> None:
        popen = starter.popen()
        self._starter = starter
        self.started = _CLOCK.monotonic()
        self.oom_kills = oom_kills()
        self.name = name
        self.tail = Tail()
        self.exited = False
        self.returncode = 0
        self.cpu_s = 0.0
        self._popen = popen
        self.pid = popen.pid
        self._reaped = False
        self._held = False
        self._poll = select.poll()
        self._pidfd = _pidfd(popen.pid)
        self._sinks: dict[int, Callable[[bytes], object]] = {}
        self._pipes = [pipe for pipe in (popen.stdout, popen.stderr) if pipe is not None]
        for pipe, sink in zip(self._pipes, (on_chunk, self.tail.feed), strict=True):
            self._sinks[pipe.fileno()] = sink
        for descriptor in (*self._sinks, *([self._pidfd] if self._pidfd is not None else [])):
            self._poll.register(descriptor, select.POLLIN)

    def pump(self, timeout_s: float) -> None:
        if self._pidfd is None and not self._sinks:
            timeout_s = min(timeout_s, 0.02)
        has_ended = False
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            if descriptor == self._pidfd:
                has_ended = True
            else:
                self._read(descriptor)
        if (has_ended or self._pidfd is None) and not self.exited:
            self.exited = os.waitid(os.P_PID, self.pid, _PEEK) is not None

    def hold(self, held: bool) -> bool:  # noqa: FBT001 - a state
        """Stop the whole process group by SIGSTOP, or let it continue; return `held`."""
        if held is not self._held:
            self._held = held
            self._signal(signal.SIGSTOP if held else signal.SIGCONT)
            get_logger().info("child_held" if held else "child_goes_on", program=self.name)
        return held

    def discard(self) -> None:
        for descriptor, sink in self._sinks.items():
            if sink != self.tail.feed:
                self._sinks[descriptor] = lambda _chunk: None

    def end_group(self) -> None:
        """End the whole process group: TERM, wait, KILL; read the remaining output, and reap."""
        if not self.exited:
            self._signal(signal.SIGTERM)
            self.hold(False)  # a stopped process receives SIGTERM only when it continues
            self._wait(TERM_GRACE_S, lambda: self.exited)
        # The leader is alive or a zombie until it is reaped below, so its PID cannot be reused yet.
        self._signal(signal.SIGKILL)
        self._wait(KILL_WAIT_S, lambda: self.exited)
        if not self.exited:
            get_logger().error("child_cannot_be_killed", pid=self.pid, program=self.name)
            return
        self._wait(KILL_WAIT_S, lambda: not self._sinks)
        _, status, usage = os.wait4(self.pid, 0)
        self._reaped = True
        self.returncode = self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime

    def unstarted(self) -> bool:
        """Whether setpriv or the shell ran but could not start the program."""
        return self.returncode in {126, 127} and any(
            line.startswith(("setpriv: ", f"{STARTER}: ")) for line in self.tail.lines()
        )

    def close(self) -> None:
        self._starter.end()
        for pipe in self._pipes:
            pipe.close()
        if self._pidfd is not None:
            os.close(self._pidfd)

    def _wait(self, seconds: float, done: Callable[[], bool]) -> None:
        until = _CLOCK.monotonic() + seconds
        while not done() and _CLOCK.monotonic() < until:
            self.pump(0.05)

    def _read(self, descriptor: int) -> None:
        chunk = os.read(descriptor, READ_BYTES)
        if chunk:
            self._sinks[descriptor](chunk)
        else:
            self._poll.unregister(descriptor)
            del self._sinks[descriptor]

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


_PEEK = os.WEXITED | os.WNOHANG | os.WNOWAIT


class _Starter:
    """Starts a child in a confined thread, which then waits, because the child's death signal is bound to it."""

    def __init__(self, command: Sequence[str], program: str, access: Access) -> None:
        self._command, self._program, self._access = command, program, access
        self._answer: queue.SimpleQueue[subprocess.Popen[bytes] | BaseException] = (
            queue.SimpleQueue()
        )
        self._over = threading.Event()
        self._is_interrupted = False
        self._thread = threading.Thread(target=self._run, name="child-starter", daemon=True)

    def popen(self) -> subprocess.Popen[bytes]:
        self._thread.start()
        try:
            answer = self._answer.get()
        except BaseException:
            self._is_interrupted = True
            self._over.set()
            raise
        if isinstance(answer, BaseException):
            self.end()
            raise answer
        return answer

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            confine_thread(self._access, self._program)
            popen = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={**ENVIRONMENT, **self._access.environment()},
                start_new_session=True,
            )
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._answer.put(error)
            return
        self._answer.put(popen)
        self._over.wait()
        if self._is_interrupted:  # nobody received the child, so nobody else would end it
            with popen:
                popen.kill()


def start_child(
    argv: Sequence[str], limits: ChildLimits, on_chunk: Callable[[bytes], object]
) -> Child:
    """Start a program. Raises WorkerUnfit or MediaRefused as `run_child` does."""
    path = shutil.which(argv[0])
    if path is None:
        raise WorkerUnfit(
            f"The program {argv[0]!r} was not found.",
            remedy="Install ffmpeg, or set its path in the settings.",
        )
    program = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
    command = [*_with_death_signal(program), *argv[1:]]
    name = os.path.basename(program)  # noqa: PTH119 - a name
    try:
        child = Child(_Starter(command, program, limits.access), name, on_chunk)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno == errno.E2BIG:
            why = "The video's labels or tracks make the ffmpeg command too long for this system."
            raise MediaRefused(why) from error
        raise WorkerUnfit(f"{argv[0]} cannot be started: {reason_of(error)}.") from error
    limits.apply(child.pid)
    return child


def _with_death_signal(program: str) -> list[str]:
    """Return the program with a prefix that lets the kernel kill it when this process dies.

    setpriv (util-linux) sets the parent-death signal and execs. If this process dies before that, the signal never
    comes; so a shell checks that its parent is still this process before it execs the program. This costs about
    1 ms per start. Without setpriv the child gets no such signal and ends by its own limits. (man 2 prctl,
    PR_SET_PDEATHSIG; the signal is bound to the thread that started the child.)
    """
    setpriv, shell = _found("setpriv"), _found("sh")
    if setpriv is None:
        return [program]
    prefix = [setpriv, "--nnp", "--pdeathsig", "KILL", "--"]
    if shell is None:
        return [*prefix, program]
    check = f'[ "$PPID" = {os.getpid()} ] && exec "$@"'
    return [*prefix, shell, "-c", check, STARTER, program]


@lru_cache(maxsize=4)
def _found(name: str) -> str | None:
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


COMMAND_TIMEOUT_S = 20.0
"""Seconds that a command of the settings may take."""


def run_command(argv: list[str]) -> int:
    """Run a program that the settings name, with a clean environment; return its exit code.

    Raises WorkerUnfit if it cannot be started, and LimitExceeded if it does not end in time.
    """
    limits = ChildLimits(access=Access(confined=False))
    done = run_child(argv, stop=threading.Event(), limits=limits, deadline_s=COMMAND_TIMEOUT_S)
    return done.returncode
