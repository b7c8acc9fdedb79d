"""Let a media server read a video again after its file changed: the documented call of each."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

from hevcq.ports.event_log import Message, NotDelivered, Receiver
from hevcq.remotes.notify.webhook import ask

CHANGED = frozenset({"video.replaced", "video.undone", "video.placed"})
"""The events after which a media server has something to read again."""


class MediaServer(Receiver):
    """One media server. `paths` are pairs of a folder here and the same as the server sees it."""

    about = "/api/v3/system/status"
    """What needs the key, and changes nothing."""
    key_header, key_form = "x-api-key", "{}"

    def __init__(self, url: str, key: str, paths: Sequence[tuple[str, str]] = ()) -> None:
        self.name = f"{type(self).__name__.lower()} {url}"
        self.events, self._url = CHANGED, url
        self._headers = {self.key_header: self.key_form.format(key)}
        self.identity = f"media:{hashlib.sha256(self.name.encode()).hexdigest()[:16]}"
        self._paths = tuple(paths)

    def deliver(self, messages: Sequence[Message]) -> None:
        """Let the server read each video's folder or file again. Raises NotDelivered."""
        for message in messages:
            if message.path is not None:
                self.refresh(self.there(str(message.path)))

    def there(self, path: str) -> str:
        """Return a path of this machine as the server sees it."""
        for here, there in self._paths:
            if path == here or path.startswith(f"{here.rstrip('/')}/"):
                return there.rstrip("/") + path[len(here.rstrip("/")) :]
        return path

    def refresh(self, path: str) -> None:
        """Let the server read this file again; nothing happens if it is in none of its libraries."""
        raise NotImplementedError

    def test(self, _message: Message) -> None:
        """See that the server answers and takes the key. Raises NotDelivered."""
        self._call("GET", self.about)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        sent = {"accept": "application/json", "content-type": "application/json", **self._headers}
        content = b"" if body is None else json.dumps(body).encode()
        answer = ask(method, f"{self._url}{path}", sent, content)
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
                asked = urlencode({"path": folder}, quote_via=quote)
                number = quote(str(section.get("key", "")), safe="")
                address = f"{self._url}/library/sections/{number}/refresh?{asked}"
                ask("GET", address, self._headers)

    def _sections(self) -> list[dict[str, Any]]:
        found = self._call("GET", self.about)
        sections = found.get("MediaContainer", {}).get("Directory", [])
        return [each for each in sections if isinstance(each, dict)]


class Sonarr(MediaServer):
    """Sonarr (https://sonarr.tv/docs/api/, v3): rescan the series that holds the file."""

    things, command, member = "series", "RescanSeries", "seriesId"

    def refresh(self, path: str) -> None:
        """Rescan every series or video whose folder holds the file."""
        for each in self._call("GET", f"/api/v3/{self.things}") or []:
            if _below(path, str(each.get("path", ""))):
                asked = {"name": self.command, self.member: each["id"]}
                self._call("POST", "/api/v3/command", asked)


class Radarr(Sonarr):
    """Radarr (https://radarr.video/docs/api/, v3): rescan the video that holds the file."""

    things, command, member = "movie", "RescanMovie", "movieId"


KINDS: dict[str, type[MediaServer]] = {
    kind.__name__.lower(): kind for kind in (Jellyfin, Plex, Sonarr, Radarr)
}


def _below(path: str, folder: str) -> bool:
    return bool(folder) and path.startswith(f"{folder.rstrip('/')}/")
