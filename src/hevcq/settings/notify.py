"""Settings of the receivers of events: people, programs (webhooks), media servers."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from hevcq.domain.model import Frozen
from hevcq.ports.event_log import EVENTS, USUAL_EVENTS
from hevcq.settings.quantities import Address, first_line

NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,86}={0,2}")
OR_FILE = "or a file whose first line it is: a path from / or ~/"
EVERY = tuple(name for name in EVENTS if name != "test")


def _events(names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(names))
    if "*" in found:
        return EVERY
    for name in found:
        if name not in EVENTS:
            raise ValueError(f"holds {name!r}, which is no event; events are {', '.join(EVENTS)}")
    return found


Events = Annotated[tuple[str, ...], AfterValidator(_events)]


class NotifySettings(Frozen):
    """A person or a group that is notified by a service that apprise knows."""

    name: str = Field(default="", pattern=rf"{NAME}|^$", description="name for people")
    url: SecretStr = Field(min_length=1, description=f"address as apprise writes it, {OR_FILE}")
    events: Events = Field(default=USUAL_EVENTS, description="events; * for all")
    digest: str = Field(default="", description="HH:MM: one message a day at that time")

    @field_validator("url", mode="after")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        if not path_of(value) and "://" not in value.get_secret_value():
            raise ValueError("must be an address such as ntfys://ntfy.sh/your-topic")
        return value

    @field_validator("digest", mode="after")
    @classmethod
    def _time(cls, value: str) -> str:
        if value and re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value) is None:
            raise ValueError("must be a time of day such as 08:00, or empty")
        return value

    @property
    def daily_at(self) -> int | None:
        hours, _, minutes = self.digest.partition(":")
        return int(hours) * 60 + int(minutes) if self.digest else None


class WebhookSettings(Frozen):
    """A program that is notified by signed requests (Standard Webhooks)."""

    name: str = Field(default="", pattern=rf"{NAME}|^$", description="name for people")
    url: Address = Field(description="address that messages are posted to")
    secret: SecretStr = Field(min_length=1, description=f"whsec_… that signs them, {OR_FILE}")
    events: Events = Field(default=EVERY, description="events; * for all")

    @field_validator("secret", mode="after")
    @classmethod
    def _secret(cls, value: SecretStr) -> SecretStr:
        if not path_of(value):
            signing_secret(value.get_secret_value())
        return value


class MediaServerSettings(Frozen):
    """A media server that reads a video again once its file has changed."""

    kind: Literal["jellyfin", "plex", "sonarr", "radarr"] = Field(description="which program it is")
    url: Address = Field(description="its address, such as http://127.0.0.1:8096")
    key: SecretStr = Field(min_length=1, description=f"API key or token, {OR_FILE}")
    paths: tuple[str, ...] = Field(
        default=(), description='folders that it sees elsewhere: "/here=/there"'
    )

    @field_validator("paths", mode="after")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            here, _, there = pair.partition("=")
            if not here.startswith("/") or not there:
                raise ValueError(f'holds {pair!r}; write "/here=/there"')
        return value


def signing_secret(secret: str) -> str:
    """Return a secret of Standard Webhooks as it is. Raises ValueError if it is none."""
    if SECRET.fullmatch(secret) is None:
        raise ValueError("must be whsec_ and at least 24 random bytes in base64")
    return secret


def path_of(secret: SecretStr) -> str:
    """Return the path of the file that holds a secret, or "" if the settings hold it."""
    text = secret.get_secret_value()
    return text if text.startswith(("/", "~/")) else ""


def revealed(secret: SecretStr) -> str:
    """Return a secret, or the first line of its file. Raises OSError or ValueError."""
    path = path_of(secret)
    return first_line(Path(path)) if path else secret.get_secret_value()
