"""Running a child: it ends, is drained and reaped however the call ends."""

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

from hevcq.errors import LimitExceeded, MediaRefused, Stopped, WorkerUnfit
from hevcq.ffmpeg.process import child
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import ChildLimits
from hevcq.ffmpeg.process.sandbox import Access


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


def test_stdin_is_closed():
    assert sh("cat; echo end").stdout == b"end\n"


def test_the_environment_is_clean(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    names = {line.split("=")[0] for line in sh("env").stdout.decode().splitlines()}

    assert names <= {"PATH", "LANG", "HOME", "PWD", "OLDPWD", "SHLVL", "SVT_LOG", "_"}


def test_arguments_are_never_read_by_a_shell():
    done = run_child(["printf", "%s", "$(id); `id` \n--x"], stop=threading.Event())
    assert done.stdout == b"$(id); `id` \n--x"


def test_a_missing_program_makes_the_worker_unfit():
    with pytest.raises(WorkerUnfit, match="no-such-program"):
        run_child(["no-such-program"], stop=threading.Event())


def test_a_program_that_cannot_be_executed_makes_the_worker_unfit(tmp_path):
    program = tmp_path / "broken"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    with pytest.raises(WorkerUnfit, match="broken"):
        run_child([str(program)], stop=threading.Event())


def test_a_stop_that_came_before_starts_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        sh('touch "$1"', str(tmp_path / "started"), stop=stop)
    assert not (tmp_path / "started").exists()


def test_a_stop_ends_the_child_soon():
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        sh("sleep 60", stop=stop)
    assert time.monotonic() - began < 2


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
    class Stalled(Exception):
        pass

    def check() -> None:
        raise Stalled

    began = time.monotonic()
    with pytest.raises(Stalled):
        sh("sleep 60", check=check)
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


@pytest.mark.parametrize(
    ("argv", "refusal", "error", "sentence"),
    [
        (["true", "x" * 200_000], None, MediaRefused, "too long for this system"),
        (["true", "a\0b"], None, WorkerUnfit, "cannot be started: embedded null byte"),
        (["true"], PermissionError(1, "Landlock: no"), WorkerUnfit, "Landlock: no"),
    ],
)
def test_what_cannot_be_started_says_why(monkeypatch, argv, refusal, error, sentence):
    monkeypatch.setattr(child, "confine_thread", Mock(side_effect=refusal))
    with pytest.raises(error, match=sentence):
        run_child(argv, stop=threading.Event())
