"""Webhooks: signed as the reference library checks, never redirected."""

import base64
import json
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook as Reference
from standardwebhooks import WebhookVerificationError

from hevcq.ports.catalog import Message, NotDelivered
from hevcq.remotes.message_delivery import Webhook
from hevcq.settings.web import check_signing_secret
from hevcq.util.clock import SystemClock
from support.standin import WebhookTaker, running

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
MESSAGE = Message("hevcq-7-1", "job.failed", 1.0, "Given up", "ä", {"at": "2026", "reason": "ä"})


@pytest.fixture
def server() -> Iterator[WebhookTaker]:
    with running(WebhookTaker()) as taker:
        yield taker


def hook(port: int) -> Webhook:
    url = f"http://127.0.0.1:{port}/in?x=1"
    return Webhook("mine", url, SECRET, frozenset({"job.failed"}), SystemClock())


def test_the_reference_library_accepts_the_signature_and_refuses_another_byte(server):
    hook(server.server_port).deliver([MESSAGE])
    ((headers, body),) = server.got

    told = Reference(SECRET).verify(body, headers)

    assert (told["type"], told["data"]["reason"]) == ("job.failed", "ä")
    assert json.loads(body)["timestamp"] == "2026"
    assert {name.lower(): value for name, value in headers.items()}["webhook-id"] == "hevcq-7-1"
    with pytest.raises(WebhookVerificationError):
        Reference(SECRET).verify(body + b" ", headers)


@pytest.mark.parametrize(
    ("status", "says"),
    [(500, "answered 500"), (404, "answered 404"), (302, "redirects are not followed")],
)
def test_what_is_no_success_is_not_taken_and_no_redirect_is_followed(server, status, says):
    server.status, server.location = status, "/other"
    with pytest.raises(NotDelivered, match=says):
        hook(server.server_port).deliver([MESSAGE])
    assert len(server.got) == 1


def test_a_server_that_is_not_there_has_not_taken_it():
    with pytest.raises(NotDelivered, match="did not answer: ConnectError"):
        hook(1).deliver([MESSAGE])


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "abc", f"whsec_{'!' * 40}"])
def test_a_secret_that_is_none_is_refused(secret):
    with pytest.raises(ValueError, match="must be whsec_"):
        check_signing_secret(secret)
