"""The records of uploaded videos in memory."""

import threading
from collections.abc import Iterator

from hevcq.domain.videos.record import Video, Visibility
from hevcq.errors import Conflict, QuotaExceeded
from hevcq.ports.videos import (
    MAX_PAGE,
    QUOTA_REMEDY,
    Page,
    Quota,
    Reservation,
    VideoFilter,
    VideoRecords,
    VideoUsage,
    exceeded,
)
from hevcq.util.clock import Clock


class MemoryVideoRecords(VideoRecords):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._videos: dict[str, Video] = {}
        self._requests: dict[str, tuple[Reservation, float]] = {}

    def reserve(self, request: str, made: Reservation, *, expires_at: float) -> Reservation:
        with self._lock:
            found = self._requests.get(request)
            if found is None or found[1] < self._clock.now():
                self._requests[request] = (made, expires_at)
            return self._requests[request][0]

    def create(self, video: Video, quota: Quota) -> None:
        with self._lock:
            if video.video_id in self._videos:
                raise Conflict(f"There is a video {video.video_id} already.")
            owner, farm = self.usage(video.owner), self.usage()
            if said := exceeded(quota, owner, farm, video.charged_bytes):
                raise QuotaExceeded(said, remedy=QUOTA_REMEDY)
            self._videos[video.video_id] = video

    def get(self, video_id: str) -> Video | None:
        return self._videos.get(video_id)

    def update(self, video: Video) -> Video:
        with self._lock:
            there = self._videos.get(video.video_id)
            taken = any(
                v.slug == video.slug and v.video_id != video.video_id
                for v in self._videos.values()
                if video.slug is not None
            )
            if there is None or there.revision != video.revision or taken:
                raise Conflict(f"The video {video.video_id} was changed meanwhile.")
            new = video.model_copy(update={"revision": video.revision + 1})
            self._videos[video.video_id] = new
            return new

    def delete(self, video: Video) -> None:
        with self._lock:
            there = self._videos.get(video.video_id)
            if there is not None and there.revision != video.revision:
                raise Conflict(f"The video {video.video_id} was changed meanwhile.")
            self._videos.pop(video.video_id, None)

    def page(self, wanted: VideoFilter) -> Page:
        limit = max(1, min(wanted.limit, MAX_PAGE))
        found = [
            video
            for _, video in sorted(self._videos.items(), reverse=True)
            if wanted.owner in (None, video.owner)
            and video.status in wanted.in_order
            and (not wanted.before or video.video_id < wanted.before)
            and wanted.text.casefold() in video.search_text
        ]
        more = len(found) > limit
        return Page(tuple(found[:limit]), found[limit - 1].video_id if more else "")

    def by_slug(self, slug: str) -> Video | None:
        found = [v for v in self._videos.values() if v.slug == slug]
        public = [v for v in found if v.visibility is Visibility.PUBLIC]
        return public[0] if public else None

    def due(self, now: float) -> Iterator[Video]:
        found = [v for v in self._videos.values() if v.due_at is not None and v.due_at <= now]
        yield from sorted(found, key=lambda video: video.due_at or 0.0)

    def usage(self, owner: str | None = None) -> VideoUsage:
        mine = [v for v in self._videos.values() if owner in (None, v.owner)]
        opened = sum(video.open for video in mine)
        return VideoUsage(len(mine), opened, sum(video.charged_bytes for video in mine))
