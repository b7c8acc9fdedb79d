"""A farm on the emulator of AWS for the benchmarks: a server of its own, and what is opened on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hevcq.aws.clients import Clients, make_clients
from hevcq.aws.open import open_aws
from hevcq.aws.setup import create_resources
from hevcq.clock import SystemClock
from hevcq.domain.profile import Profile
from hevcq.ports.backend import Backend
from hevcq.settings import AwsSettings, Settings

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def emulator() -> Iterator[str]:
    """Run the emulator inside the context; yield its endpoint."""
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "aws" / "serve.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.stdin.close()
        server.wait(timeout=30)


def made(endpoint: str, profiles: Mapping[str, Profile]) -> tuple[AwsSettings, Clients]:
    """Make the resources of these profiles; return their settings, and the clients used."""
    aws = AwsSettings(
        region="eu-central-1",
        endpoint_url=endpoint,
        input_bucket="bench-in",
        output_bucket="bench-out",
    )
    clients = make_clients(aws)
    return create_resources(clients, aws, profiles), clients


def opened(
    endpoint: str, profiles: Mapping[str, Profile], folder: Path
) -> tuple[Backend, Clients, AwsSettings]:
    """Make a farm with its data in `folder`, and open it."""
    aws, clients = made(endpoint, profiles)
    settings = Settings(backend="aws", aws=aws, data_dir=folder / "data")
    return open_aws(settings, profiles, SystemClock(), clients), clients, aws
