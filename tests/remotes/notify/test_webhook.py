"""Webhooks: signed as the reference library checks, never redirected, to public addresses only."""

import base64
import json
from datetime import UTC, datetime
from unittest.mock import Mock

import httpx2
import pytest
from standardwebhooks import Webhook as Reference
from standardwebhooks import WebhookVerificationError

from hevcq.ports.receiver import Message, NotDelivered
from hevcq.remotes.notify.http import HttpSender
from hevcq.remotes.notify.webhook import Webhook
from hevcq.settings.notify import signing_key
from support.clips import ManualClock

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
MESSAGE = Message("hevcq-7-1", "job.failed", 1.0, "Given up", "ä", {"at": "2026", "reason": "ä"})


class Server:
    """Stands for the address: keeps requests, answers as told."""

    def __init__(self, status: int = 204, headers: dict[str, str] | None = None) -> None:
        self.requests: list[httpx2.Request] = []
        self.status, self.headers = status, headers or {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return httpx2.Response(self.status, headers=self.headers, content=b"x" * 100_000)


def hook(server: Server, *, addresses=("93.184.216.34",), private: bool = False) -> Webhook:
    clock = ManualClock(datetime.now(UTC).timestamp())
    sender = HttpSender(
        clock,
        private=private,
        resolve=lambda _host, _port: list(addresses),
        transport=httpx2.MockTransport(server),
    )
    url = "https://hooks.example.org/in?x=1"
    return Webhook("mine", url, signing_key(SECRET), frozenset({"job.failed"}), sender, clock)


def test_the_reference_library_accepts_the_signature_and_refuses_another_byte() -> None:
    server = Server()
    hook(server).deliver([MESSAGE])
    (request,) = server.requests

    told = Reference(SECRET).verify(request.content, dict(request.headers))

    assert told["type"] == "job.failed"
    assert told["data"]["reason"] == "ä"
    assert json.loads(request.content)["timestamp"] == "2026"
    assert request.headers["webhook-id"] == "hevcq-7-1"
    with pytest.raises(WebhookVerificationError):
        Reference(SECRET).verify(request.content + b" ", dict(request.headers))


def test_the_request_goes_to_the_address_that_was_looked_up_under_its_own_name() -> None:
    server = Server()
    hook(server).deliver([MESSAGE])
    (request,) = server.requests
    assert request.url.host == "93.184.216.34"
    assert request.headers["host"] == "hooks.example.org"
    assert request.extensions["sni_hostname"] == "hooks.example.org"
    assert request.url.query == b"x=1"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (500, "answered 500"),
        (404, "answered 404"),
        (300, "redirects are not followed"),
        (302, "redirects are not followed"),
    ],
)
def test_what_is_no_success_is_sent_again_and_no_redirect_is_followed(status, says) -> None:
    server = Server(status, {"location": "https://hooks.example.org/other"})
    with pytest.raises(NotDelivered, match=says) as raised:
        hook(server).deliver([MESSAGE])
    assert len(server.requests) == 1
    assert (raised.value.gone, raised.value.after_s) == (False, None)


def test_410_and_retry_after_are_understood() -> None:
    with pytest.raises(NotDelivered) as gone:
        hook(Server(410)).deliver([MESSAGE])
    assert gone.value.gone is True
    with pytest.raises(NotDelivered) as later:
        hook(Server(429, {"retry-after": "120"})).deliver([MESSAGE])
    assert later.value.after_s == 120
    when = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 600, UTC)
    stamp = when.strftime("%a, %d %b %Y %H:%M:%S GMT")
    with pytest.raises(NotDelivered) as dated:
        hook(Server(503, {"retry-after": stamp})).deliver([MESSAGE])
    assert dated.value.after_s == pytest.approx(600, abs=5)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.4", "::1", "fd00::1", "::ffff:10.0.0.1", "100.64.0.1"],
)
def test_an_address_of_the_local_network_is_refused_unless_it_is_allowed(address) -> None:
    server = Server()
    with pytest.raises(NotDelivered, match="allow_private"):
        hook(server, addresses=["93.184.216.34", address]).deliver([MESSAGE])
    assert server.requests == []
    hook(server, addresses=[address], private=True).deliver([MESSAGE])
    assert len(server.requests) == 1


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1%eth0", "224.0.0.1", "0.0.0.0"])
def test_an_address_that_no_receiver_has_is_refused_even_so(address) -> None:
    server = Server()
    with pytest.raises(NotDelivered, match="no receiver has"):
        hook(server, addresses=[address], private=True).deliver([MESSAGE])
    assert server.requests == []


def test_a_host_without_an_address_and_a_broken_line_are_not_delivered() -> None:
    with pytest.raises(NotDelivered, match="has no address"):
        hook(Server(), addresses=[]).deliver([MESSAGE])

    with pytest.raises(NotDelivered, match="did not answer: ConnectError"):
        hook(Mock(side_effect=httpx2.ConnectError("refused"))).deliver([MESSAGE])


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "abc", f"whsec_{'!' * 40}"])
def test_a_secret_that_is_none_is_refused(secret) -> None:
    with pytest.raises(ValueError, match="must be whsec_"):
        signing_key(secret)
