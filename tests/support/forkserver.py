"""Start `hevcq` as a process of its own without its imports: forked from one that made them.

Half of the CPU of a small ingest is the import of its modules, and the suite starts hundreds. `start`
is `subprocess.Popen` for the installed command: a child of the caller, with the folder, environment,
streams and signals that Popen would give it. It runs the installed script from its first line on.
Whatever a fork could not reproduce is started by Popen itself: see `_forkable`.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HEVCQ = Path(sys.executable).with_name("hevcq")
SET_CHILD_SUBREAPER = 36
LONGEST_REQUEST = 1 << 17
# What hevcq and the SDK read when they run; anything else that differs may be read at an import.
READ_LATE = ("HEVCQ_", "AWS_", "XDG_")
READ_LATE_NAMES = {"HOME", "PATH", "PWD", "PYTEST_CURRENT_TEST"}
_one_at_a_time = threading.Lock()


def start(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a process as `subprocess.Popen(command, **options)` does."""
    if _forkable(command, options):
        return _Forked(command, **options)
    return subprocess.Popen(command, **options)


def run(command: list[str], timeout: float | None = None, **options: Any) -> Any:
    """Run a command to its end as `subprocess.run(..., capture_output=True)` does."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = start(command, **pipes, **options)
    with child:
        try:
            out, err = child.communicate(timeout=timeout)
        except BaseException:
            child.kill()
            raise
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _forkable(command: list[str], options: dict[str, Any]) -> bool:
    known = {"stdin", "stdout", "stderr", "text", "errors", "env", "cwd", "start_new_session"}
    if sys.platform != "linux" or command[0] != str(HEVCQ) or not known >= set(options):
        return False
    streams = [options.get(name) for name in ("stdin", "stdout", "stderr")]
    if None in streams or any(os.isatty(n) for n in map(_number, streams) if n >= 0):
        return False
    return _imports_see(options.get("env") or os.environ) == _imports_see(_server().environment)


def _number(stream: Any) -> int:
    return stream if isinstance(stream, int) else int(stream.fileno())


def _imports_see(environment: Any) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(READ_LATE) and name not in READ_LATE_NAMES
    }


class _Forked(subprocess.Popen):
    """A Popen whose child is forked by the server and handed to this process."""

    def _execute_child(self, *words: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *words).arguments
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        try:
            self.pid = _server().fork(
                {
                    "argv": asked["args"],
                    "cwd": os.fspath(asked["cwd"] or Path.cwd()),
                    "env": dict(asked["env"] or os.environ),
                    "session": asked["start_new_session"],
                },
                [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]],
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(*(asked[name] for name in ends))


class _Server:
    """The process that has imported all of hevcq; it ends when this one does."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self._line, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(other.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[other.fileno()],
        )
        other.close()
        atexit.register(self._close)
        assert self._line.recv(16) == b"ready", "the server of forks did not start"

    def fork(self, request: dict[str, Any], streams: list[int]) -> int:
        """Return the process id of a new child of this process."""
        words = json.dumps(request).encode()
        assert len(words) < LONGEST_REQUEST
        prctl = ctypes.CDLL(None).prctl
        with _one_at_a_time:
            # Its parent ends at once, so it becomes the child of whoever takes orphans up: us.
            prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._line, [words], streams)
                return int(self._line.recv(16))
            finally:
                prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _close(self) -> None:
        self._line.close()
        self._process.wait()


@functools.cache
def _server() -> _Server:
    return _Server()


def _import_all() -> None:
    import hevcq

    for module in pkgutil.walk_packages(hevcq.__path__, "hevcq."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # an extra that is not installed
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def _next_child(line: socket.socket) -> dict[str, Any] | None:
    """Fork one child for each request; return in each child, and once nobody can ask."""
    while True:
        words, streams, _, _ = socket.recv_fds(line, LONGEST_REQUEST, 3)
        if not words:
            return None
        answer, told = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child == 0:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                return json.loads(words)
            os.write(told, str(child).encode())
            os._exit(0)
        os.close(told)
        pid = os.read(answer, 16)
        os.waitpid(between, 0)
        for number in (answer, *streams):
            os.close(number)
        line.send(pid)


def _become(request: dict[str, Any]) -> None:
    """Take on what Popen and a new interpreter would have."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    sys.path[0] = str(HEVCQ.parent)


if __name__ == "__main__":
    asked_by = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    asked_by.send(b"ready")
    wanted = _next_child(asked_by)
    asked_by.detach()
    if wanted is not None:
        _become(wanted)
        runpy.run_path(str(HEVCQ), run_name="__main__")
