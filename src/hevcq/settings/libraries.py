"""Settings of media folders: `[[libraries]]` with their rules, and `[[sync]]` with accounts elsewhere.

Durations, sizes and rates are written with a unit; values are seconds, bytes and bytes a second.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from hevcq.domain.model import Frozen
from hevcq.domain.schedule import Schedule
from hevcq.errors import ConfigError
from hevcq.settings.quantities import (
    ByteSize,
    CheckWindows,
    Duration,
    Names,
    Rate,
    Saving,
    Windows,
    address,
    first_line,
)
from hevcq.util.text import printable, reason_of

KEEP_DAYS = 30.0
"""Days that a replaced original is kept unless the library or --keep-originals says otherwise."""
NAME = re.compile(r"[^\W_][\w .-]{0,62}")
"""A library's name: people type it on the command line and read it in statistics; it is never a path."""


class Rule(Frozen):
    """One rule of a library: if all its conditions hold, the video is skipped or gets a profile.

    Limits are inclusive. A condition on a missing fact does not hold, as on the bit rate of a file
    without a duration.
    """

    codec: Names = Field(
        default=(), description="video codecs, as `hevcq profiles plan` names them"
    )
    min_bitrate: Rate = Field(default=0, description="bit rate of the whole file, e.g. 8Mbps")
    max_bitrate: Rate = 0
    min_height: int = Field(default=0, ge=0, description="pixels, as shown")
    max_height: int = Field(default=0, ge=0)
    min_size: ByteSize = Field(default=0, description="e.g. 500MiB")
    max_size: ByteSize = 0
    path: Names = Field(default=(), description="patterns as in `exclude`")
    skip: bool = Field(default=False, description="leave such videos alone")
    profile: str = Field(default="", description="encode such videos by this profile alone")

    @model_validator(mode="after")
    def _exactly_one_action(self) -> Self:
        if self.skip == bool(self.profile):
            raise ValueError("must say either `skip = true` or `profile = …`")
        if not self.model_fields_set - {"skip", "profile"}:
            raise ValueError("has no condition; set the library's `profiles` instead")
        return self


class Library(Frozen):
    """One media folder, what is made of it, where it goes, and when."""

    name: str = Field(description="what commands and statistics call it")
    path: Path = Field(description="folder of videos")
    profiles: Names = Field(default=(), description="what to make; empty: ingest.profiles")
    place: Literal["beside", "mirror", "replace"] = Field(
        default="beside", description="where renditions go"
    )
    output: Path | None = Field(default=None, description="the folder of `mirror`")
    keep_originals: float = Field(default=KEEP_DAYS, ge=0, description="days; only for `replace`")
    include: Names = Field(default=(), description="patterns of the only files to take")
    exclude: Names = Field(default=(), description="patterns of files to leave out")
    min_age: Duration = Field(default=0, description="leave younger files alone, e.g. 7d")
    min_saving: Saving = Field(default=0, description="skip where less is expected, e.g. 20%")
    settle: Duration = Field(default=10, description="unchanged for so long is complete")
    schedule: Annotated[Names, CheckWindows] = Field(
        default=(), description="when it may run; empty: always"
    )
    priority: int = Field(default=0, ge=-100, le=100, description="higher first")
    order: Literal["path", "saving"] = Field(
        default="path", description="saving: largest expected saving first"
    )
    max_hours_per_day: float = Field(default=0, ge=0, description="hours of encoding; 0: any")
    watch: bool = Field(default=True, description="take new files while `hevcq service` runs")
    rules: tuple[Rule, ...] = Field(default=(), description="the first that fits decides")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if NAME.fullmatch(name) is None or name != name.strip():
            raise ValueError("must be letters, digits, spaces, '.', '-' or '_'")
        return name

    @field_validator("path", "output")
    @classmethod
    def _whole_path(cls, path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - links are kept

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.place == "mirror") != (self.output is not None):
            raise ValueError(
                "needs `output`, the folder that `place = 'mirror'` fills, with it only"
            )
        if self.output is not None and self.path.is_relative_to(self.output):
            raise ValueError("has an `output` that holds the library itself")
        if self.place == "replace" and len(self.profiles) > 1:
            raise ValueError("must name one profile where `place` is 'replace'")
        if self.keep_originals != KEEP_DAYS and self.place != "replace":
            raise ValueError("has `keep_originals`, which works only with `place = 'replace'`")
        return self

    @property
    def place_on_disk(self) -> Path:
        """The folder with links resolved, as the catalog has it."""
        return Path(os.path.realpath(self.path))

    @property
    def chosen(self) -> Names:
        """Every profile that the library or one of its rules names."""
        names = (*self.profiles, *(rule.profile for rule in self.rules if rule.profile))
        return tuple(dict.fromkeys(names))


def overlap(folder: Path, libraries: Sequence[Library]) -> str:
    """Return why a folder cannot be a library beside these, or ""."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links are kept
    for library in libraries:
        name, path = library.name, library.path
        if path == folder:
            return f"{printable(folder)} is the library {name} already."
        if folder.is_relative_to(path) or path.is_relative_to(folder):
            where = "within" if folder.is_relative_to(path) else "the parent of"
            return (
                f"{printable(folder)} is {where} the library {name} ({printable(path)})."
                " Libraries must be separate folders."
            )
    return ""


def refuse_conflicts(libraries: Sequence[Library]) -> None:
    """Raise ValueError if two libraries share a name, or one's folder is within another's."""
    for number, library in enumerate(libraries):
        others = libraries[:number]
        if library.name.casefold() in {each.name.casefold() for each in others}:
            raise ValueError(f"holds two libraries named {library.name!r}; rename one")
        if words := overlap(library.path, others):
            raise ValueError(f"cannot all be there: {words.rstrip('.')}")


def library_of(libraries: Sequence[Library], path: Path) -> Library | None:
    """Return the library whose folder holds `path`, as it is named or with its links resolved."""
    return next(
        (
            each
            for each in libraries
            if path.is_relative_to(each.path) or path.is_relative_to(each.place_on_disk)
        ),
        None,
    )


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
    schedule: Windows = Field(
        default=(), description="when it may run by itself, like 22:00-06:00; empty: always"
    )

    @field_validator("url", mode="after")
    @classmethod
    def _whole(cls, value: str) -> str:
        if "@" in urlsplit(value).netloc:
            raise ValueError("must not hold a user or password; use user and password_file")
        if "?" in value or "#" in value:
            raise ValueError("must not hold a query or fragment")
        return address(value)

    @field_validator("folders", mode="after")
    @classmethod
    def _inside(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        folders = tuple(dict.fromkeys(folder.strip("/") for folder in value))
        for folder in folders:
            parts = folder.split("/") if folder else []
            if any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
                raise ValueError("must be folders of the account such as InstantUpload/Camera")
        return folders

    @field_validator("target", "settle", mode="before")
    @classmethod
    def _not_empty(cls, value: object) -> object:
        """Refuse "", which would be the current folder, or 0 s: a growing file must not be fetched."""
        if value == "":
            raise ValueError("must not be empty")
        return value

    def may_run(self, now: float, timezone: str) -> bool:
        """Return whether `now` (Unix seconds) is within the sync's schedule."""
        return Schedule.parse(self.schedule, timezone).open_at(now)

    def password(self) -> str:
        """Return the first line of the password file, or "" without a user. Raises ConfigError."""
        path = self.password_file
        if path is None:
            if self.user:
                raise ConfigError(
                    f"The sync {self.name} has a user but no password_file.",
                    remedy="Write the password into a file that only you can read, and name it there.",
                )
            return ""
        try:
            return first_line(path)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The password_file {printable(path)} of the sync {self.name} cannot be used: "
                f"{reason_of(error)}."
            ) from error
