"""Look after videos while nobody watches: end uploads, follow jobs, delete what may go."""

from __future__ import annotations

from hevcq.domain.videos.record import Video, VideoStatus
from hevcq.errors import Conflict, HevcqError
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.follow import refresh
from hevcq.usecases.videos.raw_files import delete_raw
from hevcq.usecases.videos.uploads import expire_upload
from hevcq.util.log import get_logger

EVERY_S = 5.0
"""Seconds between two looks in a data folder: each reads the jobs of the videos under way."""
EVERY_AWS_S = 60.0
"""The same on AWS, where a look costs a query, and a read for each job."""


def look_after(farm: VideoFarm) -> int:
    """Look once at every video that is due; return how many were.

    An error with one video is logged and keeps no other from its turn.
    """
    count = 0
    for video in farm.videos.due(farm.clock.now()):
        count += 1
        try:
            _look(farm, video)
        except Conflict:
            continue  # somebody else is at it
        except HevcqError as error:
            get_logger().warning("video_not_kept_up", video=video.video_id, reason=str(error))
    return count


def _look(farm: VideoFarm, video: Video) -> None:
    match video.status:
        case VideoStatus.UPLOADING:
            expire_upload(farm, video)
        case VideoStatus.PROCESSING:
            refresh(farm, video)
        case _:
            # What the record says may be old: a job of it may be queued again since.
            now = refresh(farm, video)
            if now.due_at is not None and now.due_at <= farm.clock.now():
                delete_raw(farm, now)
