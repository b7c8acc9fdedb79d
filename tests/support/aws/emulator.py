"""The emulator of AWS in a process of its own: for tests, campaigns, benchmarks and the demo.

`aws.emulator` where tests are on the path, `tests.support.aws.emulator` from the root: it imports nothing
of the tests, so that both ways work.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from unittest import mock

from hevcq.backends.aws.clients import Clients, make_clients
from hevcq.settings.model import AwsSettings

SETUP = Path(__file__).parents[3] / "docker" / "emulator_setup.py"
_spec = importlib.util.spec_from_file_location("emulator_setup", SETUP)
assert _spec is not None
assert _spec.loader is not None
_setup = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_setup)
create_resources = _setup.create_resources
"""Makes the farm's resources on the emulator."""
REGION = "eu-central-1"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
SERVE = Path(__file__).with_name("serve.py")
END_S = 30


class NotStarted(RuntimeError):
    """The emulator's process ended before it was ready."""


class Emulator:
    """The shimmed moto server on a port the system chose, ready once this is made.

    It ends with `close` or the context, and by itself when whoever started it is gone, killed or
    not: it serves until the standard input that it got from there is closed.
    """

    def __init__(self) -> None:
        # In a session of its own: Ctrl-C is for those who work on it first, then for it.
        self._process = subprocess.Popen(
            [sys.executable, str(SERVE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            self.close()
            raise NotStarted("The emulator did not start: `make setup` installs it (moto[server]).")

    @cached_property
    def clients(self) -> Clients:
        """Clients of this emulator."""
        return emulated_clients(AwsSettings(region=REGION, endpoint_url=self.endpoint))

    def close(self) -> None:
        """End the server, and wait until it has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            # A server that holds much takes its time on a busy machine; what it was for is done.
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def emulated_clients(settings: AwsSettings) -> Clients:
    """Make clients with the emulator's keys, whatever account this environment is signed in to."""
    with mock.patch.dict(os.environ, environment(), clear=True):
        return make_clients(settings)


def environment() -> dict[str, str]:
    """Return this environment, signed in to the emulator and to no account."""
    return {**{n: v for n, v in os.environ.items() if not n.startswith("AWS_")}, **KEYS}
