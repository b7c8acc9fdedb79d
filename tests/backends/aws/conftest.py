"""A farm on the emulator with a clock that moves by itself where code waits, and its parts."""

import pytest

from contracts.backends import PROFILES
from hevcq.backends.aws.s3 import transfer
from support.aws.breaking import Breaking
from support.aws.moto_server import make_farm

MIN_PART = 5 * 1024 * 1024
"""The least that S3 takes as a part, so that small files go in parts."""


@pytest.fixture
def farm():
    found = make_farm(PROFILES)
    found.clock.auto = True
    yield found
    found.backend.close()


@pytest.fixture
def queue(farm):
    """The queue of "hevc", with breakable clients."""
    found = farm.backend.queues["hevc"]
    found._sqs = found._dlq._sqs = Breaking(farm.clients.sqs)
    found._polls = Breaking(farm.clients.polls)
    found._renewal._sqs = found._sqs
    return found


@pytest.fixture
def ledger(farm):
    """The ledger over a client that a test can watch and break."""
    found = farm.backend.ledger
    found.db = Breaking(farm.clients.dynamodb)
    return found


@pytest.fixture
def store(farm, monkeypatch):
    """The store, with a breakable client and small parts."""
    monkeypatch.setattr(transfer, "PART_BYTES", MIN_PART)
    found = farm.backend.store
    found._s3 = found._control = Breaking(farm.clients.s3)
    return found


@pytest.fixture
def large(tmp_path):
    """A file of three parts."""
    import os

    path = tmp_path / "large.mp4"
    path.write_bytes(os.urandom(2 * MIN_PART + 1024 * 1024 + 3))
    return path
