"""What compose.yaml starts, started here without containers: its commands, with its settings."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.embedded.farm import HEVCQ, until
from support.clips import make_clip
from support.media_facts import SHIPPED

pytestmark = [pytest.mark.aws, pytest.mark.media]

ROOT = Path(__file__).resolve().parents[3]
SERVICES = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


@pytest.fixture
def emulator() -> Iterator[str]:
    """The emulator's own program on a free port; it must end by itself when told to stop."""
    paths = os.pathsep.join(
        [str(ROOT / "tests" / "support" / "aws"), os.environ.get("PYTHONPATH", "")]
    )
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "docker" / "emulator.py"), "127.0.0.1", "0"],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
        server.terminate()
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.stdout.close()
        server.wait()


def environment(service: str, endpoint: str, data: Path) -> dict[str, str]:
    given = {**SERVICES[service]["environment"], "HEVCQ_AWS__ENDPOINT_URL": endpoint}
    return {**os.environ, **given, "HEVCQ_DATA_DIR": str(data), "HEVCQ_MIN_FREE_MIB": "1"}


def setup(endpoint: str, folder: Path) -> str:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "docker" / "emulator_setup.py")],
        env=environment("setup", endpoint, folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_video_goes_through_the_farm_of_compose(emulator, tmp_path):
    assert setup(emulator, tmp_path) == f"Made the farm's resources for {', '.join(SHIPPED)}.\n"
    assert setup(emulator, tmp_path) == "The farm's resources are there already.\n"
    clip = make_clip(tmp_path / "media", name="video.mp4")
    log = tmp_path / "worker.log"
    with log.open("w") as stderr:
        worker = subprocess.Popen(
            [sys.executable, str(ROOT / "workers" / "run.py")],
            env={
                **environment("worker-hevc", emulator, tmp_path / "worker"),
                "HEVCQ_LOG_STYLE": "json",
            },
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        until(lambda: "worker_started" in log.read_text() or worker.poll() is not None)
        words = ["ingest", str(clip.parent), "--output", str(tmp_path / "out"), "--profile", "hevc"]
        ran = subprocess.run(
            [str(HEVCQ), *words, "--json"],
            env=environment("hevcq", emulator, tmp_path / "data"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()

    assert ran.returncode == 0, ran.stderr + log.read_text()
    (rendition,) = (tmp_path / "out").rglob("*.mp4")
    assert rendition.stat().st_size < clip.stat().st_size
