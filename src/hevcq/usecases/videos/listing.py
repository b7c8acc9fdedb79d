"""List videos page by page, and render them in the documented JSON form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hevcq.domain.videos.record import Video, VideoStatus
from hevcq.ports.videos import MAX_PAGE, VideoFilter
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.follow import ProfileRow


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


def video_json(video: Video, rows: list[ProfileRow]) -> dict[str, object]:
    """Return the documented JSON form of a video."""
    return {
        "type": "video",
        "id": video.video_id,
        "owner": video.owner,
        "title": video.title,
        "description": video.description,
        "created_at": video.created_at,
        "status": video.status.value,
        "reason": video.reason,
        "remedy": video.remedy,
        "failure_class": video.failure_class,
        "visibility": video.visibility.value,
        "slug": video.slug,
        "profiles": list(video.profiles),
        "file_name": video.upload.name,
        "size": video.upload.size,
        "source_key": video.source.key if video.source else None,
        "raw_deleted_at": video.raw_deleted_at,
        "formats": [row.to_dict() for row in rows],
    }
