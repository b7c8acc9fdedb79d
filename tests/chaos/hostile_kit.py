"""Traps for hostile files: a listener nobody may reach, a secret nobody may open, boxes to forge."""

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.matroska import TRACK, VIDEO, element
from support.rendition import box

IN_OPEN = 0x20
PATIENCE_S = 20.0
_LIBC = ctypes.CDLL(None, use_errno=True)


def plant(path: Path, what: str) -> None:
    """Put a pipe, a file of 8 GiB or a link to a pipe where a proof is looked for."""
    if what == "giant":
        with path.open("wb") as sparse:
            sparse.truncate(8 * 2**30)
        return
    pipe = path if what == "pipe" else path.with_name("pipe")
    os.mkfifo(pipe)
    if pipe != path:
        path.symlink_to(pipe)


class Traps:
    """A file and a port that a hostile file names; `untouched` says that nobody came."""

    def __init__(self, secret: Path, server: socket.socket, watch: int) -> None:
        self.secret = secret
        self.url = f"http://127.0.0.1:{server.getsockname()[1]}/video.ts"
        self._server = server
        self._watch = watch

    def untouched(self) -> bool:
        """Return whether no connection came and nobody opened the secret."""
        for ask in (self._server.accept, lambda: os.read(self._watch, 4096)):
            try:
                ask()
            except BlockingIOError:
                continue
            return False
        return True


@contextmanager
def traps(secret: Path) -> Iterator[Traps]:
    """Watch a file for being opened (inotify), and listen on a port of 127.0.0.1."""
    watch = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert watch >= 0
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            assert _LIBC.inotify_add_watch(watch, os.fsencode(secret), IN_OPEN) >= 0
            yield Traps(secret, server, watch)
    finally:
        os.close(watch)


_INSIDE = (b"moov", b"trak", b"mdia", b"minf", b"dinf")


def with_reference(video: bytes, entry: bytes) -> bytes:
    """Replace every data reference of an MP4 by `entry`: then its samples are in another file."""
    made, at = b"", 0
    while at < len(video):
        size, kind = struct.unpack_from(">I", video, at)[0], video[at + 4 : at + 8]
        body = video[at + 8 : at + size]
        if kind == b"dref":
            body = struct.pack(">II", 0, 1) + entry
        elif kind in _INSIDE:
            body = with_reference(body, entry)
        made += box(kind, body)
        at += size
    return made


def alias(path: Path) -> bytes:
    """Return a QuickTime alias record of an absolute path."""
    name, whole = os.fsencode(path.name)[:63], os.fsencode(path)
    record = bytes(10) + bytes([1]) + b"/".ljust(27, b"\0") + bytes(12)
    record += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    record += struct.pack(">hh", 1, 1) + bytes(16)
    record += struct.pack(">hH", 2, len(whole)) + whole + b"\0" * (len(whole) % 2)
    record += struct.pack(">hH", -1, 0)
    return box(b"alis", bytes(4) + record.ljust(200, b"\0"))


EBML = element(0x1A45DFA3, element(0x4282, "matroska"))


def track(width: int = 160, height: int = 120) -> bytes:
    """Return a Matroska video track that claims a size."""
    size = element(0xB0, width), element(0xBA, height)
    facts = element(0xD7, 1), element(0x73C5, 1), element(0x83, 1), element(0x86, "V_MPEG4/ISO/AVC")
    return element(TRACK, *facts, element(VIDEO, *size))


def in_time(call: Callable[[], object]) -> object:
    """Return what `call` returns; fail if it waits for somebody who never comes."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert found, "it waits for ever, or broke"
    return found[0]
