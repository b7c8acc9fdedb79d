"""Settings: one frozen model, read once at the edge; flags > HEVCQ_* > hevcq.toml > defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hevcq.settings.libraries import Library, refuse_conflicts
from hevcq.settings.notify import MediaServerSettings, NotifySettings, WebhookSettings
from hevcq.settings.schedule import ScheduleSettings
from hevcq.settings.service import HealthSettings, ServiceSettings
from hevcq.settings.sync import SyncSettings
from hevcq.settings.uploads import UploadSettings
from hevcq.settings.web import WebSettings

ANYWHERE = frozenset(
    {
        "workers",
        "min_free_mib",
        "poll_s",
        "stop_grace_s",
        "log_level",
        "log_style",
        "metrics_emf",
        "metrics_every_s",
    }
)
"""Settings that a `hevcq.toml` found in the current folder may make: none of them runs a program,
chooses a folder or a recipe, opens a port or sends data anywhere. A new setting is not among them."""
PROGRAMS = frozenset({"ffmpeg", "ffprobe"})
"""Settings that name a program: with a `/` a path, else a name looked up in PATH."""


def named(value: tuple[str, ...] | str) -> tuple[str, ...]:
    """Return the names of a list, or of a text with commas between them, each once."""
    names = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


class AwsSettings(BaseModel):
    """Where the farm is on AWS; `terraform output` prints these ready to paste."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str = Field(default="", description="AWS region; empty: from the AWS configuration")
    endpoint_url: str = Field(default="", description="endpoint of an emulator; empty: AWS")
    input_bucket: str = Field(default="", description="bucket for uploads")
    output_bucket: str = Field(
        default="", description="bucket for renditions; empty: the input bucket"
    )
    topic_arn: str = Field(default="", description="SNS topic that fans uploads out")
    table: str = Field(default="hevcq", description="DynamoDB table of the ledger")
    videos_table: str = Field(
        default="", description="DynamoDB table of uploaded videos; empty: <table>-videos"
    )
    queue_prefix: str = Field(
        default="hevcq-",
        description="queues are named <prefix><profile>, dead letters <prefix><profile>-dlq",
    )
    # Text too: Terraform says `hevc,720p`, where pydantic-settings takes a tuple only as JSON.
    profiles: tuple[str, ...] | str = Field(
        default=(),
        description="profiles that have a queue and workers there; empty: each without `fleet: "
        "{deployed: false}`",
    )
    verify_before_replace: bool = Field(
        default=True,
        description="run the gates on this machine too before a rendition of the fleet replaces an "
        "original, which costs a decode of both; false: the fleet's own check suffices",
    )
    namespace: str = Field(
        default="",
        pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="name of this machine or owner in the keys of uploads; empty: kept in data_dir",
    )
    tag_done: bool = Field(
        default=False,
        description="tag an upload hevcq=done when all its jobs are done or skipped",
    )

    @field_validator("profiles", mode="after")
    @classmethod
    def _split(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        return named(value)

    @property
    def videos(self) -> str:
        """The table of uploaded videos."""
        return self.videos_table or f"{self.table}-videos"


class IngestSettings(BaseModel):
    """What `hevcq ingest` makes of a library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Text too: a variable may say `hevc,720p`, where pydantic-settings takes a tuple only as JSON.
    profiles: tuple[str, ...] | str = Field(
        default=("hevc",),
        description="profiles that `hevcq ingest` makes without --profile",
    )

    @field_validator("profiles", mode="after")
    @classmethod
    def _split(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        found = named(value)
        if not found:
            raise ValueError("must name at least one profile")
        return found


class Settings(BaseModel):
    """Everything that can be configured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["embedded", "aws"] = Field(
        default="embedded", description="embedded (this machine) or aws"
    )
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("hevcq", appauthor=False)),
        description="folder for the database, store and scratch files",
    )
    scratch_dir: Path | None = Field(
        default=None, description="folder for unfinished encodes; empty: inside data_dir"
    )
    profiles_dir: Path | None = Field(
        default=None, description="folder of profiles; empty: yours (`profiles init`), else shipped"
    )
    workers: int = Field(default=0, ge=0, le=1024, description="parallel encodes; 0: automatic")
    ffmpeg: str = Field(default="ffmpeg", description="the ffmpeg program")
    ffprobe: str = Field(default="ffprobe", description="the ffprobe program")
    sandbox: bool = Field(
        default=True,
        description="run ffmpeg without network and with access to its own video only, where the "
        "system can; false for an ffmpeg that needs more, e.g. one started by a script",
    )
    min_free_mib: int = Field(
        default=1024, ge=0, description="free disk space (MiB) below which work pauses"
    )
    poll_s: float = Field(
        default=0.5,
        gt=0,
        le=20,
        description="embedded: seconds between checks for new messages of other processes",
    )
    stop_grace_s: float = Field(
        default=20,
        ge=0,
        le=110,
        description="seconds that running encodes get to finish when stopping",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="lowest level that is logged"
    )
    log_style: Literal["console", "json"] = Field(
        default="console", description="console (for people) or json"
    )
    ingest: IngestSettings = Field(
        default_factory=IngestSettings, description="what `hevcq ingest` makes"
    )
    libraries: tuple[Library, ...] = Field(
        default=(),
        description="media folders, each a table [[libraries]] (see docs/home/service.md)",
    )
    sync: tuple[SyncSettings, ...] = Field(
        default=(),
        description="[[sync]]: folders of a Nextcloud or WebDAV account to copy or move here",
    )
    notify: tuple[NotifySettings, ...] = Field(
        default=(), description="[[notify]]: people to notify, by apprise"
    )
    webhook: tuple[WebhookSettings, ...] = Field(
        default=(), description="[[webhook]]: programs to notify, by signed requests"
    )
    media_server: tuple[MediaServerSettings, ...] = Field(
        default=(), description="[[media_server]]: Jellyfin, Plex, Sonarr and Radarr to refresh"
    )
    schedule: ScheduleSettings = Field(
        default_factory=ScheduleSettings, description="when this machine works"
    )
    service: ServiceSettings = Field(
        default_factory=ServiceSettings, description="what `hevcq service` does beside"
    )
    health: HealthSettings = Field(
        default_factory=HealthSettings, description="what `hevcq service` reads whole each night"
    )
    aws: AwsSettings = Field(default_factory=AwsSettings, description="AWS resources of the farm")
    web: WebSettings = Field(default_factory=WebSettings, description="the page of `hevcq serve`")
    uploads: UploadSettings = Field(
        default_factory=UploadSettings, description="uploads through the page and the API"
    )
    metrics_emf: bool = Field(
        default=False, description="worker: write metrics to stdout as CloudWatch EMF lines"
    )
    metrics_address: str = Field(
        default="",
        pattern=r"^$|^.+:\d{1,5}$",
        description="worker: host:port to serve Prometheus metrics on; empty: off",
    )
    metrics_every_s: float = Field(
        default=60, ge=1, le=3600, description="worker: seconds between metric reports"
    )

    @property
    def has_page(self) -> bool:
        """Whether anything of the page or its uploads is set."""
        return self.web != WebSettings() or self.uploads != UploadSettings()

    @field_validator("data_dir", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """An empty name would be the current folder, wherever that happens to be."""
        if value == "":
            raise ValueError("must name a folder")
        return value

    @field_validator("scratch_dir", "profiles_dir", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("libraries", mode="after")
    @classmethod
    def _apart(cls, value: tuple[Library, ...]) -> tuple[Library, ...]:
        refuse_conflicts(value)
        return value

    @field_validator("sync", mode="after")
    @classmethod
    def _unique_names(cls, value: tuple[SyncSettings, ...]) -> tuple[SyncSettings, ...]:
        names = [each.name for each in value]
        if len(set(names)) < len(names):
            raise ValueError("must have a different name for each [[sync]]")
        return value

    @property
    def scratch(self) -> Path:
        """The folder of unfinished encodes."""
        return self.scratch_dir if self.scratch_dir is not None else self.data_dir / "scratch"
