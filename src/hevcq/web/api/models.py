"""What programs send to the API and receive from it; docs/openapi.json is generated from these models.

Times are seconds since the Unix epoch, sizes are bytes.
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


class RequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    model_config = ConfigDict(
        from_attributes=True, json_schema_serialization_defaults_required=True
    )


class UploadIn(RequestModel):
    """A video to upload. Without `profiles` it gets the subscribed ones."""

    name: str = Field(min_length=1, max_length=MAX_FILE_NAME, description="name of the file")
    size: int = Field(ge=1, le=MAX_SIZE, description="bytes")
    title: str = Field(default="", max_length=MAX_TITLE)
    description: str = Field(default="", max_length=MAX_DESCRIPTION)
    profiles: Names = Field(default_factory=list)
    media_type: str = Field(default="", max_length=100)


class PartsIn(RequestModel):
    """Numbers of the parts to sign addresses for."""

    numbers: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(min_length=1, max_length=100)


class PartsOut(BaseModel):
    """Signed addresses by part number, and the sizes of the parts that arrived."""

    urls: dict[str, str]
    came: dict[str, int]


class FormatOut(ResponseModel):
    """One profile's rendition of a video. `url` plays it once it is published."""

    profile: str
    state: JobState
    phase: str
    percent: float
    eta_s: float | None
    size: int
    saved: float | None = Field(description="saved share of the uploaded size; negative if larger")
    reason: str
    failure_class: FailureClass | None
    remedy: str
    notices: list[str] = Field(description="what it lacks, compared with the upload")
    personal: list[str] | None = Field(
        description="names of its tags about people, places and devices; null if unknown"
    )
    url: str = ""


class VideoOut(ResponseModel):
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
    """An unfinished upload: its video, how to send it, and how many bytes arrived."""

    video: VideoOut
    way: UploadWay
    came: int


class VideoPage(BaseModel):
    """Videos, newest first; `cursor` gets the next page, and is "" at the end."""

    videos: list[VideoOut]
    cursor: str


class ShareIn(RequestModel):
    """The terms of a public video; an omitted one means no limit."""

    days: int | None = Field(default=None, description="days until its address stops working")
    password: str = ""
    download: bool = True


class PublishIn(RequestModel):
    """What a public video shares besides its picture and sound."""

    tags: bool = Field(
        default=False, description="formats whose tags are about people, places and devices"
    )
    original: bool = Field(default=False, description="the uploaded file, with everything in it")
    share: ShareIn | None = Field(
        default=None, description="new terms; null keeps the current ones"
    )


class VideoChange(RequestModel):
    """What to change; omitted fields stay."""

    title: str | None = Field(default=None, min_length=1, max_length=MAX_TITLE)
    description: str | None = Field(default=None, max_length=MAX_DESCRIPTION)
    tags: list[Annotated[str, Field(max_length=MAX_TAG)]] | None = Field(
        default=None, max_length=MAX_TAGS
    )
    share: ShareIn | None = Field(default=None, description="new terms of a public video, complete")


class FormatsIn(RequestModel):
    """Which formats; empty for all."""

    profiles: Names = Field(default_factory=list)


class UsageOut(BaseModel):
    """What the caller's videos use, and the limits (null for none)."""

    videos: int
    open_uploads: int
    size: int
    max_size: int | None
    max_open_uploads: int | None
    max_video_size: int


class ProfileOut(BaseModel):
    """A format that videos can be encoded to."""

    name: str
    description: str
    subscribed: bool


class PageQuery(BaseModel):
    """The size of a page."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_PAGE)


class VideoQuery(PageQuery):
    """Which videos. `all` lists every owner's, for operators."""

    status: VideoStatus | None = None
    text: str = Field(default="", max_length=100)
    cursor: str = Field(default="", pattern=rf"^$|{VIDEO_ID}")
    all: bool = False


class JobQuery(PageQuery):
    """Which jobs."""

    state: JobState | None = None
    profile: ProfileName | None = None
    cursor: str = Field(default="", pattern=r"^$|^[0-9]{1,12}(\.[0-9]{1,9})?-[0-9a-f]{32}$")


class JobOut(ResponseModel):
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


class JobIn(RequestModel):
    """A video to encode: a file of a library by its path, or on AWS an object of the input bucket.

    `profiles` chooses among the library's, whose rules still apply, or on AWS among the subscribed ones.
    """

    path: str = Field(default="", max_length=4096)
    key: str = Field(default="", max_length=1024)
    profiles: Names = Field(default_factory=list)


class ImportedFile(BaseModel):
    path: str = Field(max_length=4096)


class ImportIn(BaseModel):
    """The webhook "On Import" of Sonarr or Radarr; their other fields are ignored."""

    event: str = Field(alias="eventType", max_length=100)
    episode: ImportedFile | None = Field(default=None, alias="episodeFile")
    episodes: list[ImportedFile] = Field(default=[], alias="episodeFiles", max_length=500)
    movie: ImportedFile | None = Field(default=None, alias="movieFile")

    def paths(self) -> list[str]:
        """Return the imported files; empty for other events, such as their test."""
        files = [each for each in (self.episode, self.movie, *self.episodes) if each is not None]
        return list(dict.fromkeys(each.path for each in files)) if self.event == "Download" else []


class JobPage(BaseModel):
    """Jobs, most recently changed first."""

    jobs: list[JobOut]
    cursor: str


class TestOut(BaseModel):
    """The result of a test, as a sentence."""

    works: str


class ReceiverOut(BaseModel):
    """A receiver of messages. Addresses of people are secret and not shown; no events: the default ones."""

    kind: str
    number: int
    name: str
    url: str
    events: list[str]


class ReceiversOut(BaseModel):
    """All receivers of messages, and the digest of the settings file that lists them."""

    receivers: list[ReceiverOut]
    digest: str


class ProfileCopyIn(RequestModel):
    """A new profile, copied from another."""

    name: ProfileName
    source: ProfileName


class ProfileTextIn(RequestModel):
    """A profile's new text, or new values of keys such as `video.crf`; `former` is the text that you read."""

    text: str = Field(default="", max_length=20_000)
    keys: dict[str, Any] = Field(default_factory=dict)
    former: str | None = None


class ProfileTextOut(BaseModel):
    """A profile's file. `own` profiles did not come with hevcq; `users` lists what names the profile."""

    name: str
    text: str
    own: bool
    users: list[str]


class ChangeOut(ResponseModel):
    """A change of the settings; `undone` is who undid it, or ""."""

    number: int
    at: float
    who: str
    what: str
    undone: str


class ProfileIn(RequestModel):
    """Which profile; null for all."""

    profile: ProfileName | None = None


class PauseIn(ProfileIn):
    """A pause of one profile, or of all; without `for_s` it lasts until resumed."""

    for_s: float | None = Field(default=None, gt=0, le=MAX_PAUSE_S, description="seconds")
    running: Annotated[RunningWork, Field(strict=False)] = Field(
        default=RunningWork.BORDER, description="what happens to running work"
    )


class Problem(BaseModel):
    """What went wrong (RFC 9457), with the error class and the remedy."""

    type: str
    title: str
    status: int
    detail: str
    kind: str = Field(default="", serialization_alias="class")
    remedy: str = ""
