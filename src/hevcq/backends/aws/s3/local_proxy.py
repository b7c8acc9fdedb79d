"""Serve one S3 object to ffmpeg over HTTP on 127.0.0.1, as a proxy with a secret password.

ffmpeg gets neither credentials nor a signed URL, and needs no protocol but plain HTTP to this
machine. As a proxy, because ffmpeg takes a proxy's password from its environment, which only
its own user can read, but a URL from its arguments, which everybody on the machine can. It takes a
connection that ends early for the end of the video (exit status 0 and a short output), so the proxy
records each error, and leaving the context raises it.
"""

from __future__ import annotations

import base64
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING

from hevcq.backends.aws.s3.range_reader import BLOCK_BYTES, Download, SparseFile
from hevcq.backends.aws.s3.transfer import Meter
from hevcq.errors import Unavailable
from hevcq.ports.store import PROXY_SCHEME, PROXY_USER
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SEND_BYTES = 32 * 1024
"""Bytes of the send buffer: all of it is wasted when ffmpeg seeks elsewhere."""
SILENCE_S = 600.0
"""Seconds after which a connection that is not read from is closed."""
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")


@contextmanager
def serve_object(s3: S3Client, job: Download, path: Path, meter: Meter) -> Iterator[str]:
    """Serve the object inside the context; yield its location. `path` caches the bytes read.

    Leaving the context raises the error of a failed read: SourceGone, SourceChanged, DiskFull,
    Unavailable or Stopped. The reader has then seen only part of the object.
    """
    file = SparseFile(s3, job, path, meter)
    server = _Server(file, secrets.token_urlsafe(24), f"/{path.name}")
    try:
        with server.running():
            yield f"{PROXY_SCHEME}{server.url.removeprefix('http://')}?{server.password}"
            # Read here: errors of answers that nobody waits for after this do not matter.
            failed = file.failure
    except BaseException as error:
        if file.failure is None:
            raise
        raise file.failure from error
    finally:
        file.close()
        path.unlink(missing_ok=True)
        get_logger().info("source_streamed", key=job.key, read=meter.total, size=job.size)
    if failed is not None:
        raise failed


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, file: SparseFile, password: str, place: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.file, self.password = file, password
        self.url = f"http://127.0.0.1:{self.server_port}{place}"
        known = base64.b64encode(f"{PROXY_USER}:{password}".encode())
        self.authorization = b"Basic " + known

    def server_bind(self) -> None:
        """Bind without the name lookup of the base class."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="s3-local-proxy",
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
        file = self.server.file
        asked = _RANGE.match(self.headers.get("Range", "bytes=0-"))
        at = int(asked[1]) if asked else file.size
        end = min(file.size, int(asked[2]) + 1) if asked and asked[2] else file.size
        if at >= end:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{file.size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(206, end - at, f"bytes {at}-{end - 1}/{file.size}")
        try:
            while at < end:
                content = file.read(at, min(BLOCK_BYTES, end - at))
                self.wfile.write(content)
                at += len(content)
        except TimeoutError:
            file.fail(Unavailable(f"Nothing was read from the local proxy for {SILENCE_S:.0f} s."))
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
