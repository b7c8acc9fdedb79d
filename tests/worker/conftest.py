"""The farm that most tests of a worker use: fakes in memory, and a clock that moves when told to."""

from pathlib import Path

import pytest

from support.fakes.farm import Farm


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)
