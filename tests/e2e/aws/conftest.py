"""One emulator for a session's tests, and a fleet of its own for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.aws.fleet import Fleet
from support.aws.emulator import Emulator


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with Emulator() as made:
        yield made


@pytest.fixture
def fleet(tmp_path: Path, emulator: Emulator) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "fleet", emulator=emulator)
    yield made
    made.close()
