"""A data folder, and workers of it in processes of their own that a test can kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.sql.notes import open_with_notes
from contracts.backends import PROFILES
from hevcq.backends.sql.factory import SqlBackend, open_backend, open_sql
from hevcq.ports.store import Store
from hevcq.settings.model import Settings
from hevcq.sql.postgres import PostgresDatabase
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.util.clock import SystemClock
from support.clips import ManualClock
from support.postgres import database as new_database
from support.postgres import shared_dsn

TESTS = Path(__file__).resolve().parents[2]
PREAMBLE = """
import sys, threading
from pathlib import Path
from contracts.backends import PROFILES, source, task
from hevcq.util.clock import SystemClock
from hevcq.backends.sql.factory import open_sql
from hevcq.settings.model import Settings
opened = open_sql(Settings(data_dir=Path(sys.argv[1])), PROFILES, SystemClock())
backend, stop = opened.backend, threading.Event()
queue = backend.queues["hevc"]
def tell(*words):
    print(*words, flush=True)
def hang():
    tell("ready")
    sys.stdin.read()
"""


class Other:
    """Another process on the same data folder; it ends with the test at the latest."""

    def __init__(self, folder: Path, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + script, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def finish(self) -> int:
        """Let a process that hangs go on, and return its exit code."""
        self.process.stdin.close()
        return self.process.wait(timeout=30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hevcq.db"


@pytest.fixture
def database(path: Path) -> Iterator[SqliteDatabase]:
    opened = open_with_notes(path)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def other(folder: Path) -> Iterator[Callable[[str], Other]]:
    made: list[Other] = []

    def start(script: str) -> Other:
        made.append(Other(folder, script))
        return made[-1]

    yield start
    for process in made:
        process.close()


@pytest.fixture
def opener(folder: Path, clock: ManualClock) -> Iterator[Callable[..., SqlBackend]]:
    made: list[SqlBackend] = []

    def start(use: object = None) -> SqlBackend:
        from contracts.backends import PROFILES

        made.append(open_sql(Settings(data_dir=folder), PROFILES, use or clock))
        return made[-1]

    yield start
    for opened in made:
        opened.close()


@pytest.fixture
def store(opener) -> Store:
    return opener().backend.store


@pytest.fixture
def shared() -> Iterator[PostgresDatabase]:
    opened = new_database(SystemClock())
    yield opened
    opened.close()


@pytest.fixture
def machine(tmp_path: Path, shared: PostgresDatabase) -> Iterator[Callable[[str], SqlBackend]]:
    """Open the same database on another machine, with a data folder of its own."""
    made: list[SqlBackend] = []

    def start(name: str, clock: SystemClock | ManualClock | None = None) -> SqlBackend:
        other = PostgresDatabase(shared_dsn(), clock or SystemClock(), schema=shared._schema)
        folder, files = tmp_path / name, tmp_path / "files"
        made.append(open_backend(folder, files, PROFILES, other.clock, other))
        return made[-1]

    yield start
    for opened in made:
        opened.close()
