"""SIGTERM to a real worker process in mid-encode: the work goes back at once, nothing is left."""

import json
import os
import pty
import signal
import sys
import time
from pathlib import Path

import pytest

from e2e.embedded.farm import HEVCQ, Farm, until
from hevcq.cli.exit_codes import ExitCode
from support.processes import descendants, is_alive

pytestmark = pytest.mark.media

RUN = Path(__file__).resolve().parents[3] / "workers" / "run.py"


@pytest.fixture
def slow(farm: Farm) -> Farm:
    """A farm with one queued job whose encode takes some seconds."""
    farm.add_profile("hevc", "medium")
    farm.clip("video.mp4", size="640x360", seconds=20, crf=20)
    assert farm.ingest("--no-wait").code == 0
    return farm


class Worker:
    """A worker as a container starts it, or as a person does; its log is JSON in a file."""

    def __init__(self, farm: Farm, how: str, grace_s: float) -> None:
        commands = {"run.py": [sys.executable, RUN], "hevcq worker": [HEVCQ, "worker"]}
        self.farm, self.log = farm, farm.folder / "worker.log"
        environment = {
            "HEVCQ_PROFILES": "hevc",
            "HEVCQ_STOP_GRACE_S": str(grace_s),
            "HEVCQ_LOG_STYLE": "json",
            "HEVCQ_WORKERS": "1",
        }
        with self.log.open("w") as log:
            self.child = farm.launch(commands[how], environment, log)

    def until_encoding(self) -> dict[int, str]:
        """Wait for the encode to run; return the children."""
        until(self._encodes, timeout=60)
        return descendants(self.child.pid)

    def _encodes(self) -> bool:
        assert self.child.poll() is None, self.log.read_text()
        return encodes(self.child.pid)

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, *signals: signal.Signals) -> float:
        """Send the signals, wait for the end, and return after how many seconds it came."""
        began = time.monotonic()
        for number in signals:
            seen = self._stops()
            self.child.send_signal(number)
            until(lambda seen=seen: self.child.poll() is not None or self._stops() > seen)
        self.child.wait(60)
        return time.monotonic() - began

    def _stops(self) -> int:
        return sum(event["event"].startswith("stop_") for event in self.events())


def encodes(pid: int) -> bool:
    """Whether a child of this process is a job's encode: that of a profile's self-test is none."""
    commands = descendants(pid).values()
    return any("libx265" in each and "self-test" not in each for each in commands)


def queue_of(farm: Farm) -> dict:
    (queue,) = json.loads(farm.run("status", "--json").out)["queues"]
    return queue


def job_of(farm: Farm) -> dict:
    (line,) = farm.run("status", farm.media / "video.mp4", "--json").out.splitlines()
    return json.loads(line)


def assert_given_back(farm: Farm, worker: Worker, children: dict[int, str]) -> None:
    """The task is visible now, nothing was counted, and nothing of the worker is left."""
    assert worker.child.returncode == ExitCode.OK, worker.log.read_text()
    queue, job = queue_of(farm), job_of(farm)
    assert (queue["ready"], queue["in_flight"], queue["delayed"]) == (1, 0, 0)
    assert (job["state"], job["failures"], job["crashes"]) == ("queued", 0, 0)
    assert not any(map(is_alive, children))
    assert farm.strays() == []
    assert list((farm.data / "processes").iterdir()) == []
    assert "job_released" in {event["event"] for event in worker.events()}
    assert list(farm.data.glob("objects/**/*.hevc.*")) == []


def test_after_its_grace_a_stopped_worker_gives_the_work_back_at_once(slow):
    worker = Worker(slow, "hevcq worker", grace_s=0.5)
    children = worker.until_encoding()

    seconds = worker.stop(signal.SIGTERM)

    assert_given_back(slow, worker, children)
    assert seconds < 15
    interrupted = [event["event"] for event in worker.events()]
    assert interrupted.index("stop_asked") < interrupted.index("stop_insisted")


def test_a_second_signal_does_not_wait_for_the_grace(slow):
    worker = Worker(slow, "run.py", grace_s=100)
    children = worker.until_encoding()

    seconds = worker.stop(signal.SIGTERM, signal.SIGTERM)

    assert_given_back(slow, worker, children)
    assert seconds < 15


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_an_ingest_whose_reader_is_gone_still_gives_its_work_back(slow, number):
    """A terminal that is closed, or a log that ends: what cannot be said must not end the stop."""
    reading, writing = pty.openpty() if number == signal.SIGHUP else os.pipe()
    # Whoever runs these tests under nohup lets every child of theirs ignore SIGHUP, and so it stays.
    before = signal.signal(number, signal.SIG_DFL)
    ingest = slow.start("ingest", slow.media, stderr=writing)
    signal.signal(number, before)
    os.close(writing)
    until(lambda: encodes(ingest.pid), timeout=60)
    children = descendants(ingest.pid)
    os.close(reading)

    ingest.send_signal(number)
    ingest.wait(60)

    job = job_of(slow)
    assert (job["state"], job["failures"], job["crashes"]) == ("queued", 0, 0)
    assert not any(map(is_alive, children))
