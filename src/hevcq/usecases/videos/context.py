"""What the use cases of uploaded videos share: the ports with their limits, and finding videos."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobRecord, job_id
from hevcq.domain.profile import Profile
from hevcq.domain.videos.record import Video, VideoStatus, is_video_id
from hevcq.errors import HevcqError, NoSuchVideo
from hevcq.ports.backend import Backend
from hevcq.ports.videos import MAX_PAGE, Quota, VideoFiles, VideoFilter, VideoRecords
from hevcq.settings.web import GIB, UploadSettings
from hevcq.sql.catalog import Catalog
from hevcq.util.clock import Clock

OWNER_OPEN, FARM_OPEN = 10, 200
"""Unfinished uploads that one person, and everybody together, may have."""


@dataclass(frozen=True)
class VideoFarm:
    """The ports of uploaded videos with their limits.

    `catalog` is of a machine whose clock alone is not believed (a data folder), else None. `chance`
    returns that many random bytes. `least_free` is in bytes.
    """

    videos: VideoRecords
    files: VideoFiles
    backend: Backend
    profiles: Mapping[str, Profile]
    limits: UploadSettings
    clock: Clock
    chance: Callable[[int], bytes]
    catalog: Catalog | None = None
    least_free: int = 0

    @property
    def quota(self) -> Quota:
        limits = self.limits
        return Quota(
            owner_size=int(limits.owner_gib * GIB) or None,
            owner_open=OWNER_OPEN,
            farm_size=int(limits.farm_gib * GIB) or None,
            farm_open=FARM_OPEN,
        )

    def find(self, video_id: str, owner: str | None) -> Video:
        """Return a video of `owner` (None: anybody's). Raises NoSuchVideo, also for another's."""
        video = self.videos.get(video_id) if is_video_id(video_id) else None
        if video is None or owner not in (None, video.owner):
            raise NoSuchVideo("There is no such video.")
        return video

    def jobs(self, video: Video) -> dict[str, JobRecord | None]:
        """Return the job of each profile of a video whose upload is complete, as the ledger has it."""
        assert video.source is not None
        ledger, source = self.backend.ledger, video.source
        return {name: ledger.get(job_id(source, name)) for name in video.profiles}

    def certificate(self, key: str) -> Certificate | None:
        """Return a certificate, or None if there is none that can be read."""
        try:
            with self.backend.store.open(key) as stream:
                return Certificate.read(stream)
        except HevcqError:
            return None

    def change(self, video: Video, **facts: object) -> Video:
        """Update some facts of the record; raises Conflict.

        A video that ends by it is an event to send, unless its records write it by themselves.
        """
        now, status = self.clock.now(), facts.get("status", video.status)
        if status is not video.status and not self.videos.sends_ends:
            ended = status in {VideoStatus.DONE, VideoStatus.FAILED}
            facts["unsent"] = {"at": now, "next_at": now} if ended else None
        checked = {**video.model_dump(), **facts, "updated_at": now}
        return self.videos.update(Video.model_validate(checked))


def every(
    farm: VideoFarm,
    *,
    owner: str | None = None,
    status: VideoStatus | None = None,
    text: str = "",
    limit: int | None = None,
) -> Iterator[Video]:
    """Yield the videos that match, newest first, at most `limit`."""
    left = limit
    wanted = VideoFilter(
        owner=owner, statuses=frozenset([status] if status else []), text=text, limit=MAX_PAGE
    )
    while left is None or left > 0:
        page = farm.videos.page(replace(wanted, limit=min(MAX_PAGE, left or MAX_PAGE)))
        yield from page.videos
        if not page.cursor:
            return
        left = None if left is None else left - len(page.videos)
        wanted = replace(wanted, before=page.cursor)
