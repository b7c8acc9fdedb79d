"""The port of uploaded files: where their bytes land, and how published files are played."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO

from hevcq.domain.job import Source
from hevcq.domain.videos.record import Video
from hevcq.errors import BadUpload


@dataclass(frozen=True, slots=True)
class UploadWay:
    """How a client sends the bytes.

    `kind` is `tus` (to this program), `form` (one POST of `fields` and the file to `url`) or `parts`
    (PUT each part of `part_size` bytes to a URL of its own). Signed URLs are valid for `valid_s`.
    """

    kind: str
    url: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    part_size: int = 0
    parts: int = 0
    valid_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Complete:
    """Every byte came, from its owner, and is pinned as a source."""

    source: Source


@dataclass(frozen=True, slots=True)
class Incomplete:
    """`came` of the declared bytes are there; more may follow."""

    came: int


@dataclass(frozen=True, slots=True)
class Wrong:
    """What came is not what was declared, and can never become it: a sentence says why."""

    why: str


Completion = Complete | Incomplete | Wrong


class Receiver(ABC):
    """The bytes of one upload while one client appends to them. Not thread-safe."""

    @property
    @abstractmethod
    def offset(self) -> int:
        """The bytes that are there."""

    @abstractmethod
    def append(self, block: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end. Raises DiskFull, StorageError."""

    @abstractmethod
    def sync(self) -> int:
        """Make what came durable, and return how many bytes that is."""

    @abstractmethod
    def cut(self, offset: int) -> None:
        """Drop everything from `offset` on."""


class VideoFiles(ABC):
    """Keep uploaded files apart from the inbox, so that none is encoded before it was checked.

    - Only `complete` makes a source of an upload; it compares size and owner with the record.
    - Nothing here changes a record.
    - Every method may raise StorageError or Unavailable.
    """

    receives: bool = False
    """Whether the bytes come through this program (`receive`)."""

    @abstractmethod
    def prepare(self, video: Video) -> str:
        """Make room for an upload; return what is to be kept as its `multipart_id`, or "".

        Repeated calls are harmless.
        """

    @abstractmethod
    def way(self, video: Video) -> UploadWay:
        """Return how the client sends the bytes; signed URLs are made anew each time."""

    def part_url(self, video: Video, number: int) -> str:  # noqa: ARG002 - only where parts are sent
        """Return the signed URL of one part (1 to 10,000). Raises BadUpload."""
        raise BadUpload("This upload is not sent in parts.")

    def parts_came(self, video: Video) -> Mapping[int, int]:  # noqa: ARG002 - as above
        """Return the sizes of the parts that came, by number."""
        return {}

    def receive(self, video: Video) -> AbstractContextManager[Receiver]:  # noqa: ARG002 - as above
        """Open the upload for appending, for one client at a time.

        Raises Conflict while another process has it open, BadUpload where bytes go elsewhere.
        """
        raise BadUpload("The bytes of this upload go to the address it was given.")

    @abstractmethod
    def came(self, video: Video) -> int:
        """Return how many bytes of an unfinished upload came, durable or not."""

    @abstractmethod
    def complete(self, video: Video) -> Completion:
        """Check the upload and pin it, without reading its bytes. May be repeated."""

    @abstractmethod
    def discard(self, video: Video) -> None:
        """Remove whatever came of an upload; nothing there is no error.

        Raises Conflict while a client is sending.
        """

    @abstractmethod
    def delete_raw(self, video: Video) -> None:
        """Delete the uploaded file of `video.source`; one that is gone is no error.

        Raises SourceChanged if other bytes are there: those are nobody's to delete.
        """

    @abstractmethod
    def open_raw(self, video: Video, *, start: int = 0) -> BinaryIO:
        """Open the uploaded file of `video.source` for streaming from byte `start` on.

        Raises SourceGone or SourceChanged.
        """

    def raw_link(self, video: Video, *, name: str, media_type: str, attachment: bool) -> str | None:  # noqa: ARG002
        """Return a signed address of the uploaded file, or None; see `link`."""
        return None

    def link(self, key: str, *, name: str, media_type: str, attachment: bool) -> str | None:  # noqa: ARG002
        """Return a signed address of a published file, or None where this program serves it.

        It is served under `name` and as `media_type`, whatever was claimed of the file.
        """
        return None
