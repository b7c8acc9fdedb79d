"""Machines that replace originals on one share, whose lock files do not meet: the database keeps them apart."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from hevcq.errors import HevcqError, Unavailable
from hevcq.library.filesystem import FileSystem
from hevcq.library.own_files import job_lock, root_lock
from hevcq.library.place import sweep
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.replacement.swap import Swap
from hevcq.sql.catalog import Catalog
from hevcq.sql.postgres import PostgresDatabase
from hevcq.usecases.context import LibraryPorts
from hevcq.util.clock import SystemClock
from hevcq.wiring.contexts import open_sync
from support.library import ORIGINAL, RENDITION, video
from support.postgres import own_server

PREAMBLE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from hevcq.library.filesystem import FileSystem
from hevcq.library.own_files import job_lock, root_lock
from hevcq.library.replacement.swap import Swap
from hevcq.sql.postgres import PostgresDatabase
from hevcq.util.clock import SystemClock
from support.library import video
database, root = PostgresDatabase(sys.argv[1], SystemClock()), Path(sys.argv[2])
files = FileSystem(shared=database.lock)
"""
HOLD = (
    PREAMBLE
    + """
with root_lock(root, files), job_lock(root, "0a", b'[".hevcq-0a.part"]', files):
    print("held", flush=True)
    sys.stdin.read()
"""
)
DIE = (
    PREAMBLE
    + """
class Mortal(FileSystem):
    def exchange(self, one, other):
        done = super().exchange(one, other)
        os.kill(os.getpid(), 9)
        return done
made = video(root)
Swap(root, SystemClock(), Mortal(shared=database.lock)).replace(made.change, made.fetch)
"""
)


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with own_server() as server:
        yield server.dsn


@pytest.fixture
def database(dsn: str) -> Iterator[PostgresDatabase]:
    opened = PostgresDatabase(dsn, SystemClock())
    yield opened
    opened.close()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lock files keep nobody out, as on a share that keeps each machine's locks to itself."""
    monkeypatch.setattr("hevcq.util.file_lock.fcntl.flock", lambda *_: None)


@contextmanager
def machine(dsn: str, root: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    tests = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, dsn, str(root), str(tests)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def tree(root: Path) -> dict[str, bytes]:
    """Return all files but the notes of what a sweep is to remove."""
    files = [path for path in root.rglob("*") if path.is_file() and path.parent.name != "busy"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def cut(dsn: str) -> None:
    """End every connection that holds a lock."""
    with psycopg.connect(dsn) as killer:
        killer.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
        )


def test_one_machine_waits_for_another_and_goes_on_once_that_was_killed(
    dsn, database, tmp_path, apart
):
    made, files = video(tmp_path), FileSystem(shared=database.lock)
    left = tmp_path / ".hevcq-0a.part"
    left.write_bytes(b"half a rendition")
    with machine(dsn, tmp_path, HOLD) as other, ThreadPoolExecutor(1) as pool:
        assert other.stdout.readline() == "held\n"
        busy = job_lock(tmp_path, "0a", b"[]", files)
        with pytest.raises(Unavailable, match="another hevcq is writing"):
            ExitStack().enter_context(busy)
        assert sweep(tmp_path, files) == []
        swap = pool.submit(
            Swap(tmp_path, SystemClock(), FileSystem(shared=database.lock)).replace,
            made.change,
            made.fetch,
        )
        assert made.source.read_bytes() == ORIGINAL
        assert not swap.done()
        other.kill()
        swap.result(timeout=30)

    assert made.target.read_bytes() == RENDITION
    assert sweep(tmp_path, files) == [left]


def test_a_killed_swap_is_settled_once_by_whoever_looks_next(dsn, tmp_path, apart):
    with machine(dsn, tmp_path, DIE) as killed:
        assert killed.wait(30) == -9
    machines = [PostgresDatabase(dsn, SystemClock()) for _ in range(3)]

    def recover(each: PostgresDatabase) -> list[RecoveryOutcome]:
        swap = Swap(tmp_path, SystemClock(), FileSystem(shared=each.lock))
        return [found.outcome for found in swap.recover()]

    with ThreadPoolExecutor(3) as pool:
        found = sorted(pool.map(recover, machines))
    for each in machines:
        each.close()

    assert found == [[], [], [RecoveryOutcome.FINISHED]]
    (kept,) = Swap(tmp_path, SystemClock()).kept()
    assert kept.retained.read_bytes() == ORIGINAL
    assert kept.target.read_bytes() == RENDITION
    Swap(tmp_path, SystemClock()).undo(kept.job_id)
    assert kept.source.read_bytes() == ORIGINAL


class Cut:
    """Locks of a machine whose connection is cut when it asks for the `at`th time."""

    def __init__(self, database: PostgresDatabase, dsn: str, root: Path, at: int) -> None:
        self._database, self._dsn, self._root, self._left = database, dsn, root, at
        self.seen: dict[str, bytes] = {}

    @contextmanager
    def lock(self, name: str, busy: HevcqError | None = None) -> Iterator[Callable[[], None]]:
        with self._database.lock(name, busy) as require:

            def counted() -> None:
                self._left -= 1
                if self._left == 0:
                    cut(self._dsn)
                    self.seen = tree(self._root)
                require()

            yield counted


@pytest.mark.parametrize("undo", [False, True])
def test_a_machine_whose_connection_is_cut_touches_nothing_more(
    dsn, database, tmp_path, apart, undo
):
    for number in range(1 + undo, 100, 3):
        root = tmp_path / str(number)
        root.mkdir()
        made, cutting = video(root), Cut(database, dsn, root, number)
        swap = Swap(root, SystemClock(), FileSystem(shared=cutting.lock))
        if undo:
            Swap(root, SystemClock()).replace(made.change, made.fetch)
        try:
            if undo:
                swap.undo(made.change.certificate.job_id)
            else:
                swap.replace(made.change, made.fetch)
        except Unavailable:
            pass
        if not cutting.seen:
            break  # it was done before
        assert tree(root) == cutting.seen

        Swap(root, SystemClock(), FileSystem(shared=database.lock)).recover()
        assert made.source.read_bytes() in {ORIGINAL, RENDITION}
        assert ORIGINAL in tree(root).values()
    assert number > 5


def test_the_database_is_away_before_a_swap_begins_and_nothing_is_touched(tmp_path):
    with own_server() as server:
        opened = PostgresDatabase(server.dsn, SystemClock())
        made, before = video(tmp_path), tree(tmp_path)
        server.stop()
        with pytest.raises(Unavailable):
            Swap(tmp_path, SystemClock(), FileSystem(shared=opened.lock)).replace(
                made.change, made.fetch
            )
        after = {name: content for name, content in tree(tmp_path).items() if ".hevcq" not in name}
        assert after == before
        server.start()
        with root_lock(tmp_path, FileSystem(shared=opened.lock)):
            pass
        opened.close()


def test_a_sync_whose_lock_was_lost_lands_nothing_more(dsn, database, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hevcq.wiring.contexts.open_remote", lambda _sync: SimpleNamespace(close=lambda: None)
    )
    clock = SystemClock()
    catalog = Catalog(database, clock)
    app = SimpleNamespace(
        catalog=catalog,
        clock=clock,
        library_ports=LibraryPorts(catalog, clock, tmp_path),
        settings=SimpleNamespace(data_dir=tmp_path, min_free_mib=0),
    )
    part, landed = tmp_path / "part", tmp_path / "landed"
    part.write_bytes(b"video")

    with open_sync(app, SimpleNamespace(name="phone"), threading.Event()) as ports:
        cut(dsn)
        with pytest.raises(Unavailable):
            ports.fs.rename_new(part, landed)

    assert (part.exists(), landed.exists()) == (True, False)
