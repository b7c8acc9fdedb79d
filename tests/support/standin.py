"""HTTP servers that stand in for others': how each is run, and a handler that logs nothing."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any, TypeVar

Server = TypeVar("Server", bound=HTTPServer)


class Quiet(BaseHTTPRequestHandler):
    def body(self) -> bytes:
        """Read what was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Let a server answer until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class WebhookTaker(ThreadingHTTPServer):
    """Takes what a webhook sends: the headers and body of each message are in `got`."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status, self.location = 204, ""
        super().__init__(("127.0.0.1", 0), _Taker)

    @property
    def reported(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


class _Taker(Quiet):
    server: WebhookTaker

    def do_POST(self) -> None:
        self.server.got.append((dict(self.headers), self.body()))
        self.reply(self.server.status, Location=self.server.location)
