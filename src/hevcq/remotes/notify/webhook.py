"""Ask a server over HTTP, and post messages to a program, signed as Standard Webhooks says."""

import difflib
import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2 as http
from standardwebhooks import Webhook as Signer

from hevcq.errors import ConfigError
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


MAX_MESSAGES = 500
MAX_LINES = 40
"""Lines of one message; the rest is counted."""
EVERY_S = 60.0
"""Seconds between two messages to people, at least."""


class People(Receiver):
    """Send to one address of apprise: messages that wait as one, equal lines once with their number."""

    def __init__(
        self,
        name: str,
        url: str,
        events: frozenset[str],
        daily_at: int | None = None,
    ) -> None:  # fmt: skip
        """Raise ConfigError if apprise does not know the address."""
        scheme, _, rest = url.partition("://")
        if not rest:  # the first line of a file, of which nothing is shown
            raise ConfigError("The file that url of [[notify]] names holds no address.")
        with warnings.catch_warnings(action="ignore"):  # of what apprise itself imports
            import apprise

            self._apprise = apprise.Apprise()
            if not self._apprise.add(url):
                raise _unknown(scheme)
        self.name, self.events, self.most = name or scheme, events, MAX_MESSAGES
        self.every_s, self.daily_at = EVERY_S, daily_at
        self.identity = f"notify:{hashlib.sha256(url.encode()).hexdigest()[:16]}"

    def deliver(self, messages: Sequence[Message]) -> None:
        title, body = self.composed(messages)
        if not self._apprise.notify(title=f"hevcq: {title}", body=body):
            raise NotDelivered(f"{self.name} did not take the message; the log may say why.")

    def composed(self, messages: Sequence[Message]) -> tuple[str, str]:
        lines = Counter(f"{each.title}: {each.text}" for each in messages)
        shown = [f"{line} (×{n})" if n > 1 else line for line, n in lines.items()][:MAX_LINES]
        if len(lines) > MAX_LINES:
            shown.append(f"… and {len(lines) - MAX_LINES} more")
        if len(messages) == 1:
            return messages[0].title, shown[0]
        titles = Counter(each.title for each in messages)
        title = ", ".join(f"{n} × {name}" if n > 1 else name for name, n in titles.items())
        return title, "\n".join(shown)


def _unknown(scheme: str) -> ConfigError:
    """Return why apprise takes no address of this scheme, and the nearest one that it knows."""
    from apprise import manager_plugins

    manager: Any = manager_plugins.NotificationManager  # without types of its own
    known = manager().schemas()
    near = difflib.get_close_matches(scheme.lower(), known, n=1)
    if scheme.lower() in known:
        sentence = f"The address {scheme}://… of [[notify]] is incomplete."
    else:
        sentence = f"apprise does not know the address {scheme}://… of [[notify]]."
        if near:
            return ConfigError(f"{sentence} Did you mean {near[0]}://?")
    return ConfigError(sentence, remedy="How to write it: https://appriseit.com/services/.")
