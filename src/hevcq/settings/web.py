"""Settings of the web page, of uploads through it and the API, and of the receivers of events."""

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator

from hevcq.domain.model import Frozen
from hevcq.ports.catalog import EVENTS, USUAL_EVENTS
from hevcq.settings.quantities import Address, Names, address, first_line

GIB = 1 << 30
DAY_S = 86_400.0
TOKEN_DAYS, MAX_TOKEN_DAYS = 90, 3650
"""Days that a program's token is valid by default, and at most."""


class OidcSettings(Frozen):
    """The OpenID provider that signs people in with `web.auth = "oidc"`."""

    issuer: str = Field(
        default="", description="address of the provider, as it calls itself; e.g. a Cognito pool's"
    )
    client_id: str = Field(default="", description="id of this page at the provider")
    client_secret: SecretStr = Field(
        default=SecretStr(""), description="secret of this page; empty for a public client"
    )
    operator_group: str = Field(
        default="",
        description="group of the claim `groups` (or cognito:groups) whose members are operators; "
        "empty: web.operators only",
    )
    logout_url: str = Field(
        default="",
        description="page of the provider that signs out, where its discovery names none (Cognito: "
        "https://<domain>/logout)",
    )


class WebSettings(Frozen):
    """The page that `hevcq serve` offers, and who may use it."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(
        default=8790, ge=0, le=65535, description="port to listen on; 0: any free one"
    )
    url: str = Field(
        default="",
        description="address that people open, e.g. https://videos.example.org, the one host name that "
        "requests may give; empty: host and port",
    )
    auth: Literal["token", "users", "proxy", "oidc", "none"] = Field(
        default="token",
        description="sign-in: one token, users with passwords, a reverse proxy's header, an OpenID "
        "provider, or none (loopback only)",
    )
    operators: Names = Field(
        default=(),
        description="operators. proxy: their names; oidc: verified addresses, and subjects without @",
    )
    trusted_proxies: Names = Field(
        default=(), description="addresses or networks of reverse proxies, e.g. 10.0.0.0/8"
    )
    proxy_header: str = Field(
        default="Remote-User",
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="proxy: header in which the trusted proxy names the person",
    )
    session_key: SecretStr = Field(
        default=SecretStr(""),
        description="secret that signs sessions, shared by several servers; empty: kept in data_dir",
    )
    browse: Names = Field(
        default=(),
        description="folders that the page may browse to choose a library; empty: home and mounted disks",
    )
    oidc: OidcSettings = Field(default_factory=OidcSettings, description="the OpenID provider")

    @field_validator("url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        if urlsplit(value).path.strip("/") or "?" in value:
            raise ValueError("must not have a path: the page needs a host name of its own")
        return address(value) if value else ""

    @field_validator("browse", mode="after")
    @classmethod
    def _whole_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not each.startswith(("/", "~")) for each in value):
            raise ValueError("must be whole paths, from / on")
        return value

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ipaddress.ip_network(each, strict=False)
            except ValueError as error:
                raise ValueError(f"holds {each!r}, which is no address or network") from error
        return value


class UploadSettings(Frozen):
    """How much may be uploaded, and how long uploaded files are kept."""

    max_gib: float = Field(default=50, gt=0, le=48_800, description="largest video (GiB)")
    owner_gib: float = Field(
        default=0, ge=0, description="space that one person's videos may take (GiB); 0: no limit"
    )
    farm_gib: float = Field(
        default=0, ge=0, description="space that all videos together may take (GiB); 0: no limit"
    )
    raw_retention_days: float = Field(
        default=7,
        ge=0,
        description="days that the uploaded file is kept after all its renditions are published; it "
        "is never deleted where one is missing",
    )

    @property
    def max_bytes(self) -> int:
        return int(self.max_gib * GIB)

    @property
    def raw_retention_s(self) -> float:
        return self.raw_retention_days * DAY_S


NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,86}={0,2}")
OR_FILE = "or a file whose first line it is: a path from / or ~/"
EVERY = tuple(name for name in EVENTS if name != "test")


def _events(names: Iterable[str]) -> tuple[str, ...]:
    events = tuple(dict.fromkeys(names))
    if "*" in events:
        return EVERY
    for name in events:
        if name not in EVENTS:
            raise ValueError(f"holds {name!r}, which is no event; events are {', '.join(EVENTS)}")
    return events


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
    secret: SecretStr = Field(
        min_length=1,
        description="signs the messages: `whsec_` and random bytes in base64, as"
        f" `echo whsec_$(openssl rand -base64 32)` makes it, {OR_FILE}",
    )
    events: Events = Field(default=EVERY, description="events; * for all")

    @field_validator("secret", mode="after")
    @classmethod
    def _secret(cls, value: SecretStr) -> SecretStr:
        if not path_of(value):
            check_signing_secret(value.get_secret_value())
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


def check_signing_secret(secret: str) -> str:
    """Return `secret`. Raises ValueError unless it is a secret of Standard Webhooks."""
    if SECRET.fullmatch(secret) is None:
        raise ValueError("must be whsec_ and at least 24 random bytes in base64")
    return secret


def path_of(secret: SecretStr) -> str:
    """Return the path of the file that holds a secret, or "" if the settings hold it."""
    text = secret.get_secret_value()
    return text if text.startswith(("/", "~/")) else ""


def read_secret(secret: SecretStr) -> str:
    """Return a secret, or the first line of the file that it names. Raises OSError or ValueError."""
    path = path_of(secret)
    return first_line(Path(path)) if path else secret.get_secret_value()
