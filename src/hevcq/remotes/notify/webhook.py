"""Ask a server over HTTP, and post messages to a program, signed as Standard Webhooks says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import httpx2 as http
from standardwebhooks import Webhook as Signer

from hevcq.ports.event_log import Message, NotDelivered, Receiver
from hevcq.util.clock import Clock

TIMEOUT_S = 10.0


def ask(method: str, url: str, headers: Mapping[str, str], content: bytes = b"") -> bytes:
    """Send one request and return the body of its answer; a redirect is not followed.

    Raises NotDelivered unless the answer's status is 2xx.
    """
    try:
        answer = http.request(
            method,
            url,
            headers={"user-agent": "hevcq", **headers},
            content=content or None,
            timeout=TIMEOUT_S,
        )
    except (http.HTTPError, http.InvalidURL) as error:
        host = url.partition("://")[2].partition("/")[0]
        raise NotDelivered(f"{host} did not answer: {type(error).__name__} {error}") from error
    if not answer.is_success:
        redirect = ", and redirects are not followed" if answer.is_redirect else ""
        raise NotDelivered(f"Not taken: it answered {answer.status_code}{redirect}.")
    return answer.content


class Webhook(Receiver):
    """Post messages to one address, in order, one request each."""

    def __init__(
        self, name: str, url: str, secret: str, events: frozenset[str], clock: Clock
    ) -> None:
        self.name, self.events = name, events
        self.identity = f"webhook:{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._url, self._signer, self._clock = url, Signer(secret), clock

    def deliver(self, messages: Sequence[Message]) -> None:
        """Post each message. Raises NotDelivered."""
        for message in messages:
            at, now = message.data.get("at"), datetime.fromtimestamp(self._clock.now(), UTC)
            told = {"type": message.event, "timestamp": at, "data": message.data}
            body = json.dumps(told, ensure_ascii=False)
            headers = {
                "content-type": "application/json",
                "webhook-id": message.message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._signer.sign(message.message_id, now, body),
            }
            ask("POST", self._url, headers, body.encode())
