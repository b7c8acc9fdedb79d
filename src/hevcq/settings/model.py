"""Every setting with its default, in one frozen model; flags > HEVCQ_* > hevcq.toml > defaults."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from hevcq.domain.model import Frozen
from hevcq.domain.schedule import Hours, RunningWork, Schedule
from hevcq.settings.libraries import Library, SyncSettings, refuse_conflicts
from hevcq.settings.quantities import Names, Windows
from hevcq.settings.web import (
    MediaServerSettings,
    NotifySettings,
    UploadSettings,
    WebhookSettings,
    WebSettings,
)

PROGRAMS = frozenset({"ffmpeg"})
"""Settings that name a program: a path if there is a `/` in it, else a name to look up in PATH."""
TABLES = frozenset({"paths"})
"""Settings that are a table with keys of the user's choice."""


def _refuse_empty(value: object) -> object:
    """Refuse an empty name, which would mean the current folder."""
    if value == "":
        raise ValueError("must name a folder")
    return value


Folder = Annotated[
    Path, BeforeValidator(_refuse_empty), AfterValidator(lambda path: path.expanduser().absolute())
]
MaybeFolder = Annotated[Folder | None, BeforeValidator(lambda value: value or None)]


class AwsSettings(Frozen):
    """The AWS resources of the farm; `terraform output` prints them ready to paste."""

    region: str = Field(default="", description="AWS region; empty: from the AWS configuration")
    endpoint_url: str = Field(default="", description="endpoint of an emulator; empty: AWS")
    input_bucket: str = Field(default="", description="bucket for uploads")
    output_bucket: str = Field(
        default="", description="bucket for renditions; empty: the input bucket"
    )
    topic_arn: str = Field(default="", description="SNS topic that fans uploads out")
    table: str = Field(
        default="hevcq",
        description="DynamoDB table of the ledger; queues are named <table>-<profile>, dead letters "
        "<table>-<profile>-dlq. What follows a dot, as in hevcq.2, names a restored table only",
    )
    profiles: Names = Field(
        default=(),
        description="profiles that have a queue and workers there; empty: each without `fleet: "
        "{deployed: false}`",
    )
    tag_done: bool = Field(
        default=False,
        description="tag an upload hevcq=done when all its jobs are done or skipped",
    )

    @property
    def queue_prefix(self) -> str:
        return f"{self.table.partition('.')[0]}-"

    @property
    def videos(self) -> str:
        return f"{self.queue_prefix}videos"


class PostgresSettings(Frozen):
    """The server that several machines share."""

    dsn: SecretStr = Field(
        default=SecretStr(""),
        description="connection string, postgresql://user:password@host/database; empty: libpq's PGHOST, "
        "PGSERVICE, …",
    )
    files_dir: MaybeFolder = Field(
        default=None,
        description="folder of renditions and uploads, shared by every machine; empty: data_dir",
    )


class S3Settings(Frozen):
    """A bucket on an S3-compatible server, for renditions and uploads of several machines."""

    endpoint_url: str = Field(
        default="", pattern=r"^$|^https?://", description="address of the server: MinIO, Ceph, …"
    )
    bucket: str = Field(
        default="", description="bucket for renditions and uploads; empty: postgres.files_dir"
    )

    @field_validator("bucket", mode="after")
    @classmethod
    def _needs_endpoint(cls, value: str, info: ValidationInfo) -> str:
        if value and not info.data.get("endpoint_url"):
            raise ValueError("needs s3.endpoint_url, the address of its server")
        return value


class PriceSettings(Frozen):
    """What encoding costs in US dollars: on AWS by default, else by your region's or your power's prices."""

    vcpu_hour: float = Field(
        default=0.0494,
        gt=0,
        description="a vCPU and its 2 GB of memory for an hour: Fargate x86 on demand in us-east-1, Spot "
        "is up to 70 % below",
    )
    max_per_day: float | None = Field(
        default=None,
        gt=0,
        description="dollars for a day's encodes: once they are spent nothing begins until midnight",
    )

    @property
    def source(self) -> str:
        """The source and date of the price; see docs/farm/cost.md."""
        ours = self.vcpu_hour == type(self).model_fields["vcpu_hour"].default
        return "Fargate x86 on demand in us-east-1, April 2026" if ours else "your prices.vcpu_hour"

    def cost(self, cpu_s: float) -> float:
        """Return the cost of so many CPU seconds in dollars."""
        return cpu_s / 3600 * self.vcpu_hour


class ScheduleSettings(Frozen):
    """When work may run; by default always."""

    # A variable may say `Mon-Fri 22:00-06:30; Sat,Sun 00:00-24:00`.
    windows: Windows = Field(
        default=(),
        description='hours in which work may run, like "Mon-Fri 22:00-06:30"; empty: always',
    )
    timezone: str = Field(
        default="", description="time zone of all windows, like Europe/Berlin; empty: the machine's"
    )
    at_end: RunningWork = Field(
        default=RunningWork.BORDER,
        description="running work when a window ends: border (encodes and chunks end, none begins), "
        "freeze (pauses) or stop (starts again later)",
    )
    gate_command: str = Field(
        default="",
        description="program that is asked every minute; work runs only while its exit code is 0",
    )

    @field_validator("timezone", mode="after")
    @classmethod
    def _timezone(cls, value: str) -> str:
        Schedule.parse((), value)
        return value

    @field_validator("gate_command", mode="after")
    @classmethod
    def _command(cls, value: str) -> str:
        try:
            shlex.split(value)
        except ValueError as error:
            raise ValueError(f"is not a command: {error}") from error
        return value.strip()

    def hours(self) -> Hours:
        return Hours(Schedule.parse(self.windows, self.timezone), self.at_end)


class IngestSettings(Frozen):
    """What `hevcq ingest` makes of a folder."""

    profiles: Names = Field(
        default=("hevc",),
        description="profiles that `hevcq ingest` makes without --profile",
    )

    @field_validator("profiles", mode="after")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name at least one profile")
        return value


class Settings(Frozen):
    """Everything that can be configured."""

    backend: Literal["embedded", "postgres", "aws"] = Field(
        default="embedded",
        description="embedded (this machine), postgres (several machines that share it) or aws",
    )
    data_dir: Folder = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("hevcq", appauthor=False)),
        description="folder for the database, store and scratch files",
    )
    scratch_dir: MaybeFolder = Field(
        default=None, description="folder for unfinished encodes; empty: inside data_dir"
    )
    profiles_dir: MaybeFolder = Field(
        default=None, description="folder of profiles; empty: yours (`profiles init`), else shipped"
    )
    workers: int = Field(default=0, ge=0, le=1024, description="parallel encodes; 0: automatic")
    ffmpeg: str = Field(
        default="ffmpeg", description="the ffmpeg program; the ffprobe beside it is used with it"
    )
    metric_ffmpeg: str = Field(
        default="",
        description="an ffmpeg with libvmaf, which measures for video.quality; empty: imageio-ffmpeg's "
        "(hevcq[quality]), else ffmpeg",
    )
    sandbox: bool = Field(
        default=True,
        description="run ffmpeg without network and with access to its own video only, where the "
        "system can; false for an ffmpeg that needs more, e.g. one started by a script",
    )
    min_free_mib: int = Field(
        default=1024, ge=0, description="free disk space (MiB) below which work pauses"
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
    postgres: PostgresSettings = Field(
        default_factory=PostgresSettings, description="the database of several machines"
    )
    s3: S3Settings = Field(
        default_factory=S3Settings,
        description="[s3], with postgres: a bucket instead of postgres.files_dir; its keys and region come "
        "as boto3 finds them",
    )
    paths: dict[Path, Path] = Field(
        default_factory=dict,
        description="[paths], with postgres: folders that are elsewhere on this machine, by the name that the "
        'other machines know them by: "/srv/media" = "/mnt/nas"',
    )
    aws: AwsSettings = Field(default_factory=AwsSettings, description="AWS resources of the farm")
    prices: PriceSettings = Field(
        default_factory=PriceSettings, description="what encoding costs on AWS"
    )
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

    @property
    def ffprobe(self) -> str:
        """The ffprobe beside the configured ffmpeg, if there is one, else that of PATH."""
        beside = Path(self.ffmpeg).with_name("ffprobe")
        return str(beside) if "/" in self.ffmpeg and beside.exists() else "ffprobe"

    @property
    def has_page(self) -> bool:
        return self.web != WebSettings() or self.uploads != UploadSettings()

    @field_validator("libraries", mode="after")
    @classmethod
    def _apart(cls, value: tuple[Library, ...]) -> tuple[Library, ...]:
        refuse_conflicts(value)
        return value

    @field_validator("s3", mode="after")
    @classmethod
    def _beside_postgres(cls, value: S3Settings, info: ValidationInfo) -> S3Settings:
        if value.bucket and info.data.get("backend") != "postgres":
            raise ValueError('only works with backend = "postgres"; for AWS itself see [aws]')
        if value.bucket and info.data["postgres"].files_dir is not None:
            raise ValueError("replaces postgres.files_dir: name one of them")
        return value

    @field_validator("paths", mode="after")
    @classmethod
    def _one_name_each(cls, value: dict[Path, Path], info: ValidationInfo) -> dict[Path, Path]:
        """Refuse folders that would give one file two names."""
        if value and info.data.get("backend") != "postgres":
            raise ValueError('only works with backend = "postgres"')
        for name, folder in value.items():
            for path in (name, folder):
                if not path.is_absolute() or path == Path("/") or ".." in path.parts:
                    raise ValueError(f"must name whole paths of folders, not {str(path)!r}")
            for other, there in value.items():
                if other != name and there.is_relative_to(folder):
                    raise ValueError(
                        f"leads {name} and {other} to one place, as {there} is in {folder}: name the outer"
                        " folder only"
                    )
        return value

    @field_validator("sync", mode="after")
    @classmethod
    def _unique_names(cls, value: tuple[SyncSettings, ...]) -> tuple[SyncSettings, ...]:
        names = [each.name for each in value]
        if len(set(names)) < len(names):
            raise ValueError("must have a different name for each [[sync]]")
        return value

    @property
    def on_aws(self) -> bool:
        return self.backend == "aws"

    @property
    def uploads_direct(self) -> bool:
        """Whether browsers upload videos directly to a bucket."""
        return self.on_aws or bool(self.s3.bucket)

    @property
    def files_dir(self) -> Path:
        """The folder of renditions and uploads."""
        shared = self.postgres.files_dir if self.backend == "postgres" else None
        return shared if shared is not None else self.data_dir

    @property
    def scratch(self) -> Path:
        return self.scratch_dir if self.scratch_dir is not None else self.data_dir / "scratch"
