"""What programs send to the API and get from it; docs/openapi.json is generated from these models.

Times are seconds since the Unix epoch, sizes bytes.
"""

from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, ConfigDict, Field

from hevcq.domain.job import MAX_SIZE, JobState
from hevcq.domain.schedule import RunningWork
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos import (
    MAX_DESCRIPTION,
    MAX_FILE_NAME,
    MAX_OWNER,
    MAX_TAG,
    MAX_TAGS,
    MAX_TITLE,
    VIDEO_ID,
    VideoStatus,
    Visibility,
)
from hevcq.ports.videos import MAX_PAGE, UploadWay
from hevcq.usecases.operations.pausing import MAX_PAUSE_S

ProfileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Names = Annotated[list[ProfileName], Field(max_length=50)]


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Told(BaseModel):
    model_config = ConfigDict(
        from_attributes=True, json_schema_serialization_defaults_required=True
    )


class UploadIn(Sent):
    """A video to upload. Without profiles it gets the subscribed ones."""

    name: str = Field(min_length=1, max_length=MAX_FILE_NAME, description="name of the file")
    size: int = Field(ge=1, le=MAX_SIZE, description="bytes")
    title: str = Field(default="", max_length=MAX_TITLE)
    description: str = Field(default="", max_length=MAX_DESCRIPTION)
    profiles: Names = Field(default_factory=list)
    media_type: str = Field(default="", max_length=100)


class PartsIn(Sent):
    """Numbers of parts whose addresses are wanted."""

    numbers: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(min_length=1, max_length=100)


class PartsOut(BaseModel):
    """Signed addresses by part number, and the sizes of the parts that came."""

    urls: dict[str, str]
    came: dict[str, int]


class FormatOut(Told):
    """What one profile makes of a video. `url` plays it, as soon as it is published."""

    profile: str
    state: JobState
    phase: str
    percent: float
    eta_s: float | None
    size: int
    saved: float | None = Field(description="share of the uploaded size; negative: it is larger")
    reason: str
    failure_class: FailureClass | None
    remedy: str
    notices: list[str] = Field(description="what it lacks of the upload")
    personal: list[str] | None = Field(
        description="what its tags tell of people, places and devices, by name; null: unknown"
    )
    url: str = ""


class VideoOut(Told):
    """An uploaded video."""

    id: str = Field(pattern=VIDEO_ID, validation_alias="video_id")
    owner: str = Field(max_length=MAX_OWNER)
    title: str
    description: str
    tags: list[str]
    created_at: float
    updated_at: float
    status: VideoStatus
    reason: str
    remedy: str
    failure_class: FailureClass | None
    visibility: Visibility
    slug: str | None = Field(description="address of a public video: /p/<slug>")
    share_ends_at: float | None = Field(validation_alias=AliasPath("share", "ends_at"))
    profiles: list[str]
    file_name: str = Field(validation_alias=AliasPath("upload", "name"))
    size: int = Field(validation_alias=AliasPath("upload", "size"))
    upload_expires_at: float | None = Field(validation_alias=AliasPath("upload", "expires_at"))
    raw_deleted_at: float | None
    revision: int
    formats: list[FormatOut] = []


class UploadOut(BaseModel):
    """An upload that was begun: its video, how to send it, and how many bytes came."""

    video: VideoOut
    way: UploadWay
    came: int


class VideoPage(BaseModel):
    """Videos, newest first; `cursor` asks for the next page, "" at the end."""

    videos: list[VideoOut]
    cursor: str


class ShareIn(Sent):
    """On what terms a public video is watched; what is left out is no limit."""

    days: int | None = Field(default=None, description="days until its address leads nowhere")
    password: str = ""
    download: bool = True


class PublishIn(Sent):
    """What a public video shares beside its picture and sound."""

    tags: bool = Field(
        default=False, description="formats with what they tell of people, places and devices"
    )
    original: bool = Field(default=False, description="the uploaded file, with all it holds")
    share: ShareIn | None = Field(default=None, description="new terms; null keeps those it has")


class VideoChange(Sent):
    """What to change; what is left out stays."""

    title: str | None = Field(default=None, min_length=1, max_length=MAX_TITLE)
    description: str | None = Field(default=None, max_length=MAX_DESCRIPTION)
    tags: list[Annotated[str, Field(max_length=MAX_TAG)]] | None = Field(
        default=None, max_length=MAX_TAGS
    )
    share: ShareIn | None = Field(
        default=None, description="new terms of a public video, all of them"
    )


class FormatsIn(Sent):
    """The formats that are meant; none: all."""

    profiles: Names = Field(default_factory=list)


class UsageOut(BaseModel):
    """What one's videos take, and the limits (null: none)."""

    videos: int
    open_uploads: int
    size: int
    max_size: int | None
    max_open_uploads: int | None
    max_video_size: int


class ProfileOut(BaseModel):
    """A format that videos can be made in."""

    name: str
    description: str
    subscribed: bool


class PageQuery(BaseModel):
    """How many."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_PAGE)


class VideoQuery(PageQuery):
    """Which videos. `all` lists those of every owner, for operators."""

    status: VideoStatus | None = None
    text: str = Field(default="", max_length=100)
    cursor: str = Field(default="", pattern=rf"^$|{VIDEO_ID}")
    all: bool = False


class JobQuery(PageQuery):
    """Which jobs."""

    state: JobState | None = None
    profile: ProfileName | None = None
    cursor: str = Field(default="", pattern=r"^$|^[0-9]{1,12}(\.[0-9]{1,9})?-[0-9a-f]{32}$")


class JobOut(Told):
    """A job of the ledger."""

    id: str = Field(validation_alias="job_id")
    profile: str
    source: str = Field(validation_alias=AliasPath("source", "key"))
    size: int = Field(validation_alias=AliasPath("source", "size"))
    state: JobState
    phase: str = Field(default="", validation_alias=AliasPath("progress", "phase"))
    percent: float = Field(default=0.0, validation_alias=AliasPath("progress", "percent"))
    reason: str
    failure_class: FailureClass | None
    failures: int
    updated_at: float


class JobIn(Sent):
    """A video to encode: a file of a library by its path, or on AWS an object of the input bucket.

    Profiles choose among those of the library, whose rules hold, or (AWS) the subscribed ones.
    """

    path: str = Field(default="", max_length=4096)
    key: str = Field(default="", max_length=1024)
    profiles: Names = Field(default_factory=list)


class ImportedFile(BaseModel):
    path: str = Field(max_length=4096)


class ImportIn(BaseModel):
    """The webhook "On Import" of Sonarr or Radarr: what else they send is not looked at."""

    event: str = Field(alias="eventType", max_length=100)
    episode: ImportedFile | None = Field(default=None, alias="episodeFile")
    episodes: list[ImportedFile] = Field(default=[], alias="episodeFiles", max_length=500)
    movie: ImportedFile | None = Field(default=None, alias="movieFile")

    def paths(self) -> list[str]:
        """Return the files that were imported; none for another event, such as their test."""
        files = [each for each in (self.episode, self.movie, *self.episodes) if each is not None]
        return list(dict.fromkeys(each.path for each in files)) if self.event == "Download" else []


class JobPage(BaseModel):
    """Jobs, most recently changed first."""

    jobs: list[JobOut]
    cursor: str


class TestOut(BaseModel):
    """What the server of a sync account allows, or what a receiver took, in words."""

    works: str


class ReceiverOut(BaseModel):
    """Who is notified. The address of people is a secret, and not shown; no events: the usual ones."""

    kind: str
    number: int
    name: str
    url: str
    events: list[str]


class ReceiversOut(BaseModel):
    """Everybody who is notified, and the digest of the settings file that says so."""

    receivers: list[ReceiverOut]
    digest: str


class ProfileCopyIn(Sent):
    """A new profile, which is a copy of another."""

    name: ProfileName
    source: ProfileName


class ProfileTextIn(Sent):
    """A profile's new text, or new values of some keys, such as `video.crf`; `former` is the text that was seen."""

    text: str = Field(default="", max_length=20_000)
    keys: dict[str, Any] = Field(default_factory=dict)
    former: str | None = None


class ProfileTextOut(BaseModel):
    """A profile as its file has it; `own` ones did not come with hevcq. `users` name it."""

    name: str
    text: str
    own: bool
    users: list[str]


class ChangeOut(Told):
    """A change of the settings; `undone` is who undid it, or empty."""

    number: int
    at: float
    who: str
    what: str
    undone: str


class ProfileIn(Sent):
    """The profile that is meant; none: all."""

    profile: ProfileName | None = None


class PauseIn(ProfileIn):
    """A pause of one profile, or of all; without `for_s` until it is resumed."""

    for_s: float | None = Field(default=None, gt=0, le=MAX_PAUSE_S, description="seconds")
    running: Annotated[RunningWork, Field(strict=False)] = Field(
        default=RunningWork.BORDER, description="what becomes of running work"
    )


class Problem(BaseModel):
    """What went wrong (RFC 9457), with its class and what to do."""

    type: str
    title: str
    status: int
    detail: str
    kind: str = Field(default="", serialization_alias="class")
    remedy: str = ""
