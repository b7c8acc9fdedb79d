"""Settings of one sync: which folders of which account come to which folder of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from hevcq.domain.model import Frozen
from hevcq.settings.quantities import Duration, Rate


class SyncSettings(Frozen):
    """One account whose folders are copied or moved to this machine."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="name in `hevcq sync NAME`"
    )
    url: str = Field(description="address of a Nextcloud or WebDAV folder")
    user: str = Field(default="", description="user on the server")
    password_file: Path | None = Field(
        default=None, description="file whose first line is the (app) password"
    )
    ca_file: Path | None = Field(
        default=None, description="certificates to trust instead of the system's (PEM)"
    )
    folders: tuple[str, ...] = Field(
        min_length=1, description="folders on the server, with all that is below them"
    )
    target: Path = Field(description="folder of this machine that the files come to")
    mode: Literal["copy", "move"] = Field(
        default="copy", description="copy, or move: delete on the server what has landed safely"
    )
    settle: Duration = Field(
        default=600.0, description="how long a file must stay the same before it is fetched"
    )
    limit: Rate = Field(default=0, description="bytes a second, such as 4M; empty: no limit")

    @field_validator("url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an address such as https://cloud.example.org")
        if parts.username or parts.password:
            raise ValueError("must not hold a user or password; use user and password_file")
        if parts.query or parts.fragment:
            raise ValueError("must not hold a query or fragment")
        return value.rstrip("/")

    @field_validator("folders", mode="after")
    @classmethod
    def _inside(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(folder.strip("/") for folder in value))
        for folder in found:
            parts = folder.split("/") if folder else []
            if any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
                raise ValueError("must be folders of the account such as InstantUpload/Camera")
        return found

    @field_validator("target", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if value == "":
            raise ValueError("must name a folder")
        return value

    @field_validator("settle", mode="before")
    @classmethod
    def _said(cls, value: object) -> object:
        """Nothing is no duration: a file that still grows must not be fetched."""
        if value == "":
            raise ValueError("must be a duration such as '10m'")
        return value
