"""A moto server over HTTP in this process, on a port the system chooses, and a farm made on it.

Time in SQS is a test's ManualClock: moto asks one function for it, so that nothing sleeps.
"""

import atexit
import copy
import copyreg
import functools
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hevcq.backends.aws.clients import Clients
from hevcq.backends.aws.factory import open_aws
from hevcq.domain.profile import Profile
from hevcq.ports.backend import Backend
from hevcq.settings.model import AwsSettings, Settings
from hevcq.util.clock import Clock, SystemClock
from support.aws import shims
from support.aws.emulator import REGION, create_resources, emulated_clients
from support.clips import ManualClock


@functools.cache
def endpoint() -> str:
    """Start the server of this process at first use; it ends with the process."""
    server, address = shims.serve()
    atexit.register(server.stop)
    return address


@functools.cache
def clients() -> Clients:
    """Return one set of clients a process: making them is most of a small test's time."""
    return emulated_clients(AwsSettings(region=REGION, endpoint_url=endpoint()))


@functools.cache
def scratch() -> str:
    """Return a folder of this process, which goes with it."""
    folder = tempfile.TemporaryDirectory(prefix="hevcq-farms-")
    atexit.register(folder.cleanup)
    return folder.name


def reset() -> None:
    """Empty the server's services that the farm uses: no queue, bucket, topic or table is left."""
    for backend in _backends():
        backend.reset()


def _backends() -> Iterator[Any]:
    from moto.backends import get_backend

    for service in ("s3", "sns", "sqs", "dynamodb"):
        for account in get_backend(service).values():
            yield from account.values()


_made: dict[str, tuple[AwsSettings, dict[Any, dict[str, Any]], dict[str, Any]]] = {}


def _resources(wanted: AwsSettings, profiles: Mapping[str, Profile]) -> AwsSettings:
    """Make the resources of a farm; equal ones are copied, for their 30 calls take 0.1 s of CPU."""
    from moto.s3.models import s3_backends

    key, owners = repr((wanted, profiles)), s3_backends.bucket_accounts
    if key not in _made or not _made[key][1].keys() <= set(_backends()):  # mock_aws makes others
        settings = create_resources(clients(), wanted, profiles)
        _made[key] = settings, _copies({b: b.__dict__ for b in _backends()}), dict(owners)
        return settings
    settings, states, known = _made[key]
    for backend, state in _copies(states).items():
        backend.__dict__ = state
    owners.update(known)
    return settings


def _copies(states: Mapping[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Copy what backends hold, but no backend: a queue or a topic may name its own."""
    copyreg.pickle(threading.Condition, lambda _one: (threading.Condition, ()))
    memo = {id(each): each for each in states}
    return {each: copy.deepcopy(state, memo) for each, state in states.items()}


def follow(clock: Clock) -> None:
    """Let SQS's time be this clock's from now on.

    Each look is a microsecond later than the one before: moto compares strictly, so that at a
    standstill a message made visible "now" would never be seen.
    """
    from moto.sqs import models

    looks = itertools.count(1)
    models.unix_time_millis = lambda _dt=None: clock.now() * 1000 + next(looks) / 1000


@dataclass
class Farm:
    """A farm on the emulator; `settings` are complete, with the topic's ARN."""

    clock: Clock
    settings: Settings
    clients: Clients
    backend: Backend

    @property
    def endpoint(self) -> str:
        return self.settings.aws.endpoint_url

    def url(self, name: str) -> str:
        """Return the URL of a queue by its full name."""
        return self.clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def put_body(self, queue: str, body: str) -> None:
        """Send any text to a profile's queue."""
        url = self.url(self.settings.aws.queue_prefix + queue)
        self.clients.sqs.send_message(QueueUrl=url, MessageBody=body)


def make_farm(profiles: Mapping[str, Profile], *, input_bucket: str = "uploads") -> Farm:
    """Empty the server and make a farm of these profiles on it, on a ManualClock."""
    reset()
    clock = ManualClock(start=time.time())
    follow(clock)
    aws = AwsSettings(
        region=REGION,
        endpoint_url=endpoint(),
        input_bucket=input_bucket,
        output_bucket="out",
    )
    made = _resources(aws, profiles)
    settings = Settings(backend="aws", aws=made, data_dir=Path(tempfile.mkdtemp(dir=scratch())))
    backend = open_aws(settings, profiles, clock, clients())

    def close() -> None:
        backend.close()
        # Whoever uses this process's server next must not meet a clock that stands still.
        follow(SystemClock())

    return Farm(clock, settings, clients(), replace(backend, close=close))
