"""Task protection against a small agent: it never fails a job."""

import http.server
import json

import pytest

from hevcq.backends.aws.clients import TaskProtection
from hevcq.errors import ConfigError
from support.standin import Quiet, running


class Agent(Quiet):
    """Answers as the ECS agent does; `server.answer` is what it says, "ok" to obey."""

    def do_PUT(self) -> None:
        wanted = json.loads(self.body())
        self.server.asked.append((self.path, wanted))
        answer = self.server.answer
        if answer == "ok":
            state = {"ProtectionEnabled": wanted["ProtectionEnabled"], "TaskArn": "arn:task"}
            answer = json.dumps({"requestID": "r", "protection": state}).encode()
        self.reply(200 if self.server.answer == "ok" else 400, answer)


@pytest.fixture
def agent():
    server = http.server.HTTPServer(("127.0.0.1", 0), Agent)
    server.asked, server.answer = [], "ok"
    with running(server):
        yield server


def protection(agent) -> TaskProtection:
    return TaskProtection(f"http://127.0.0.1:{agent.server_address[1]}/api/abc")


@pytest.mark.parametrize(("seconds", "minutes"), [(0, 1), (61, 2), (3600, 60), (10**9, 2880)])
def test_protection_is_asked_for_in_whole_minutes_within_the_agents_bounds(
    agent, seconds, minutes
) -> None:
    assert protection(agent).protect(seconds) is True

    wanted = {"ProtectionEnabled": True, "ExpiresInMinutes": minutes}
    assert agent.asked == [("/api/abc/task-protection/v1/state", wanted)]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"failure": {"Arn": "arn:task", "Reason": "DEPLOYMENT_BLOCKED"}}',
        b'{"error": {"Code": "AccessDeniedException", "Message": "no"}}',
        b'{"protection": {"ProtectionEnabled": "maybe"}}',
        b"[]",
        b"not json",
        b"",
    ],
)
def test_a_refusal_or_nonsense_is_false_and_never_an_error(agent, answer: bytes) -> None:
    agent.answer = answer

    assert protection(agent).protect(60) is False
    assert protection(agent).release() is False


@pytest.mark.parametrize("uri", ["", "ftp://host/x", "file:///etc/passwd", "169.254.170.2/api"])
def test_an_address_that_is_not_http_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        TaskProtection(uri)
