"""Model the record of an uploaded video (owner, renditions, visibility), its names, keys and quotas.

Times are seconds since the Unix epoch, sizes are bytes. The ledger is the truth about jobs. The record
keeps what the ledger does not know, or forgets (ended jobs on AWS).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from urllib.parse import quote

from pydantic import Field, field_validator

from hevcq.domain.job import MAX_SIZE, JobState, Source
from hevcq.domain.keys import OUTBOX, UPLOADS
from hevcq.domain.model import Frozen
from hevcq.domain.verdict import FailureClass
from hevcq.errors import QuotaExceeded

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
VIDEO_ID = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
"""A ULID (https://github.com/ulid/spec): 48 bits of milliseconds and 80 random bits, in base 32, so
that ids sort by their time of creation."""
SLUG = r"^[a-z0-9][a-z0-9-]{0,79}$"
MAX_TITLE = 200
MAX_DESCRIPTION = 5_000
MAX_TAGS, MAX_TAG = 20, 40
MAX_OWNER = 600
"""An OpenID provider's issuer and subject together (the subject has at most 255 characters)."""
MAX_FILE_NAME = 255
UNREAD = ("tags that were not looked at",)


def make_video_id(now: float, chance: bytes) -> str:
    """Return a new ULID of the time `now` (Unix seconds) and 10 random bytes."""
    value = (int(now * 1000) & (2**48 - 1)) << 80 | int.from_bytes(chance[:10].rjust(10, b"\0"))
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def is_video_id(text: str) -> bool:
    return re.fullmatch(VIDEO_ID, text) is not None


def may_own(owner: str) -> bool:
    """Return whether an identity can own videos: one line of printable text."""
    return 0 < len(owner) <= MAX_OWNER and owner.isprintable() and owner == owner.strip()


def one_line(text: str, most: int) -> str:
    """Return `text` as one line of at most `most` characters, without control characters.

    Titles and file names come from strangers and are shown in headers, terminals and pages.
    """
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:most].strip()


def parse_tags(words: Iterable[str]) -> tuple[str, ...]:
    """Return the tags in comma-separated texts without their `#`; tags that differ only by case count once."""
    tags = dict[str, str]()
    for each in ",".join(words).split(","):
        if tag := one_line(each.lstrip("# "), MAX_TAG):
            tags.setdefault(tag.casefold(), tag)
    return tuple(tags.values())[:MAX_TAGS]


def paragraphs(text: str, most: int) -> str:
    """Return `text` of at most `most` characters, with line breaks as its only control characters."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = ("".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines)
    return "\n".join(kept)[:most].strip()


class VideoStatus(StrEnum):
    """The state of a video."""

    UPLOADING = "uploading"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"


class Visibility(StrEnum):
    """Who may watch a video: its owner and the operators, or whoever knows its slug."""

    PRIVATE = "private"
    PUBLIC = "public"


class Upload(Frozen):
    """What the uploader declared about the file before sending it, and how it is sent.

    `name` is the file's name on the uploader's machine; it is shown and never used as a path.
    `media_type` is a claim. `multipart_id` is S3's id of an unfinished multipart upload.
    """

    name: str = Field(max_length=MAX_FILE_NAME)
    size: int = Field(ge=1, le=MAX_SIZE, description="bytes")
    media_type: str = "application/octet-stream"
    expires_at: float
    multipart_id: str = ""

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        return one_line(name, MAX_FILE_NAME) or "video"


class VideoRendition(Frozen):
    """The result of one profile's settled job. `notices`: see RenditionRef.

    `personal` names its tags about people, places and devices; None: not examined.
    """

    profile: str
    job_id: str
    state: JobState
    key: str = ""
    certificate_key: str = ""
    size: int = Field(default=0, ge=0, description="bytes")
    sha256: str = ""
    reason: str = ""
    failure_class: FailureClass | None = None
    notices: tuple[str, ...] = ()
    personal: tuple[str, ...] | None = None


class Unsent(Frozen):
    """A video's end whose event is not sent yet: when it happened, and when to try next."""

    at: float
    next_at: float
    tries: int = Field(default=0, ge=0, description="tries that failed")


class Share(Frozen):
    """The terms of a public video: until when it is shared, its password's hash, and downloads."""

    ends_at: float | None = None
    password: str = ""
    download: bool = True


class Video(Frozen):
    """An uploaded video.

    `source` is set once the upload is complete and checked. `raw_due_at` is when the uploaded file may
    be deleted, None while it may not; `raw_leaving` says that it is being deleted, so that no job is
    queued again for it; `raw_deleted_at` when it was. `done_at` is when all renditions were published.
    `public_tags` says whether the owner also shares renditions with personal tags, `public_original`
    whether the uploaded file is shared too. `unsent` is the end whose event is not sent yet, if the
    records do not write events themselves. `revision` counts the changes: a change is refused if another
    came first.
    """

    video_id: str = Field(pattern=VIDEO_ID)
    owner: str = Field(min_length=1, max_length=MAX_OWNER)
    title: str = Field(min_length=1, max_length=MAX_TITLE)
    description: str = Field(default="", max_length=MAX_DESCRIPTION)
    tags: tuple[str, ...] = Field(default=(), max_length=MAX_TAGS)
    created_at: float
    updated_at: float
    status: VideoStatus = VideoStatus.UPLOADING
    reason: str = ""
    remedy: str = ""
    failure_class: FailureClass | None = None
    visibility: Visibility = Visibility.PRIVATE
    slug: str | None = Field(default=None, pattern=SLUG)
    public_tags: bool = False
    public_original: bool = False
    share: Share = Share()
    profiles: tuple[str, ...] = Field(min_length=1)
    upload: Upload
    source: Source | None = None
    renditions: tuple[VideoRendition, ...] = ()
    done_at: float | None = None
    raw_due_at: float | None = None
    raw_leaving: bool = False
    raw_deleted_at: float | None = None
    unsent: Unsent | None = None
    revision: int = Field(default=1, ge=1)

    @field_validator("owner")
    @classmethod
    def _plain(cls, owner: str) -> str:
        if not may_own(owner):
            raise ValueError("must be one line of printable text")
        return owner

    @property
    def is_uploading(self) -> bool:
        return self.status is VideoStatus.UPLOADING

    @property
    def raw_kept(self) -> bool:
        """Whether the uploaded file takes space; an unfinished upload takes its declared size."""
        failed_upload = self.status is VideoStatus.FAILED and self.source is None
        return self.raw_deleted_at is None and not failed_upload

    @property
    def personal(self) -> tuple[str, ...]:
        """Names of its renditions' tags about people, places and devices."""
        personal = [UNREAD if each.personal is None else each.personal for each in self.published]
        return tuple(dict.fromkeys(name for names in personal for name in names))

    @property
    def published(self) -> tuple[VideoRendition, ...]:
        return tuple(each for each in self.renditions if each.key)

    def shares(self, made: VideoRendition) -> bool:
        """Return whether everyone who knows the slug may see a rendition."""
        public = self.visibility is Visibility.PUBLIC
        return public and (self.public_tags or made.personal == ())

    @property
    def charged_bytes(self) -> int:
        """The bytes that count for quotas: the uploaded file while kept, and the renditions."""
        raw = self.upload.size if self.raw_kept else 0
        return raw + sum(each.size for each in self.renditions)

    @property
    def due_at(self) -> float | None:
        """When the video next needs attention: its upload expires, its jobs run, its file or event is due."""
        if self.status is VideoStatus.UPLOADING:
            return self.upload.expires_at
        if self.status is VideoStatus.PROCESSING:
            return self.created_at
        times = (self.raw_look_at, self.unsent.next_at if self.unsent else None)
        return min((at for at in times if at is not None), default=None)

    @property
    def raw_look_at(self) -> float | None:
        """When to check whether the uploaded file may be deleted; None if it is deleted or must stay."""
        return self.raw_due_at if self.raw_deleted_at is None else None

    @property
    def search_text(self) -> str:
        """The case-folded text for searches: title, file name, tags as `#tag`, and description."""
        tags = " ".join(f"#{tag}" for tag in self.tags)
        return f"{self.title}\n{self.upload.name}\n{tags}\n{self.description}".casefold()


SAFE_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
VIDEO_TYPE = re.compile(r"video/[A-Za-z0-9.+-]{1,80}")
UNKNOWN_TYPE = "video/unknown"
TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4s": "video/iso.segment",
    ".vtt": "text/vtt; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
}
"""Media types of the files that hevcq makes; other files are served as OCTETS."""
OCTETS = "application/octet-stream"

REMEDIES: dict[FailureClass, str] = {
    FailureClass.DAMAGED: "Upload an intact copy of the video.",
    FailureClass.UNREADABLE: "Upload a file that is a video; this one is not, or cannot be opened.",
    FailureClass.UNSUPPORTED: "Choose another format, or upload the video in another form.",
    FailureClass.GONE: "Upload the video again.",
    FailureClass.CHANGED: "Upload the video again, and leave it alone until it is done.",
    FailureClass.REVIEW: "Ask an operator to look at it.",
    FailureClass.CANCELLED: "Retry it if you want it after all.",
    FailureClass.LIMIT: "Retry it, or upload a shorter or smaller version.",
    FailureClass.DISK: "Ask an operator for free disk space, then retry.",
    FailureClass.NETWORK: "Retry it.",
}
"""The advice to a video's owner by class of failure."""
OTHERWISE = "Retry it; if it fails again, tell an operator."


def remedy_of(failure_class: FailureClass | None) -> str:
    return "" if failure_class is None else REMEDIES.get(failure_class, OTHERWISE)


def suffix_of(name: str) -> str:
    """Return a file name's suffix in lower case, or "" if it is unsafe in a key."""
    suffix = PurePosixPath(name).suffix
    return suffix.lower() if SAFE_SUFFIX.fullmatch(suffix) else ""


def raw_key(video: Video) -> str:
    """Return the key of the uploaded file; only its suffix comes from the uploader."""
    return f"{UPLOADS}/{video.video_id}{suffix_of(video.upload.name)}"


def output_prefix(video: Video, profile: str) -> str:
    """Return the key prefix of everything that a profile published of the video."""
    return f"{OUTBOX}/{profile}/{UPLOADS}/{video.video_id}"


def use_upload_name(video: Video | None, words: str) -> str:
    """Replace the server's path of the uploaded file in a sentence by its name on the owner's machine."""
    if video is None:
        return words
    name = one_line(video.upload.name, 100)
    path = rf"(?:(?<!\S)/[^:]*?)?\S*{video.video_id}(?:\.[A-Za-z0-9]{{1,8}})?"
    return re.sub(path, lambda _found: name, words)


def upload_media_type(claim: str, name: str) -> str:
    """Return the media type to sign an upload for: the claimed or the guessed one, if it is a video's."""
    import mimetypes  # only commands that sign uploads need it

    for each in (claim, mimetypes.guess_type(name)[0] or ""):
        if VIDEO_TYPE.fullmatch(each):
            return each.lower()
    return UNKNOWN_TYPE


def media_type(key: str) -> str:
    """Return the media type to serve a published file as, by its suffix."""
    return TYPES.get(PurePosixPath(key).suffix.lower(), OCTETS)


def download_name(video: Video, profile: str, key: str) -> str:
    """Return the name to save a rendition as: title, profile and suffix."""
    stem = re.sub(r'[/\\:*?"<>|]+', "_", one_line(video.title, 120)).strip(". ") or "video"
    return f"{stem} ({profile}){suffix_of(key)}"


def content_disposition(name: str, *, attachment: bool) -> str:
    """Return the value of Content-Disposition for a file name of any characters (RFC 6266, RFC 5987)."""
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\%;' else "_" for c in name
    )
    kind = "attachment" if attachment else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def make_slug(title: str, chance: bytes) -> str:
    """Return a slug for a public video: words of its title and 80 random bits."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-")
    digits = int.from_bytes(chance[:10].rjust(10, b"\0"))
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    tail = "".join(alphabet[digits >> shift & 31] for shift in range(75, -1, -5))
    return f"{words}-{tail}" if words else tail


def decide_status(
    profiles: Sequence[str], settled: Sequence[VideoRendition]
) -> tuple[VideoStatus, VideoRendition | None]:
    """Return the state of a checked video, and the rendition that explains it.

    It is processing until every profile's job settled, then failed if any failed. A video that
    every profile skipped is done; the first skip explains it.
    """
    if {each.profile for each in settled} != set(profiles):
        return VideoStatus.PROCESSING, None
    failed = [each for each in settled if each.state is JobState.DEAD]
    if failed:
        return VideoStatus.FAILED, failed[0]
    any_done = any(each.state is JobState.DONE for each in settled)
    return VideoStatus.DONE, None if any_done else settled[0]


@dataclass(frozen=True, slots=True)
class VideoUsage:
    """Sums over an owner's videos, or all; `size` is in bytes (`Video.charged_bytes`)."""

    videos: int = 0
    open_uploads: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits for one owner and for the farm; None is no limit. Sizes are bytes."""

    owner_size: int | None = None
    owner_open: int | None = None
    farm_size: int | None = None
    farm_open: int | None = None


QUOTA_REMEDY = "Delete videos you no longer need, or finish or cancel an upload."


def quota_refusal(
    quota: Quota, owner: VideoUsage, farm: VideoUsage, size: int
) -> QuotaExceeded | None:
    """Return the error for the limit that one more upload of `size` bytes would exceed, or None."""
    problem = ""
    if quota.owner_open is not None and owner.open_uploads >= quota.owner_open:
        problem = (
            f"You have {owner.open_uploads} unfinished uploads; {quota.owner_open} are allowed."
        )
    elif quota.owner_size is not None and owner.size + size > quota.owner_size:
        left = max(0, quota.owner_size - owner.size)
        problem = f"Your videos may take {quota.owner_size:,} bytes; {left:,} are left."
    elif quota.farm_open is not None and farm.open_uploads >= quota.farm_open:
        problem = "Too many uploads are under way on this server."
    elif quota.farm_size is not None and farm.size + size > quota.farm_size:
        problem = "This server has no room for the video within its limit."
    return QuotaExceeded(problem, remedy=QUOTA_REMEDY) if problem else None
