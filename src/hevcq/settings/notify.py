"""Settings of the receivers of events: people, programs (webhooks), media servers."""

from __future__ import annotations

import base64
import binascii
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from hevcq.ports.event_log import EVENTS, USUAL_EVENTS

FIELDS = ("event", "title", "text", "source", "profile", "reason", "saved", "when")
"""The fields of a template."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$"


EVERY = tuple(name for name in EVENTS if name != "test")


def _events(names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(names))
    if "*" in found:
        return EVERY
    for name in found:
        if name not in EVENTS:
            raise ValueError(f"holds {name!r}, which is no event; events are {', '.join(EVENTS)}")
    return found


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address such as https://example.org/hook")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password")
    return value.rstrip("/")


class _Listed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NotifySettings(_Listed):
    """A person or a group that is notified by a service that apprise knows."""

    name: str = Field(default="", pattern=rf"{NAME}|^$", description="name for people")
    url: SecretStr = Field(default=SecretStr(""), description="address as apprise writes it")
    url_file: Path | None = Field(default=None, description="file whose first line is the address")
    events: tuple[str, ...] = Field(default=USUAL_EVENTS, description="events; * for all")
    template: str = Field(default="", max_length=2000, description="text with {fields}")
    digest: str = Field(default="", description="HH:MM: one message a day at that time")
    every_s: float = Field(default=60, ge=1, le=86400, description="least seconds between messages")

    @field_validator("events", mode="after")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _events(value)

    @field_validator("template", mode="after")
    @classmethod
    def _named_fields(cls, value: str) -> str:
        try:
            parts = list(string.Formatter().parse(value))
        except ValueError as error:
            raise ValueError(f"is not a template: {error}") from error
        for _, name, spec, conversion in parts:
            if name is not None and (name not in FIELDS or spec or conversion):
                raise ValueError(f"holds {{{name}}}; its fields are {', '.join(FIELDS)}")
        return value

    @field_validator("digest", mode="after")
    @classmethod
    def _time(cls, value: str) -> str:
        if value and re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value) is None:
            raise ValueError("must be a time of day such as 08:00, or empty")
        return value

    @model_validator(mode="after")
    def _one_address(self) -> NotifySettings:
        if bool(self.url.get_secret_value()) == (self.url_file is not None):
            raise ValueError("[[notify]] needs either url or url_file")
        return self

    @property
    def daily_at(self) -> int | None:
        """The minute of the day at which the digest is sent, or None."""
        hours, _, minutes = self.digest.partition(":")
        return int(hours) * 60 + int(minutes) if self.digest else None


class WebhookSettings(_Listed):
    """A program that is notified by signed requests (Standard Webhooks)."""

    name: str = Field(default="", pattern=rf"{NAME}|^$", description="name for people")
    url: str = Field(description="address that messages are posted to")
    secret: SecretStr = Field(default=SecretStr(""), description="whsec_… that signs them")
    secret_file: Path | None = Field(
        default=None, description="file whose first line is the secret"
    )
    events: tuple[str, ...] = Field(default=EVERY, description="events; * for all")
    allow_private: bool = Field(default=False, description="allow an address of the local network")

    @field_validator("url", mode="after")
    @classmethod
    def _url(cls, value: str) -> str:
        return _address(value)

    @field_validator("events", mode="after")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _events(value)

    @field_validator("secret", mode="after")
    @classmethod
    def _secret(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            signing_key(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _one_secret(self) -> WebhookSettings:
        if bool(self.secret.get_secret_value()) == (self.secret_file is not None):
            raise ValueError("[[webhook]] needs either secret or secret_file")
        return self


class MediaServerSettings(_Listed):
    """A media server that reads a video again once its file has changed."""

    kind: Literal["jellyfin", "plex", "sonarr", "radarr"] = Field(description="which program it is")
    url: str = Field(description="its address, such as http://127.0.0.1:8096")
    key: SecretStr = Field(default=SecretStr(""), description="API key or token")
    key_file: Path | None = Field(default=None, description="file whose first line is the key")
    paths: tuple[str, ...] = Field(
        default=(), description='folders that it sees elsewhere: "/here=/there"'
    )

    @field_validator("url", mode="after")
    @classmethod
    def _url(cls, value: str) -> str:
        return _address(value)

    @field_validator("paths", mode="after")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            here, _, there = pair.partition("=")
            if not here.startswith("/") or not there:
                raise ValueError(f'holds {pair!r}; write "/here=/there"')
        return value

    @model_validator(mode="after")
    def _one_key(self) -> MediaServerSettings:
        if bool(self.key.get_secret_value()) == (self.key_file is not None):
            raise ValueError("[[media_server]] needs either key or key_file")
        return self


def signing_key(secret: str) -> bytes:
    """Return the key in a secret of Standard Webhooks. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and 24 to 64 bytes in base64 (`hevcq notify secret`)")
    return key


def first_line(path: Path) -> str:
    """Return the first line of a file with a secret. Raises OSError or UnicodeDecodeError."""
    lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    return lines[0].strip() if lines else ""
