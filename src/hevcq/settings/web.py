"""Settings of the web page, `hevcq serve`."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

TOKEN_DAYS, MOST_TOKEN_DAYS = 90, 3650
"""Days that a program's token is valid unless somebody says otherwise, and at most."""


def _words(value: object) -> object:
    """Split `a, b` as a variable gives it; a file gives a list."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


# Text too: pydantic-settings takes a tuple of a variable only as JSON.
Words = Annotated[tuple[str, ...] | str, BeforeValidator(_words)]


class OidcSettings(BaseModel):
    """The OpenID provider that signs people in with `web.auth = "oidc"`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(
        default="", description="address of the provider, as it calls itself; e.g. a Cognito pool's"
    )
    client_id: str = Field(default="", description="id of this page at the provider")
    client_secret: SecretStr = Field(
        default=SecretStr(""), description="secret of this page; empty for a public client"
    )
    groups_claim: str = Field(
        default="groups", description="claim that lists groups; Cognito's is cognito:groups"
    )
    operator_group: str = Field(
        default="", description="group whose members are operators; empty: web.operators only"
    )
    logout_url: str = Field(
        default="",
        description="page of the provider that signs out, where its discovery names none (Cognito: "
        "https://<domain>/logout)",
    )


class WebSettings(BaseModel):
    """The page that `hevcq serve` offers, and who may use it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(
        default=8790, ge=0, le=65535, description="port to listen on; 0: any free one"
    )
    url: str = Field(
        default="",
        description="address that people open, e.g. https://videos.example.org; empty: host and port",
    )
    hosts: Words = Field(
        default=(), description="further host names that requests may name, besides loopback"
    )
    auth: Literal["token", "users", "proxy", "oidc", "none"] = Field(
        default="token",
        description="sign-in: one token, users with passwords, a reverse proxy's header, an OpenID "
        "provider, or none (loopback only)",
    )
    operators: Words = Field(
        default=(),
        description="operators. proxy: their names; oidc: verified addresses, and subjects without @",
    )
    trusted_proxies: Words = Field(
        default=(), description="addresses or networks of reverse proxies, e.g. 10.0.0.0/8"
    )
    proxy_header: str = Field(
        default="Remote-User",
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="proxy: header in which the trusted proxy names the person",
    )
    session_hours: float = Field(
        default=168, gt=0, le=8760, description="hours until a person must sign in again"
    )
    session_key: SecretStr = Field(
        default=SecretStr(""),
        description="secret that signs sessions, shared by several servers; empty: kept in data_dir",
    )
    oidc: OidcSettings = Field(default_factory=OidcSettings, description="the OpenID provider")

    @field_validator("url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.query):
            raise ValueError("must be an address such as https://videos.example.org")
        if parts.path.strip("/"):
            raise ValueError("must not have a path: the page needs a host name of its own")
        return value.rstrip("/")

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ipaddress.ip_network(each, strict=False)
            except ValueError as error:
                raise ValueError(f"holds {each!r}, which is no address or network") from error
        return value
