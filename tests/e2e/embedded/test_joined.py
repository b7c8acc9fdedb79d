"""A machine without a share, by the real commands: it joins, is killed, the page is killed, nothing is lost."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.embedded.farm import Farm, until
from support.processes import free_port, is_listening

pytestmark = pytest.mark.media


class Pair:
    """The machine with the videos, which only serves its page, and one that joins it."""

    def __init__(self, folder: Path) -> None:
        self.home, self.desk = Farm(folder / "home"), Farm(folder / "desk")
        self.home.add_profile("hevc", "medium")
        self.port = free_port()

    def serve(self) -> subprocess.Popen[str]:
        page = self.home.start("serve", "--port", self.port, stderr=subprocess.DEVNULL)
        until(lambda: is_listening(self.port))
        return page

    def join(self) -> subprocess.Popen[str]:
        address = f"http://127.0.0.1:{self.port}"
        line = self.home.run("workers", "invite", "--address", address).out.split()
        assert line[:3] == ["hevcq", "worker", "--join"]
        return self.work(*line[2:])

    def work(self, *words: str) -> subprocess.Popen[str]:
        return self.desk.start("worker", *words, stderr=subprocess.DEVNULL)

    def encoding(self) -> bool:
        """Whether a job is in its encode, which the machine does."""
        status = json.loads(self.home.run("status", "--json").out)
        return any(each["phase"] == "encode" for each in status["running"])

    def jobs(self) -> dict[str, int]:
        (queue,) = json.loads(self.home.run("status", "--json").out)["queues"]
        return queue["jobs"]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.desk.close()
    made.home.close()


def test_kills_of_both_sides_cost_no_job(pair):
    pair.home.slow_clip("a.mp4")
    page, desk = pair.serve(), pair.join()
    assert pair.home.ingest("--no-wait").code == 0

    until(pair.encoding, timeout=90)
    desk.kill()
    desk.wait()
    pair.work()
    until(pair.encoding, timeout=90)
    page.kill()
    page.wait()
    pair.serve()
    until(lambda: pair.jobs().get("done") == 1, timeout=120)

    assert pair.jobs()["dead"] == 0
    placed = pair.home.ingest()
    assert placed.code == 0
    assert (pair.home.media / "a.hevc.mp4").is_file()
    (certificate,) = (pair.home.media / ".hevcq" / "certificates").rglob("*.json")
    assert str(pair.desk.data / "scratch") in certificate.read_text()
