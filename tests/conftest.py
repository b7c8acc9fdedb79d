"""Every test starts without a person's configuration: no HEVCQ_*, no AWS_*, an empty home."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from support.webdav import WebDav

# No deadline, because a loaded machine is no defect; and the same examples in every run, so that
# a change is judged by what it changes.
settings.register_profile("hevcq", deadline=None, derandomize=True)
settings.load_profile("hevcq")

# What collection makes, 9,000 items and every module, stays to the end. A full search for garbage in
# it takes 0.3 s: that was half of a collection, and more than a tenth of many tests.
gc.disable()

_open_files = [300]


def pytest_collection_finish() -> None:
    """Look for garbage only in what tests make, and seldom in all of it: the SDK's models are large."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)
    gc.enable()


def pytest_runtest_logfinish() -> None:
    """Look for garbage early where files of tests stay open in it: some machines allow 1,024."""
    if len(os.listdir("/proc/self/fd")) > _open_files[0]:
        gc.collect()
        _open_files[0] = len(os.listdir("/proc/self/fd")) + 250


@pytest.hookimpl(trylast=True)  # after what is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each tester begin with its share of the tests that may take longest, so that none ends with them.

    pytest-xdist gives each tester an equal run of the tests in their order.
    """
    items.sort(key=_longest_s, reverse=True)
    testers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    count = sum(_longest_s(item) > 0 for item in items)
    long, rest, dealt = items[:count], items[count:], list[pytest.Item]()
    for tester in range(testers):
        mine, left = long[tester::testers], testers - tester
        share = (len(items) - len(dealt)) // left - len(mine)
        dealt += mine + rest[:share]
        del rest[:share]
    items[:] = dealt


def _longest_s(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None else 0.0


_homes = itertools.count()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    for name in list(os.environ):
        if name.startswith(("HEVCQ_", "AWS_")):
            monkeypatch.delenv(name)
    # By a count of its own: mktemp() lists every folder that earlier tests made, for each number.
    home = tmp_path_factory.getbasetemp() / "homes" / str(next(_homes))
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("DATA", "CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    # One of all testers: what passed its self-test once passes in every other test.
    base = tmp_path_factory.getbasetemp()
    run = base.parent if base.name.startswith("popen-") else base
    monkeypatch.setenv("XDG_CACHE_HOME", str(run / "cache"))
    # Without a credentials file or an instance to ask, boto3 must never look for either.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def _no_catalog_stays_open() -> Iterator[None]:
    yield
    from support.catalog import close_catalogs

    close_catalogs()


@pytest.fixture(scope="module")
def _webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDav]:
    from support.webdav import serving

    with serving(tmp_path_factory.mktemp("webdav")) as started:
        yield started


@pytest.fixture
def webdav(_webdav: WebDav) -> WebDav:
    """A real WebDAV server with nothing on it, started once a module."""
    _webdav.reset()
    return _webdav


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A test that sets up logging (every command does) leaves its stream to nobody else.

    An error is logged as production logs it: structlog's own default prints every local variable,
    which took half a minute for one error of a farm.
    """
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])
    yield
    structlog.reset_defaults()
