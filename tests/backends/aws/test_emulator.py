"""The emulator's process: made ready, closed, and never outliving whoever started it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
