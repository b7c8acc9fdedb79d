"""Running a child: it ends, is drained and reaped however the call ends.

A held program uses no CPU, reaches no limit of time, goes on, and can still be stopped.

The watch over a child: what stands still, what goes on, and whose time is over.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from hevcq.errors import EncoderStalled, LimitExceeded, Stopped, WorkerUnfit
from hevcq.ffmpeg.process import child
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import (
    MAX_LINE_BYTES,
    ChildLimits,
    ChildWatchdog,
    LineSplitter,
    Tail,
    cpu_seconds,
)
from hevcq.ffmpeg.process.sandbox import Access
from hevcq.ports.encoder import StopEvent
from support.clips import ManualClock


def sh(script: str, *arguments: str, **options):
    stop = options.pop("stop", None) or threading.Event()
    return run_child(["sh", "-c", script, "sh", *arguments], stop=stop, **options)


ANYTHING = Access(confined=False)


def writing(path: Path, **limits) -> ChildLimits:
    return ChildLimits(access=Access(writes=(str(path),)), **limits)


def children() -> set[int]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended since
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def gone(pid: int) -> bool:
    """Whether the process has ended: no entry, or a zombie that its new parent has to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pid: int) -> bool:
    until = time.monotonic() + 5
    waiter = threading.Event()
    while not gone(pid) and time.monotonic() < until:
        waiter.wait(0.02)
    return gone(pid)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    descriptors, threads, before = (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        children(),
    )
    yield
    # Fewer where something that an earlier test left idle has ended meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert threading.active_count() <= threads
    assert children() <= before


def test_it_returns_the_output_the_exit_code_and_the_cpu_time():
    done = sh(
        "printf 'a\\nb'; echo oops >&2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3"
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, b"a\nb", ("oops",))
    assert 0 < done.cpu_s <= done.seconds + 0.1


def test_a_flood_on_stderr_does_not_hang_and_its_tail_says_how_much_was_dropped():
    done = sh(
        "i=0; while [ $i -lt 6000 ]; do echo 01234567890123456789012345678901234 >&2; i=$((i+1)); done; echo last >&2"
    )

    assert done.returncode == 0
    assert done.stderr[-1] == "last"
    assert done.stderr[0].endswith("earlier lines dropped]")
    assert sum(map(len, done.stderr)) < 40_000


def test_lines_come_one_by_one_even_when_the_last_has_no_end():
    seen: list[str] = []
    done = sh("printf 'a\\nb\\n\\377c'", on_line=seen.append)

    assert seen == ["a", "b", "\ufffdc"]
    assert done.stdout == b""


def test_stdin_is_closed_and_the_environment_is_clean(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    names = {line.split("=")[0] for line in sh("cat; env").stdout.decode().splitlines()}

    assert {"PATH"} < names <= {"PATH", "LANG", "HOME", "PWD", "OLDPWD", "SHLVL", "SVT_LOG", "_"}


def test_arguments_are_never_read_by_a_shell():
    done = run_child(["printf", "%s", "$(id); `id` \n--x"], stop=threading.Event())
    assert done.stdout == b"$(id); `id` \n--x"


def test_a_missing_program_makes_the_worker_unfit():
    with pytest.raises(WorkerUnfit, match="no-such-program"):
        run_child(["no-such-program"], stop=threading.Event())


def test_a_stop_that_came_before_starts_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        sh('touch "$1"', str(tmp_path / "started"), stop=stop)
    assert not (tmp_path / "started").exists()


def test_a_child_that_ignores_term_is_killed_and_reaped(tmp_path):
    stop = threading.Event()
    told = tmp_path / "told"
    told.touch()
    script = "trap 'echo term > \"$1\"' TERM; echo ready; while :; do sleep 0.05; done"
    with pytest.raises(Stopped):
        sh(script, str(told), stop=stop, on_line=lambda _: stop.set(), limits=writing(told))
    assert told.read_text() == "term\n"


def test_grandchildren_end_with_the_group():
    stop, pids = threading.Event(), []

    def seen(line: str) -> None:
        pids.append(int(line))
        stop.set()

    with pytest.raises(Stopped):
        sh("(trap '' TERM; sleep 60) & echo $!; wait", stop=stop, on_line=seen)
    assert wait_until_gone(pids[0])


def test_a_grandchild_that_keeps_the_pipes_open_does_not_outlive_the_child():
    began = time.monotonic()
    done = sh("sleep 60 & echo $!; exit 0")

    assert time.monotonic() - began < 2
    assert wait_until_gone(int(done.stdout))


def test_a_check_that_raises_stops_the_child():
    began = time.monotonic()
    with pytest.raises(ArithmeticError):
        sh("sleep 60", check=Mock(side_effect=ArithmeticError))
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("descriptor", [os.pidfd_open, Mock(side_effect=OSError)])
def test_a_child_that_closes_its_pipes_is_still_waited_for(monkeypatch, descriptor):
    monkeypatch.setattr(os, "pidfd_open", descriptor)
    monkeypatch.setattr(child, "TICK_S", 60.0)
    done = sh("exec >&- 2>&-; sleep 0.2; exit 7")
    # 7 comes at the end only: a child given up when its pipes closed would have been killed.
    assert (done.returncode, done.seconds < 30) == (7, True)


def test_too_much_output_to_keep_is_refused():
    with pytest.raises(LimitExceeded, match="64 MiB"):
        run_child(["head", "-c", "80000000", "/dev/zero"], stop=threading.Event())


def test_a_file_above_the_limit_ends_the_child(tmp_path):
    target = tmp_path / "out"
    target.touch()
    script = 'sleep 0.1; exec head -c 3000000 /dev/zero > "$1"'
    done = sh(script, str(target), limits=writing(target, output_bytes=1_000_000))

    assert done.returncode == -signal.SIGXFSZ
    assert target.stat().st_size == 1_000_000


def test_memory_above_the_limit_is_refused_to_the_child():
    script = "from time import sleep; sleep(0.2); bytearray(400 * 2**20)"
    done = run_child(
        [sys.executable, "-c", script],
        stop=threading.Event(),
        limits=ChildLimits(memory_mib=256, access=ANYTHING),
    )
    assert done.returncode == 1
    assert done.stderr[-1] == "MemoryError"


PARENT = """
import sys, threading
from hevcq.ffmpeg.process.child import run_child
def seen(line):
    print(line, flush=True)
run_child(["sh", "-c", "echo $$; exec sleep 60"], stop=threading.Event(), on_line=seen)
"""


def test_a_child_dies_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
        parent.wait()
        assert wait_until_gone(pid)


LIMITS = ChildLimits(idle_s=1.0, access=Access(confined=False))
COUNTS = """import os, time
print(os.getpid(), flush=True)
end = time.process_time() + {cpu}
while time.process_time() < end:
    pass
print("done")"""


class Running:
    """A child in a thread of its own that uses CPU seconds and then ends."""

    def __init__(self, cpu: float, deadline_s: float | None = None) -> None:
        self.stop, self.lines = StopEvent(), list[str]()
        self.result: Finished | None = None
        self.error: Stopped | None = None
        self._deadline_s = deadline_s
        self._argv = [sys.executable, "-c", COUNTS.format(cpu=cpu)]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.until(lambda: bool(self.lines))
        self.pid = int(self.lines[0])

    def _run(self) -> None:
        try:
            self.result = run_child(
                self._argv,
                stop=self.stop,
                limits=LIMITS,
                on_line=self.lines.append,
                deadline_s=self._deadline_s,
            )
        except Stopped as error:
            self.error = error

    @staticmethod
    def until(done, seconds: float = 30.0) -> None:
        end, wait = time.monotonic() + seconds, threading.Event()
        while not done():
            assert time.monotonic() < end
            wait.wait(0.01)

    def state(self) -> str:
        with open(f"/proc/{self.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]

    def hold(self) -> None:
        self.stop.held = True
        self.until(lambda: self.state() == "T")

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_a_held_program_stands_still_past_its_deadline_and_then_ends_well():
    child = Running(cpu=0.3, deadline_s=3.0)
    child.hold()
    used, wait = cpu_seconds(child.pid), threading.Event()
    wait.wait(3.3)  # more than its deadline, and than it may be idle
    assert cpu_seconds(child.pid) == used
    assert child.state() == "T"

    child.stop.held = False
    child.join()

    assert child.error is None
    assert child.result is not None
    assert child.result.returncode == 0
    assert child.lines[-1] == "done"


def test_a_held_program_that_is_stopped_ends_at_once():
    child = Running(cpu=60)
    child.hold()
    began = time.monotonic()

    child.stop.set()
    child.join()

    assert isinstance(child.error, Stopped)
    assert time.monotonic() - began < 5
    with pytest.raises(FileNotFoundError):
        child.state()


def watched(pid: int, clock: ManualClock, **bounds) -> ChildWatchdog:
    return ChildWatchdog(
        "ffmpeg", pid, clock, **{"deadline_s": None, "idle_s": None, "check": None, **bounds}
    )


@pytest.fixture
def frozen():
    """A process that is stopped."""
    child = subprocess.Popen(["sleep", "600"])
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    yield child.pid
    child.kill()
    child.wait()


def test_a_stopped_child_is_noticed_when_its_time_is_over_and_not_before(frozen):
    clock = ManualClock()
    watch = watched(frozen, clock, idle_s=300)
    for seconds in (100, 100, 100, 99):
        clock.advance(seconds)
        watch.check_now()
    clock.advance(1)
    with pytest.raises(EncoderStalled, match=r"ffmpeg used no CPU time for 300 s"):
        watch.check_now()


def test_a_working_child_is_left_alone_however_long_it_says_nothing():
    clock = ManualClock()
    watch = watched(os.getpid(), clock, idle_s=300)
    for _ in range(3):
        before = cpu_seconds(os.getpid())
        while cpu_seconds(os.getpid()) == before:
            time.process_time()
        clock.advance(299)
        watch.check_now()


def test_a_deadline_holds_to_the_second():
    clock = ManualClock()
    watch = watched(os.getpid(), clock, deadline_s=60.0)
    clock.advance(59.9)
    watch.check_now()
    clock.advance(0.1)
    with pytest.raises(LimitExceeded, match="ffmpeg ran for longer than 60 s"):
        watch.check_now()


def test_a_line_without_an_end_comes_in_pieces_and_an_empty_one_is_not_kept():
    seen: list[str] = []
    split = LineSplitter(seen.append)
    split.feed(b"x" * MAX_LINE_BYTES)
    assert seen == []
    split.feed(b"y\nz\n")
    split.feed(b"w" * (MAX_LINE_BYTES + 1))
    assert [len(line) for line in seen] == [MAX_LINE_BYTES + 1, 1, MAX_LINE_BYTES + 1]
    tail = Tail()
    tail.feed(b"\n \none\r\n")
    assert tail.lines() == ("one",)
