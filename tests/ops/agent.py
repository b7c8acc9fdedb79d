"""The task-protection endpoint of an ECS agent, on 127.0.0.1."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = "/api/1234/task-protection/v1/state"


class Agent(ThreadingHTTPServer):
    """Remembers each wanted state in `asked`; `answers` are sent before the right ones."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, object]] = []
        self.answers: list[bytes | None] = []

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/1234"

    @property
    def states(self) -> list[bool]:
        return [bool(wanted["ProtectionEnabled"]) for wanted in self.asked]


class _Handler(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        agent = self.server
        assert isinstance(agent, Agent)
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == PATH, self.path
        agent.asked.append(wanted)
        answer = json.dumps({"protection": wanted}).encode()
        if agent.answers:
            given = agent.answers.pop(0)
            if given is None:
                self.close_connection = True
                return
            answer = given
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def agent() -> Iterator[Agent]:
    """Serve until the block ends."""
    server = Agent()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
