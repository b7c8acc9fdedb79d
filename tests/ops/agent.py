"""The task-protection endpoint of an ECS agent, on 127.0.0.1."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from support.standin import Quiet, running

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


class _Handler(Quiet):
    def do_PUT(self) -> None:
        agent = self.server
        assert isinstance(agent, Agent)
        wanted = json.loads(self.body())
        assert self.path == PATH, self.path
        agent.asked.append(wanted)
        answer = json.dumps({"protection": wanted}).encode()
        if agent.answers:
            given = agent.answers.pop(0)
            if given is None:
                self.close_connection = True
                return
            answer = given
        self.reply(200, answer)


@contextmanager
def agent() -> Iterator[Agent]:
    """Serve until the block ends."""
    with running(Agent()) as server:
        yield server
