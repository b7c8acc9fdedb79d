"""Real worker processes (`hevcq worker`) on the farm: killed with -9 in mid-encode, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from aws.moto_server import CREDENTIALS, Farm, make_farm
from hevcq.clock import SystemClock
from hevcq.domain.job import JobState, Phase
from hevcq.ports.ledger import JobFilter
from hevcq.profiles import load_profiles
from support import make_clip

pytestmark = [pytest.mark.aws, pytest.mark.media]
PATIENCE_S = 60.0


@pytest.fixture
def folder(tmp_path) -> Path:
    """Profiles of a short lease and a slow encode."""
    recipe = {
        "name": "hevc",
        "description": "for tests",
        "video": {"codec": "hevc", "preset": "veryslow", "crf": 20},
        "gates": {"minimum_saving": None, "review_below": 0.0, "picture_metric": "off"},
        "queue": {"visibility_s": 3, "heartbeat_s": 1},
    }
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "hevc.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


@pytest.fixture
def farm(folder) -> Farm:
    found = make_farm(load_profiles(folder / "profiles"), clock=SystemClock())
    yield found
    found.backend.close()


@pytest.fixture
def start(farm, folder):
    """Start a worker process; every one is ended with its group when the test ends."""
    started: list[subprocess.Popen] = []

    def begin() -> subprocess.Popen:
        aws = farm.settings.aws
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_EC2_METADATA_DISABLED": "true",
            "HEVCQ_BACKEND": "aws",
            "HEVCQ_DATA_DIR": str(folder / "data"),
            "HEVCQ_PROFILES_DIR": str(folder / "profiles"),
            "HEVCQ_MIN_FREE_MIB": "0",
            "HEVCQ_STOP_GRACE_S": "0",
            **CREDENTIALS,
            **{f"HEVCQ_AWS__{n.upper()}": str(v) for n, v in aws.model_dump().items() if v},
        }
        program = "import sys; from hevcq.front import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "worker", "hevc", "-w", "1"]
        log = (folder / "worker.log").open("ab")
        found = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        started.append(found)
        return found

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print((folder / "worker.log").read_text())


def until(true, what: str) -> None:
    end, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not true():
        assert time.monotonic() < end, f"{what} did not happen"
        pause.wait(0.05)


def job(farm: Farm):
    return next(iter(farm.backend.ledger.jobs(JobFilter())), None)


def encoding(farm: Farm, folder: Path) -> bool:
    found = job(farm)
    busy = found is not None and found.state is JobState.RUNNING and found.progress is not None
    return busy and found.progress.phase is Phase.ENCODE and bool(children(folder))


def children(folder: Path) -> list[str]:
    """Return the command lines of processes that work in this test's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"ffmpeg") and any(os.fsencode(folder) in word for word in words):
            found.append(b" ".join(words).decode(errors="replace"))
    return found


def upload(farm: Farm, folder: Path) -> None:
    clip = make_clip(folder / "clips", seconds=2, size="320x180", audio=False)
    farm.clients.s3.upload_file(str(clip), "uploads", "TODO/all/film.mp4")


def test_a_worker_killed_in_mid_encode_is_replaced_by_another(farm, folder, start) -> None:
    first = start()
    upload(farm, folder)
    until(lambda: encoding(farm, folder), "an encode")

    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    until(lambda: children(folder) == [], "the end of the dead worker's ffmpeg")
    second = start()
    until(
        lambda: (found := job(farm)) is not None and found.state is JobState.DONE, "the rendition"
    )
    os.kill(second.pid, signal.SIGTERM)

    found = [o.key for o in farm.backend.store.list("DONE/") if not o.key.endswith(".json")]
    assert found == ["DONE/hevc/film.mp4.mp4"]
    record = job(farm)
    assert (record.fence, record.crashes, record.failures) == (2, 1, 0)
    depth = farm.backend.queues["hevc"].depth
    until(lambda: (depth().ready, depth().in_flight, depth().dead) == (0, 0, 0), "an empty queue")


def test_a_stopped_worker_gives_its_work_back_at_once_and_leaves_no_child(
    farm, folder, start
) -> None:
    process = start()
    upload(farm, folder)
    until(lambda: encoding(farm, folder), "an encode")

    os.kill(process.pid, signal.SIGTERM)
    process.wait(timeout=PATIENCE_S)

    assert children(folder) == []
    record = job(farm)
    assert (record.state, record.failures, record.crashes) == (JobState.QUEUED, 0, 0)
    (delivery,) = farm.backend.queues["hevc"].receive(5, wait_s=0, stop=threading.Event())
    assert delivery.attempt == 2
    assert list(farm.backend.store.list("")) == []
    for bucket in ("uploads", "out"):
        assert "Uploads" not in farm.clients.s3.list_multipart_uploads(Bucket=bucket)
