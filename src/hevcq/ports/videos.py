"""The port of the records of uploaded videos."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from hevcq.domain.videos.record import Video, VideoStatus

MAX_PAGE = 200


@dataclass(frozen=True, slots=True)
class VideoFilter:
    """Select videos: of an owner (None: all), in some states (empty: all), that a text occurs in.

    `before` is the cursor: the id of the last video of the page before. `limit` is 1 to MAX_PAGE.
    """

    owner: str | None = None
    statuses: frozenset[VideoStatus] = frozenset()
    text: str = ""
    before: str = ""
    limit: int = 50

    @property
    def in_order(self) -> list[VideoStatus]:
        """The selected states."""
        return [state for state in VideoStatus if not self.statuses or state in self.statuses]


@dataclass(frozen=True, slots=True)
class Page:
    """Videos, newest first, and the cursor of the next page, "" at the end."""

    videos: tuple[Video, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What an owner's videos, or all, amount to; `size` is in bytes (`Video.charged_bytes`)."""

    videos: int = 0
    open_uploads: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that an owner and the farm may hold; None is no limit. Sizes are bytes."""

    owner_size: int | None = None
    owner_open: int | None = None
    farm_size: int | None = None
    farm_open: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The video that a request to create one was given, and the digest of that request."""

    video_id: str
    digest: str


class VideoRecords(ABC):
    """Store the records of videos. tests/contracts checks this specification for each backend:

    - A change holds only against the revision it was made from; the loser gets Conflict.
    - Quotas are checked in the transaction that creates the record, so that requests at the same
      time cannot exceed them together.
    - A page, a search by slug and a look for what is due cost the same whatever number of other
      videos there are: nothing scans.
    - Every method may raise StorageError or Unavailable.
    """

    @abstractmethod
    def reserve(self, request: str, made: Reservation, *, expires_at: float) -> Reservation:
        """Bind a request's idempotency key (with its owner) to a video id; the first one stays.

        Returns the binding there is, until `expires_at` (Unix seconds) at the earliest.
        """

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
        """Remove the record of `video.revision`. Raises Conflict as `update`; gone is no conflict."""

    @abstractmethod
    def page(self, wanted: VideoFilter) -> Page:
        """Return the next page of the videos that match, newest first."""

    @abstractmethod
    def by_slug(self, slug: str) -> Video | None:
        """Return the public video of this slug, or None; a private one is not found."""

    @abstractmethod
    def due(self, now: float) -> Iterator[Video]:
        """Yield the videos whose `due_at` is at `now` (Unix seconds) or before, page by page.

        They may be changed meanwhile.
        """

    @abstractmethod
    def usage(self, owner: str | None = None) -> Usage:
        """Return the sums of an owner's videos, or of all."""


def exceeded(quota: Quota, owner: Usage, farm: Usage, size: int) -> str:
    """Return which limit one more upload of `size` bytes would exceed, as a sentence, or ""."""
    if quota.owner_open is not None and owner.open_uploads >= quota.owner_open:
        return f"You have {owner.open_uploads} unfinished uploads; {quota.owner_open} are allowed."
    if quota.owner_size is not None and owner.size + size > quota.owner_size:
        left = max(0, quota.owner_size - owner.size)
        return f"Your videos may take {quota.owner_size:,} bytes; {left:,} are left."
    if quota.farm_open is not None and farm.open_uploads >= quota.farm_open:
        return "Too many uploads are under way on this server."
    if quota.farm_size is not None and farm.size + size > quota.farm_size:
        return "This server has no room for the video within its limit."
    return ""


QUOTA_REMEDY = "Delete videos you no longer need, or finish or cancel an upload."
