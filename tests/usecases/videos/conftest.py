"""A farm for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.videos import VideoBench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[VideoBench]:
    made = VideoBench(tmp_path)
    yield made
    made.close()
