"""Look after videos while nobody watches: end uploads, follow jobs, report their ends, delete what may go."""

from __future__ import annotations

from collections.abc import Callable

from hevcq.domain.videos.record import Unsent, Video, VideoStatus
from hevcq.errors import Conflict, HevcqError
from hevcq.ports.event_log import RETRIES_S, Happened
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.follow import refresh
from hevcq.usecases.videos.raw_files import delete_raw
from hevcq.usecases.videos.uploads import expire_upload
from hevcq.util.log import get_logger

EVERY_S = 5.0
"""Seconds between two looks in a data folder: each reads the jobs of the videos under way."""
EVERY_AWS_S = 60.0
"""The same on AWS, where a look costs a query, and a read for each job."""
SENDING_S = 600.0
"""Seconds for which one server alone reports an end: if it dies, another one does it again."""
SendEvent = Callable[[Happened], bool]
"""Send an event to whoever wants it; return whether no receiver is left."""


def look_after(farm: VideoFarm, send: SendEvent | None = None) -> int:
    """Look once at every video that is due; return how many were. None to `tell`: nobody wants it.

    An error with one video is logged and keeps no other from its turn.
    """
    count = 0
    for video in farm.videos.due(farm.clock.now()):
        count += 1
        try:
            _look_after(farm, video, send)
        except Conflict:
            continue  # somebody else is at it
        except HevcqError as error:
            get_logger().warning("video_not_kept_up", video=video.video_id, reason=str(error))
    return count


def _look_after(farm: VideoFarm, video: Video, send: SendEvent | None) -> None:
    if video.unsent is not None and video.unsent.next_at <= farm.clock.now():
        video = _sent(farm, video, video.unsent, send)
        if video.due_at is None or video.due_at > farm.clock.now():
            return
    match video.status:
        case VideoStatus.UPLOADING:
            expire_upload(farm, video)
        case VideoStatus.PROCESSING:
            refresh(farm, video)
        case _:
            # What the record says may be old: a job of it may be queued again since.
            now = refresh(farm, video)
            if now.raw_look_at is not None and now.raw_look_at <= farm.clock.now():
                delete_raw(farm, now)


def _sent(farm: VideoFarm, video: Video, end: Unsent, send: SendEvent | None) -> Video:
    """Send the event of a video's end, at least once: of several servers, the one whose claim holds does.

    The record is the outbox, so that a server that dies loses nothing. Raises Conflict.
    """

    def noted(video: Video, unsent: Unsent | None) -> Video:
        return farm.videos.update(video.model_copy(update={"unsent": unsent}))

    if send is None:
        return noted(video, None)
    claim = end.model_copy(update={"next_at": farm.clock.now() + SENDING_S})
    video = noted(video, claim)
    if send(_happened(video, end)):
        return noted(video, None)
    if end.tries >= len(RETRIES_S):
        get_logger().error("message_given_up", video=video.video_id)
        return noted(video, None)
    later = farm.clock.now() + RETRIES_S[end.tries]
    return noted(video, Unsent(at=end.at, next_at=later, tries=end.tries + 1))


def _happened(video: Video, end: Unsent) -> Happened:
    """Return the event, as the trigger of a data folder writes it."""
    return Happened(
        "video.ready" if video.status is VideoStatus.DONE else "video.failed",
        end.at,
        source=video.title,
        reason=video.reason,
        failure_class=video.failure_class.value if video.failure_class else "",
        before=video.upload.size,
        video_id=video.video_id,
    )
