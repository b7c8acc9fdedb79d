"""The watch over a child: what stands still, what goes on, and whose time is over."""

import os
import signal
import subprocess
import time

import pytest

from hevcq.errors import EncoderStalled, LimitExceeded
from hevcq.ffmpeg.process.limits import (
    MAX_LINE,
    ChildWatchdog,
    LineSplitter,
    StallWatchdog,
    Tail,
    cpu_seconds,
)
from support.clips import ManualClock

WHAT = "ffmpeg made no progress on video.mp4"


def test_a_stall_is_named_after_the_limit_and_not_before() -> None:
    clock = ManualClock()
    watch = StallWatchdog(300, clock)
    watch.check((1, 1), WHAT)
    clock.advance(299)
    watch.check((1, 1), WHAT)
    clock.advance(1)

    with pytest.raises(EncoderStalled, match=r"no progress on video\.mp4 for 300 s"):
        watch.check((1, 1), WHAT)


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
    for _ in range(3):
        clock.advance(100)
        watch.check_now()
    clock.advance(99)
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


def test_who_cannot_be_looked_at_is_not_taken_for_stopped():
    clock = ManualClock()
    watch = watched(2**30, clock, idle_s=1)
    clock.advance(1000)
    watch.check_now()
    assert cpu_seconds(2**30) is None


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
    split.feed(b"x" * MAX_LINE)
    assert seen == []
    split.feed(b"y\nz\n")
    split.feed(b"w" * (MAX_LINE + 1))
    assert [len(line) for line in seen] == [MAX_LINE + 1, 1, MAX_LINE + 1]
    tail = Tail()
    tail.feed(b"\n \none\r\n")
    assert tail.lines() == ("one",)
