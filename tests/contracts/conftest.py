"""The worlds the suites run in; `contracts.backends` says which there are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.backends import BACKENDS, OPENERS, STORES, World


@pytest.fixture(params=BACKENDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from _opened(request.param, tmp_path)


@pytest.fixture(params=STORES)
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Where objects are kept."""
    yield from _opened(request.param, tmp_path)


@pytest.fixture(params=[each for each in BACKENDS if each.values != ("memory",)])
def keeps_records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Where records of videos and accounts are kept."""
    yield from _opened(str(request.param), tmp_path)


@pytest.fixture(params=[each for each in STORES if each.values != ("memory",)])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Where a page is served: it keeps uploads in no memory."""
    yield from _opened(str(request.param), tmp_path)


def _opened(name: str, folder: Path) -> Iterator[World]:
    found = OPENERS[name](folder)
    try:
        yield found
    finally:
        found.close()
