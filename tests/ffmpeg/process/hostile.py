"""Plays an ffmpeg that a video took over: tries what it must not be able to do, and tells as JSON.

Started as `hostile.py <json>` with the places to try; needs the standard library only.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TOLD = json.loads(sys.argv[1])
PARENT = int(TOLD["parent"])


def connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.connect(address)  # type: ignore[arg-type]
        made.send(b"x")


def unshare() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(0x1000_0000) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def attach() -> None:
    if ctypes.CDLL(None, use_errno=True).ptrace(16, PARENT, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def create(folder: str) -> None:
    path = f"{folder}/hevcq-hostile-{os.getpid()}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)


def create_many() -> None:
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(1000)]
    raise AssertionError(len(kept))


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read its video": lambda: Path(TOLD["video"]).read_bytes(),
    "write its output": lambda: Path(TOLD["output"]).write_text("rendition"),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "read the parent's environment": lambda: Path(f"/proc/{PARENT}/environ").read_bytes(),
    "read the parent's memory": lambda: open(f"/proc/{PARENT}/mem", "rb").close(),
    "list the parent's open files": lambda: os.listdir(f"/proc/{PARENT}/fd"),
    "list the processes": lambda: os.listdir("/proc"),
    "trace the parent": attach,
    "signal the parent": lambda: os.kill(PARENT, signal.SIGCONT),
    "read another video": lambda: Path(TOLD["other"]).read_bytes(),
    "list the folder": lambda: os.listdir(Path(TOLD["video"]).parent),
    "read the passwords": lambda: Path("/etc/passwd").read_bytes(),
    "change its video": lambda: open(TOLD["video"], "r+b").close(),
    "remove its video": lambda: Path(TOLD["video"]).unlink(),
    "rename its video": lambda: Path(TOLD["video"]).rename(TOLD["video"] + ".old"),
    "create a file": lambda: Path(TOLD["output"] + ".new").touch(),
    "link to a file": lambda: os.symlink("/etc", TOLD["output"] + ".link"),
    "create a folder": lambda: Path(TOLD["output"] + ".folder").mkdir(),
    "create a file in /tmp": lambda: create("/tmp"),
    "create shared memory": lambda: create("/dev/shm"),
    "change another video's times": lambda: os.utime(TOLD["other"], (1, 1)),
    "change another video's mode": lambda: os.chmod(TOLD["other"], 0o666),
    "label another video": lambda: os.setxattr(TOLD["other"], "user.label", b"x"),
    "connect by TCP": lambda: connect(
        socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", TOLD["port"])
    ),
    "connect to the relay": lambda: connect(
        socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", TOLD["relay"])
    ),
    "connect by IPv6": lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", TOLD["port"])),
    "send by UDP": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", TOLD["port"])),
    "connect to a local service": lambda: connect(
        socket.AF_UNIX, socket.SOCK_STREAM, TOLD["service"]
    ),
    "make a namespace": unshare,
    "open a thousand files": create_many,
}


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return f"no: {error.strerror}"
    except BaseException as error:  # noqa: BLE001 - told
        return f"no: {error!r}"
    return "yes"


if __name__ == "__main__":
    found = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}
    found["its environment"] = ",".join(sorted(os.environ))
    print(json.dumps(found))
