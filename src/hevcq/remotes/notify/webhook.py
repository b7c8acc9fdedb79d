"""Post messages to a program, signed as Standard Webhooks says.

The headers are webhook-id (the same for each try), webhook-timestamp, and webhook-signature, an
HMAC-SHA256 of "id.timestamp.body" (https://github.com/standard-webhooks/standard-webhooks, spec).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence

from hevcq.ports.receiver import Message, NotDelivered, Receiver
from hevcq.remotes.notify.http import Answer, HttpSender
from hevcq.util.clock import Clock

GONE = 410


class Webhook(Receiver):
    """One address; each message is a request, and the next follows once it was taken."""

    def __init__(
        self,
        name: str,
        url: str,
        key: bytes,
        events: frozenset[str],
        sender: HttpSender,
        clock: Clock,
    ) -> None:  # fmt: skip
        self.name, self.events = name, events
        self.identity = f"webhook:{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._url, self._key, self._sender, self._clock = url, key, sender, clock

    def deliver(self, messages: Sequence[Message]) -> None:
        """Post each message. Raises NotDelivered."""
        for message in messages:
            body = json.dumps(
                {"type": message.event, "timestamp": message.data.get("at"), "data": message.data},
                ensure_ascii=False,
            ).encode()
            stamp = str(int(self._clock.now()))
            headers = {
                "content-type": "application/json",
                "webhook-id": message.message_id,
                "webhook-timestamp": stamp,
                "webhook-signature": signature(self._key, message.message_id, stamp, body),
            }
            require_accepted(self._sender.send("POST", self._url, headers=headers, content=body))


def signature(key: bytes, message_id: str, stamp: str, body: bytes) -> str:
    """Return the header that signs a message."""
    signed = f"{message_id}.{stamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def require_accepted(answer: Answer) -> None:
    """Raise NotDelivered unless the answer says that the message was taken; a redirect says no."""
    if answer.ok:
        return
    gone = answer.status == GONE
    what = "it wants nothing more (410)" if gone else f"it answered {answer.status}"
    if 300 <= answer.status < 400:
        what += ", and redirects are not followed"
    raise NotDelivered(f"Not taken: {what}.", after_s=answer.after_s, gone=gone)
