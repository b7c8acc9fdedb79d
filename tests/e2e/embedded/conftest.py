"""Each acceptance test gets a farm of its own; nothing it started outlives it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.embedded.farm import Farm


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path / "farm")
    yield made
    made.close()
