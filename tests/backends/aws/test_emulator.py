"""The emulator's process: made ready, closed, and never outliving whoever started it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hevcq.settings.model import AwsSettings
from support.aws import emulator
from support.aws.emulator import KEYS, REGION, Emulator, NotStarted, emulated_clients

ROOT = Path(__file__).resolve().parents[3]
STARTER = """
from tests.support.aws.emulator import Emulator
started = Emulator()
print(started.clients.sqs.create_queue(QueueName="one")["QueueUrl"], flush=True)
input()
"""


@pytest.mark.aws
def test_an_emulator_looks_at_no_account_and_ends_when_its_starter_is_killed() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER],
        cwd=ROOT,
        env={**os.environ, "AWS_PROFILE": "nobody"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ready = starter.stdout.readline()

    starter.kill()
    # Starter and emulator hold the other end of this pipe: it ends once both have.
    _, said = starter.communicate(timeout=60)

    assert ready.startswith("http://127.0.0.1:"), said
    assert said == ""


def test_an_emulator_that_cannot_start_says_so(monkeypatch, tmp_path: Path) -> None:
    broken = tmp_path / "serve.py"
    broken.write_text("raise SystemExit(1)")
    monkeypatch.setattr(emulator, "SERVE", broken)

    with pytest.raises(NotStarted, match="make setup"):
        Emulator()


def test_an_emulator_that_does_not_end_is_killed(monkeypatch, tmp_path: Path) -> None:
    stubborn = tmp_path / "serve.py"
    stubborn.write_text("import os, signal\nprint(os.getpid(), flush=True)\nsignal.pause()")
    monkeypatch.setattr(emulator, "SERVE", stubborn)
    monkeypatch.setattr(emulator, "END_S", 0)

    with Emulator() as started:
        pid = int(started.endpoint)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_emulated_clients_use_no_account_of_this_environment(monkeypatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    before = dict(os.environ)

    clients = emulated_clients(AwsSettings(region=REGION, endpoint_url="http://127.0.0.1:9"))

    signer = clients.s3._request_signer
    assert signer._credentials.access_key == KEYS["AWS_ACCESS_KEY_ID"]
    assert dict(os.environ) == before
    clients.close()
