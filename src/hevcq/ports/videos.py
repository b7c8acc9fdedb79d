"""The ports of the page: records and files of uploaded videos, and accounts."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hevcq.domain.job import Source
from hevcq.domain.videos import Quota, Video, VideoStatus, VideoUsage
from hevcq.errors import BadUpload, file_errors

MAX_PAGE = 200


class VideoOrder(StrEnum):
    """The order of a list of videos; `SIZE` is the uploaded file's, largest first."""

    NEWEST = "newest"
    NAME = "name"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class VideoFilter:
    """Select videos by owner (None: all), by states (empty: all) and by a text they contain.

    `before` is the cursor of the page before: the id of its last video or, if not sorted by time, the
    number of videos so far. `limit` is 1 to MAX_PAGE.
    """

    owner: str | None = None
    statuses: frozenset[VideoStatus] = frozenset()
    text: str = ""
    before: str = ""
    limit: int = 50
    order: VideoOrder = VideoOrder.NEWEST

    @property
    def in_order(self) -> list[VideoStatus]:
        """The selected states."""
        return [state for state in VideoStatus if not self.statuses or state in self.statuses]


@dataclass(frozen=True, slots=True)
class Page:
    """Videos in the requested order, and the cursor of the next page, "" at the end."""

    videos: tuple[Video, ...]
    cursor: str


class VideoRecords(ABC):
    """Store the records of videos. tests/contracts checks this specification for each backend:

    - A change holds only against the revision it was made from; the loser gets Conflict.
    - Quotas are checked in the transaction that creates the record, so that requests at the same
      time cannot exceed them together.
    - A page of the newest, a search by slug and a search for due videos use an index.
    - Every method may raise StorageError or Unavailable.
    """

    sends_ends: bool = False
    """Whether a change that ends a video puts its event into the event log, in one transaction."""
    orders: frozenset[VideoOrder] = frozenset({VideoOrder.NEWEST})
    """What a page can be sorted by."""

    @abstractmethod
    def create(self, video: Video, quota: Quota) -> None:
        """Add a record. Raises Conflict if the id exists, QuotaExceeded."""

    @abstractmethod
    def get(self, video_id: str) -> Video | None:
        """Return the record, as last written, or None."""

    @abstractmethod
    def update(self, video: Video) -> Video:
        """Replace the record of `video.revision`; return it with the next one.

        Raises Conflict if the record has another revision or is gone, or the slug is taken.
        """

    @abstractmethod
    def delete(self, video: Video) -> None:
        """Remove the record of `video.revision`. Raises Conflict as `update`, but not if it is gone."""

    @abstractmethod
    def page(self, wanted: VideoFilter) -> Page:
        """Return the next page of the videos that match, in one of `orders`."""

    @abstractmethod
    def by_slug(self, slug: str) -> Video | None:
        """Return the public video of this slug, or None; a private one is not found."""

    @abstractmethod
    def due(self, now: float) -> Iterator[Video]:
        """Yield the videos whose `due_at` is at `now` (Unix seconds) or before, page by page.

        The caller may change them meanwhile.
        """

    @abstractmethod
    def usage(self, owner: str | None = None) -> VideoUsage:
        """Return the sums of an owner's videos, or of all."""


@dataclass(frozen=True, slots=True)
class UploadWay:
    """How a client sends the bytes.

    `kind` is `tus` (to this program, at `url`) or `parts` (PUT each part of `part_size` bytes to a URL
    of its own, valid for `valid_s`).
    """

    kind: str
    url: str = ""
    part_size: int = 0
    parts: int = 0
    valid_s: float = 0.0


class ByteReceiver:
    """The open file of an upload while one client appends to it. Not thread-safe.

    Every method raises DiskFull, StorageError or Unavailable. Without `durable`, bytes may be lost if
    the machine crashes.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path, self._durable = path, durable
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with file_errors("written", path):
            self._file = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
            self.offset = self._file.seek(0, os.SEEK_END)

    def append(self, block: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end."""
        left = memoryview(block)
        with file_errors("written", self._path):
            while left:
                written = os.pwrite(self._file.fileno(), left, self.offset)
                self.offset += written
                left = left[written:]

    def sync(self) -> int:
        """Make the received bytes durable, and return their number."""
        if self._durable:
            with file_errors("written", self._path):
                os.fdatasync(self._file.fileno())
        return self.offset

    def cut(self, offset: int) -> None:
        """Drop everything from `offset` on."""
        with file_errors("written", self._path):
            self._file.truncate(offset)
        self.offset = offset

    def close(self) -> None:
        self._file.close()


class VideoFiles(ABC):
    """Keep uploaded files apart from the inbox, so that none is encoded before it was checked.

    - Only `complete` turns an upload into a source; it compares size and owner with the record.
    - No method changes a record.
    - Every method may raise StorageError or Unavailable.
    """

    receives: bool = False
    """Whether the bytes come through this program (`receive`)."""

    @abstractmethod
    def prepare(self, video: Video) -> str:
        """Prepare the storage of an upload; may be repeated. Return its `multipart_id`, or ""."""

    @abstractmethod
    def way(self, video: Video) -> UploadWay:
        """Return how the client sends the bytes, with newly signed URLs."""

    def part_url(self, video: Video, number: int) -> str:
        """Return the signed URL of one part (1 to 10,000). Raises BadUpload."""
        raise BadUpload("This upload is not sent in parts.")

    def received_parts(self, video: Video) -> Mapping[int, int]:
        """Return the sizes of the received parts, by number."""
        return {}

    def receive(self, video: Video) -> AbstractContextManager[ByteReceiver]:
        """Open the upload for appending, for one client at a time.

        Raises Conflict while another process has it open, and BadUpload if bytes go elsewhere.
        """
        raise BadUpload("The bytes of this upload go to the address it was given.")

    @abstractmethod
    def received_bytes(self, video: Video) -> int:
        """Return how many bytes of an unfinished upload were received, durable or not."""

    @abstractmethod
    def complete(self, video: Video) -> Source | int:
        """Check the upload and pin it as a source, without reading its bytes. May be repeated.

        Returns the number of received bytes while more may follow. Raises BadUpload if the upload is not
        the declared file and cannot become it.
        """

    @abstractmethod
    def discard(self, video: Video) -> None:
        """Remove the received bytes of an upload. Raises Conflict while a client is sending."""

    @abstractmethod
    def delete_raw(self, video: Video) -> None:
        """Delete the uploaded file of `video.source`; a missing file is fine.

        Raises SourceChanged, and deletes nothing, if other bytes are there.
        """

    @abstractmethod
    def raw(self, video: Video, *, name: str, media_type: str, attachment: bool) -> Path | str:
        """Return the place of the uploaded file of `video.source`, as `published` does.

        Raises SourceGone or SourceChanged if the backend can tell.
        """

    @abstractmethod
    def published(self, key: str, *, name: str, media_type: str, attachment: bool) -> Path | str:
        """Return the place of a published file: its path, or a signed address that serves it.

        An address serves it under `name` and as `media_type`, whatever the uploader claimed.
        """

    def origins(self) -> tuple[str, ...]:
        """Return other origins, such as `https://bucket.example`, that pages send to and play from."""
        return ()

    def refusals(self, origin: str) -> Iterator[str]:
        """Yield what those origins do not allow a page at `origin` to do, asking as a browser does."""
        yield from ()


class AccountKind(StrEnum):
    """The kind of a row: a user, a program's token, a signed-out session, or the sign-in token."""

    USER = "users"
    PROGRAM = "tokens"
    ENDED = "signed-out"
    SIGN_IN = "sign-in"


class Accounts(ABC):
    """Rows about who may use the page, by kind and key. tests/contracts checks this specification:

    - Every server sees a row that was put or removed when the call returns.
    - Rows put at the same time are all kept.
    - A row is JSON, and contains secrets that people type only as digests.
    - Every method may raise StorageError or Unavailable.
    """

    where: str = ""
    """The place of the rows, for messages."""

    @abstractmethod
    def all(self, kind: AccountKind) -> Mapping[str, Mapping[str, Any]]:
        """Return the rows of a kind by key. Another server may show a change a second later."""

    @abstractmethod
    def get(self, kind: AccountKind, key: str) -> Mapping[str, Any] | None:
        """Return a row, as last written, or None."""

    @abstractmethod
    def put(
        self,
        kind: AccountKind,
        key: str,
        row: Mapping[str, Any],
        *,
        expires_at: float | None = None,
    ) -> bool:
        """Add or replace a row, which may be removed after `expires_at`; return whether it is new."""

    @abstractmethod
    def remove(self, kind: AccountKind, key: str) -> bool:
        """Remove a row; return whether there was one."""

    def forget(self, kind: AccountKind, now: float) -> None:
        """Remove rows that expired before `now` (Unix seconds)."""
