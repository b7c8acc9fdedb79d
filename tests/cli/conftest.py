"""Run the whole program in this process, over a real data folder of its own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hevcq.cli.commands import run
from hevcq.domain.job import JobRecord, JobState
from hevcq.settings.model import Settings
from hevcq.wiring.app import App
from support.jobs import Farm


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Stdout as JSON, one object a line; anything else on stdout is an error."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    monkeypatch.setenv("HEVCQ_DATA_DIR", str(folder))
    monkeypatch.setenv("HEVCQ_MIN_FREE_MIB", "0")
    return folder


@pytest.fixture
def hevcq(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def opened(data_dir: Path) -> Iterator[App]:
    app = App(Settings(data_dir=data_dir))
    yield app
    app.close()


@pytest.fixture
def farm(opened: App, tmp_path: Path) -> Farm:
    return Farm(opened, tmp_path / "library")


def state(farm: Farm, job: JobRecord) -> JobState:
    return farm.app.backend.ledger.get(job.job_id).state
