"""Serve a remote source to ffmpeg over HTTP on 127.0.0.1, as a proxy with a secret password.

Only the ranges that ffmpeg reads are fetched, each once, into a sparse file. ffmpeg gets neither
credentials nor a signed URL, and needs no protocol but plain HTTP to this machine. It is a proxy
because ffmpeg takes a proxy's password from its environment, which only its own user can read, but a
URL from its arguments, which everybody on the machine can read. ffmpeg takes a connection that ends
early for the end of the video (exit status 0 and a short output). So the proxy records each error, and
leaving the context raises it.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from hevcq.errors import DiskFull, Unavailable, is_full
from hevcq.ports.store import PROXY_SCHEME, PROXY_USER, Write

Fetch = Callable[[int, int, Write], None]
"""Read the source from one offset to another, and give `Write` each byte once, with its offset."""
BLOCK_BYTES = 256 * 1024
"""Bytes of a fetch; at 30 ms a request sequential reads are 8 MB/s, and an encode reads less."""
SEND_BYTES = 32 * 1024
"""Bytes of the send buffer, all wasted when ffmpeg seeks elsewhere."""
SILENCE_S = 600.0
"""Seconds after which a connection is closed if nothing is read from it."""
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")


class SparseFile:
    """The bytes fetched so far of a source of `size` bytes; `close` removes them.

    A lock keeps reads and writes apart from `close`, after which another file may get the descriptor.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._present = bytearray(-(-size // BLOCK_BYTES))
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see close
        os.truncate(self._file.fileno(), size)

    def read(self, at: int, count: int, fetch: Fetch) -> bytes:
        """Return 1 to `count` bytes from offset `at`; b"" at the end of the source.

        Raises the errors of `fetch`.
        """
        end, first = min(self.size, at + count), at // BLOCK_BYTES
        if at >= end:
            return b""
        if not self._present[first]:
            fetch(first * BLOCK_BYTES, min(self.size, (first + 1) * BLOCK_BYTES), self._write)
            self._present[first] = 1
        absent = self._present.find(0, first)
        end = min(end, absent * BLOCK_BYTES) if absent >= 0 else end
        with self._lock:
            return os.pread(self._file.fileno(), end - at, at)

    def _write(self, at: int, content: bytes) -> None:
        while content:
            with self._lock:
                written = os.pwrite(self._file.fileno(), content, at)
            content, at = content[written:], at + written

    def close(self) -> None:
        with self._lock:
            self._file.close()


@contextmanager
def serve(folder: Path, size: int, fetch: Fetch, name: str) -> Iterator[str]:
    """Serve a source of `size` bytes inside the context as a file of this name; yield its location.

    The fetched bytes are in `folder`, in a file without a name. Leaving the context raises the error of
    a failed read, such as DiskFull: the reader then saw only part of the source.
    """
    file = SparseFile(folder, size)
    server = _Server(file, fetch, f"/{name}")
    try:
        with closing(file), server.running():
            yield f"{PROXY_SCHEME}{server.url.removeprefix('http://')}?{server.password}"
            # Read before the server closes: later errors concern answers that nobody waits for.
            failure = server.failure
    except BaseException as error:
        if server.failure is None:
            raise
        raise server.failure from error
    if failure is not None:
        raise failure


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, file: SparseFile, fetch: Fetch, place: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.password = secrets.token_urlsafe(24)
        self.failure: BaseException | None = None
        self.size, self._file, self._fetch, self._lock = file.size, file, fetch, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}{place}"
        credentials = base64.b64encode(f"{PROXY_USER}:{self.password}".encode())
        self.authorization = b"Basic " + credentials

    def read(self, at: int, count: int) -> bytes:
        """Read from the file for one connection at a time; after a failure raise that again."""
        with self._lock:
            if self.failure is not None:
                raise self.failure
            try:
                return self._file.read(at, count, self._fetch)
            except BaseException as error:
                self.failure = error
                if is_full(error):
                    self.failure = DiskFull(f"There is no room for what is read of {self.url}.")
                raise self.failure from error

    def server_bind(self) -> None:
        """Bind without the name lookup of the base class."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="hevcq-relay",
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: ffmpeg closes connections at any time, and failures are recorded."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S
    server: _Server

    def do_GET(self) -> None:
        self.close_connection = True
        given = self.headers.get("Proxy-Authorization", "").encode("utf-8", "replace")
        if not secrets.compare_digest(given, self.server.authorization):
            self._answer(407, 0)
            return
        if self.path != self.server.url:
            self._answer(404, 0)
            return
        size = self.server.size
        match = _RANGE.match(self.headers.get("Range", "bytes=0-"))
        at = int(match[1]) if match else size
        end = min(size, int(match[2]) + 1) if match and match[2] else size
        if at >= end:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(206, end - at, f"bytes {at}-{end - 1}/{size}")
        try:
            while at < end:
                content = self.server.read(at, min(BLOCK_BYTES, end - at))
                self.wfile.write(content)
                at += len(content)
        except TimeoutError:
            silence = f"Nothing was read from the local proxy for {SILENCE_S:.0f} s."
            self.server.failure = self.server.failure or Unavailable(silence)
            raise

    def _answer(self, status: int, length: int, span: str = "") -> None:
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if span:
            self.send_header("Content-Range", span)
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            self.send_header("Proxy-Authenticate", 'Basic realm="hevcq"')
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Log nothing: stderr is for messages to people."""
