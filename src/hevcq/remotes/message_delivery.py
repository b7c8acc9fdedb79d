"""Deliver messages over the network: to people (apprise), signed webhooks and media servers.

`usecases/event_dispatch.py` decides which receiver gets which event, and when.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

import httpx2 as http
from pydantic import SecretStr
from standardwebhooks import Webhook as Signer

from hevcq.errors import ConfigError
from hevcq.ports.catalog import Message, NotDelivered, Receiver
from hevcq.settings.model import Settings
from hevcq.settings.web import (
    MediaServerSettings,
    NotifySettings,
    WebhookSettings,
    check_signing_secret,
    path_of,
    read_secret,
)
from hevcq.util.clock import Clock
from hevcq.util.text import printable, reason_of

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
            content = {"type": message.event, "timestamp": at, "data": message.data}
            body = json.dumps(content, ensure_ascii=False)
            headers = {
                "content-type": "application/json",
                "webhook-id": message.message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._signer.sign(message.message_id, now, body),
            }
            ask("POST", self._url, headers, body.encode())


MAX_MESSAGES = 500
MAX_LINES = 40
"""Maximum lines of one message; further lines are only counted."""
EVERY_S = 60.0
"""Minimum seconds between two messages to people."""


class People(Receiver):
    """Send to one apprise address: waiting messages together, and each repeated line once with its count."""

    def __init__(
        self, name: str, url: str, events: frozenset[str], daily_at: int | None = None
    ) -> None:
        """Raise ConfigError if apprise does not know the address."""
        scheme, _, rest = url.partition("://")
        if not rest:  # the content of a secret file, which no error may show
            raise ConfigError("The file that url of [[notify]] names holds no address.")
        with warnings.catch_warnings(action="ignore"):  # from modules that apprise imports
            import apprise

            self._apprise = apprise.Apprise()
            if not self._apprise.add(url):
                raise ConfigError(
                    f"apprise does not know the address {scheme}://… of [[notify]], or it is incomplete.",
                    remedy="How to write it: https://appriseit.com/services/.",
                )
        self.name, self.events, self.most = name or scheme, events, MAX_MESSAGES
        self.every_s, self.daily_at = EVERY_S, daily_at
        self.identity = f"notify:{hashlib.sha256(url.encode()).hexdigest()[:16]}"

    def deliver(self, messages: Sequence[Message]) -> None:
        title, body = compose(messages)
        if not self._apprise.notify(title=f"hevcq: {title}", body=body):
            raise NotDelivered(f"{self.name} did not take the message; the log may say why.")


def compose(messages: Sequence[Message]) -> tuple[str, str]:
    """Return the title and the body of one message that stands for all."""
    lines = Counter(f"{message.title}: {message.text}" for message in messages)
    shown = [f"{line} (×{n})" if n > 1 else line for line, n in lines.items()][:MAX_LINES]
    if len(lines) > MAX_LINES:
        shown.append(f"… and {len(lines) - MAX_LINES} more")
    if len(messages) == 1:
        return messages[0].title, shown[0]
    titles = Counter(message.title for message in messages)
    title = ", ".join(f"{n} × {name}" if n > 1 else name for name, n in titles.items())
    return title, "\n".join(shown)


REFRESH_EVENTS = frozenset({"video.replaced", "video.undone", "video.placed"})
"""The events after which a media server must read a file again."""


class MediaServer(Receiver):
    """One media server. `paths` are pairs of a local folder and its path on the server."""

    about = "/api/v3/system/status"
    """An address that needs the key and changes nothing."""
    key_header, key_form = "x-api-key", "{}"

    def __init__(self, url: str, key: str, paths: Sequence[tuple[str, str]] = ()) -> None:
        self.name = f"{type(self).__name__.lower()} {url}"
        self.events, self._url = REFRESH_EVENTS, url
        self._headers = {self.key_header: self.key_form.format(key)}
        self.identity = f"media:{hashlib.sha256(self.name.encode()).hexdigest()[:16]}"
        self._paths = tuple(paths)

    def deliver(self, messages: Sequence[Message]) -> None:
        """Let the server read each video's folder or file again. Raises NotDelivered."""
        for message in messages:
            if message.path is not None:
                self.refresh(self.remote_path(str(message.path)))

    def remote_path(self, path: str) -> str:
        """Return the server's path of a local path."""
        for local, remote in self._paths:
            if path == local or _below(path, local):
                return remote.rstrip("/") + path[len(local.rstrip("/")) :]
        return path

    def refresh(self, path: str) -> None:
        """Let the server read this file again; do nothing if it is in none of its libraries."""
        raise NotImplementedError

    def test(self, _message: Message) -> None:
        """Check that the server answers and accepts the key. Raises NotDelivered."""
        self._call("GET", self.about)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"accept": "application/json", "content-type": "application/json"}
        content = b"" if body is None else json.dumps(body).encode()
        answer = ask(method, f"{self._url}{path}", {**headers, **self._headers}, content)
        try:
            return json.loads(answer) if answer else None
        except ValueError as error:
            raise NotDelivered(f"{self.name} answered no JSON.") from error


class Jellyfin(MediaServer):
    """Jellyfin and Emby (https://api.jellyfin.org/#tag/Library/operation/PostUpdatedMedia)."""

    about = "/System/Info"
    key_header, key_form = "authorization", 'MediaBrowser Token="{}"'

    def refresh(self, path: str) -> None:
        updates = {"Updates": [{"Path": path, "UpdateType": "Modified"}]}
        self._call("POST", "/Library/Media/Updated", updates)


class Plex(MediaServer):
    """Plex (https://support.plex.tv/articles/201638786-plex-media-server-url-commands/)."""

    about, key_header = "/library/sections", "x-plex-token"

    def refresh(self, path: str) -> None:
        """Refresh the folder of the file in each section that holds it."""
        folder = str(PurePosixPath(path).parent)
        for section in self._sections():
            places = [str(place.get("path", "")) for place in section.get("Location", [])]
            if any(_below(path, place) for place in places):
                query = urlencode({"path": folder}, quote_via=quote)
                number = quote(str(section.get("key", "")), safe="")
                address = f"{self._url}/library/sections/{number}/refresh?{query}"
                ask("GET", address, self._headers)

    def _sections(self) -> list[dict[str, Any]]:
        listing = self._call("GET", self.about)
        sections = listing.get("MediaContainer", {}).get("Directory", [])
        return [section for section in sections if isinstance(section, dict)]


class Sonarr(MediaServer):
    """Sonarr (https://sonarr.tv/docs/api/, v3): rescan the series that holds the file."""

    things, command, member = "series", "RescanSeries", "seriesId"

    def refresh(self, path: str) -> None:
        """Rescan every series or video whose folder holds the file."""
        for entry in self._call("GET", f"/api/v3/{self.things}") or []:
            if _below(path, str(entry.get("path", ""))):
                command = {"name": self.command, self.member: entry["id"]}
                self._call("POST", "/api/v3/command", command)


class Radarr(Sonarr):
    """Radarr (https://radarr.video/docs/api/, v3): rescan the video that holds the file."""

    things, command, member = "movie", "RescanMovie", "movieId"


KINDS: dict[str, type[MediaServer]] = {
    kind.__name__.lower(): kind for kind in (Jellyfin, Plex, Sonarr, Radarr)
}


def _below(path: str, folder: str) -> bool:
    return bool(folder) and path.startswith(f"{folder.rstrip('/')}/")


def receivers_of(settings: Settings, clock: Clock) -> list[Receiver]:
    """Return all receivers of the settings.

    Raises ConfigError if a secret cannot be read, an address is invalid, or a package is missing.
    """
    return [
        *(people(notify) for notify in settings.notify),
        *(_webhook(webhook, clock) for webhook in settings.webhook),
        *(_media_server(server) for server in settings.media_server),
    ]


def people(settings: NotifySettings) -> Receiver:
    """Return the receiver of a [[notify]]. Raises ConfigError if apprise does not know its address."""
    url = _secret(settings.url, "[[notify]] url")
    return People(settings.name, url, frozenset(settings.events), settings.daily_at)


def _webhook(settings: WebhookSettings, clock: Clock) -> Receiver:
    secret = _secret(settings.secret, "[[webhook]] secret", check_signing_secret)
    name = settings.name or settings.url.split("://")[1].split("/")[0]
    return Webhook(name, settings.url, secret, frozenset(settings.events), clock)


def _media_server(settings: MediaServerSettings) -> Receiver:
    key = _secret(settings.key, "[[media_server]] key")
    pairs = [pair.partition("=")[::2] for pair in settings.paths]
    return KINDS[settings.kind](settings.url, key, pairs)


def _secret(secret: SecretStr, name: str, read: Callable[[str], str] = str) -> str:
    """Return a secret from the settings, or from the file that they name. Raises ConfigError."""
    try:
        return read(read_secret(secret))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name}: {printable(path_of(secret) or 'it')} {reason_of(error)}."
        ) from error
