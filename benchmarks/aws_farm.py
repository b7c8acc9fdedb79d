"""A farm on the emulator of AWS for the benchmarks: a server of its own, and what is opened on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.aws.emulator import KEYS, REGION, Emulator

from hevcq.backends.aws.clients import Clients, make_clients
from hevcq.backends.aws.factory import open_aws
from hevcq.backends.aws.emulator_setup import create_resources
from hevcq.util.clock import SystemClock
from hevcq.domain.profile import Profile
from hevcq.ports.backend import Backend
from hevcq.settings.model import AwsSettings, Settings


@contextmanager
def emulator() -> Iterator[str]:
    """Run the emulator inside the context, its keys in the environment; yield its endpoint."""
    os.environ.update(KEYS)
    with Emulator() as running:
        yield running.endpoint


def made(endpoint: str, profiles: Mapping[str, Profile]) -> tuple[AwsSettings, Clients]:
    """Make the resources of these profiles; return their settings, and the clients used."""
    aws = AwsSettings(
        region=REGION,
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
