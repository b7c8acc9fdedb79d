"""A real PostgreSQL server, on a socket in a temporary folder.

The testers of a run share one: each holds a lock on a file, and the server's keeper stops it once nobody
does, however they ended.
"""

import fcntl
import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from hevcq.sql.database import Connection
from hevcq.sql.postgres import PostgresDatabase
from hevcq.util.clock import Clock

PROGRAMS = Path("/usr/lib/postgresql")
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "80",
    "logging_collector": "off",
}
HBA = "local all locked scram-sha-256\nlocal all all trust\n"
"""The role `locked` needs a password."""
USER = "postgres" if os.geteuid() == 0 else getpass.getuser()


def program(name: str) -> str | None:
    """Return a program of the server, as Debian installs it or from the PATH."""
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


class Server:
    """A server of one's own, in a folder: it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.dsn = folder, f"host={folder} user={USER} dbname=postgres"

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER)
        self._run("initdb", "--no-sync", "--auth=trust", "-U", USER, "-D", self._data, "-E", "UTF8")
        Path(self._data, "pg_hba.conf").write_text(HBA)

    def start(self) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        options += f" -c listen_addresses='' -k {self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-o", options)

    def stop(self, how: str = "fast") -> None:
        """Stop it as a restart does (fast), or by a crash (immediate)."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", how)

    def kill(self) -> None:
        """Kill all its processes at once, as the kernel does where memory ran out."""
        gone = threading.Event()  # until whoever inherited them has seen their end
        keeper = int(Path(self._data, "postmaster.pid").read_text().split()[0])
        os.kill(keeper, signal.SIGSTOP)  # or it ends the others before they are killed
        family = [
            keeper,
            *map(int, Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()),
        ]
        for pid in reversed(family):
            os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() for pid in family):
            gone.wait(0.01)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, name: str, *words: str) -> None:
        as_user = {"user": USER, "group": USER} if os.geteuid() == 0 else {}
        with (self.folder / "log").open("ab") as log:
            subprocess.run(
                [program(name) or name, *words],
                check=True,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                **as_user,
            )


def root() -> Path:
    return Path(os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir())


def need_server() -> None:
    if program("initdb") is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")


@contextmanager
def own_server() -> Iterator[Server]:
    """A server of the test's own, stopped with it: a copy of one that was made once for all of them."""
    from support.once import made_once

    need_server()
    made = made_once("server", lambda folder: Server(folder).make())
    folder = Path(tempfile.mkdtemp(prefix="hevcq-pg-", dir=root()))
    subprocess.run(["cp", "-a", f"{made}/.", folder], check=True)
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def shared_dsn() -> str:
    """Return the connection string of the server that the testers of this run share."""
    need_server()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"alone-{os.getpid()}")
    folder = root() / f"hevcq-pg-{run[:16]}"
    folder.mkdir(exist_ok=True)
    held = os.open(folder / "held", os.O_RDWR | os.O_CREAT, 0o600)  # until this process ends
    fcntl.flock(held, fcntl.LOCK_SH)
    with (folder / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            keeper = subprocess.Popen(
                [sys.executable, __file__, str(folder)],
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            assert keeper.stdout is not None
            said = keeper.stdout.readline()
            keeper.stdout.close()
            keeper.returncode = 0  # it outlives this process
            assert said, (folder / "log").read_text()
            (folder / "ready").touch()
    return Server(folder).dsn


def database(clock: Clock) -> PostgresDatabase:
    """Open an empty schema of this tester's own on the shared server."""
    schema = f"tester_{os.getpid()}"
    opened = PostgresDatabase(shared_dsn(), clock, schema=schema)
    opened.write(_empty)
    return opened


def _empty(connection: Connection) -> None:
    """Delete all rows; that is quicker than to make the tables anew."""
    names = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() "
        "AND tablename NOT IN ('hevcq_schema', 'commit_mark')"
    )
    connection.execute("SET LOCAL session_replication_role = replica")  # no triggers
    connection.execute("; ".join(f"DELETE FROM {name}" for (name,) in names))


def keep(folder: Path) -> None:
    """Run the server until nobody holds the folder."""
    server = Server(folder)
    server.make()
    server.start()
    print("ready", flush=True)
    with (folder / "held").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
