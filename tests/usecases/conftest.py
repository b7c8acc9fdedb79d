"""What the tests of most use cases begin with."""

from pathlib import Path

import pytest

from support.ingest.run import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
