"""A held program uses no CPU, reaches no limit of time, goes on, and can still be stopped."""

import sys
import threading
import time

import pytest

from hevcq.errors import Stopped
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ffmpeg.process.limits import ChildLimits, cpu_seconds
from hevcq.ffmpeg.process.sandbox import Access
from hevcq.ports.encoder import StopEvent

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


def test_a_held_program_stands_still_past_its_deadline_and_then_ends_well() -> None:
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


def test_a_held_program_that_is_stopped_ends_at_once() -> None:
    child = Running(cpu=60)
    child.hold()
    began = time.monotonic()

    child.stop.set()
    child.join()

    assert isinstance(child.error, Stopped)
    assert time.monotonic() - began < 5
    with pytest.raises(FileNotFoundError):
        child.state()
