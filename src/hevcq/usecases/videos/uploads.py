"""Begin, complete and drop uploads: nothing is queued before size and owner were checked."""

from collections.abc import Sequence
from dataclasses import dataclass

from hevcq.domain.videos.record import (
    MAX_DESCRIPTION,
    MAX_FILE_NAME,
    MAX_TITLE,
    Upload,
    Video,
    VideoStatus,
    make_video_id,
    may_own,
    one_line,
    paragraphs,
)
from hevcq.domain.videos.rules import claimed_type
from hevcq.errors import BadUpload, Conflict, DiskFull, HevcqError, QuotaExceeded, UnknownProfile
from hevcq.ports.videos import Complete, Incomplete, Wrong
from hevcq.usecases.operations.reprocess import cancel
from hevcq.usecases.videos.context import VideoFarm
from hevcq.util.log import get_logger
from hevcq.util.text import size

EXPIRE_S = 2 * 86_400.0
"""Seconds without progress until an upload is dropped."""
EXPIRED = "The upload was not finished in time."
AGAIN = "Upload the file again."


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What a client wants to upload; `size` is in bytes. No profiles: the subscribed ones."""

    owner: str
    name: str
    size: int
    title: str = ""
    description: str = ""
    profiles: tuple[str, ...] = ()
    media_type: str = ""


def request_upload(farm: VideoFarm, request: UploadRequest) -> Video:
    """Add the record of an upload that may begin, and make room for it.

    Raises BadUpload (no byte, no profile), UnknownProfile, QuotaExceeded (too large, or no room), DiskFull.
    """
    if not may_own(request.owner):
        raise BadUpload("This sign-in's name cannot own videos.", remedy="Tell an operator.")
    profiles = chosen(farm, request.profiles)
    _check_size(farm, request.size)
    video_id = make_video_id(farm.clock.now(), farm.chance(10))
    video = _record(farm, request, video_id, profiles)
    farm.videos.create(video, farm.quota)
    try:
        return _prepared(farm, video)
    except HevcqError:
        farm.videos.delete(video)
        raise


def chosen(farm: VideoFarm, names: Sequence[str]) -> tuple[str, ...]:
    """Return the profiles of an upload: the named ones, else the subscribed ones.

    Raises UnknownProfile, and BadUpload if none is left.
    """
    for name in names:
        if name not in farm.profiles:
            known = ", ".join(sorted(farm.profiles))
            raise UnknownProfile(
                f"No profile {one_line(name, 40)!r}.", remedy=f"Available: {known}."
            )
    found = tuple(dict.fromkeys(names)) or tuple(
        name for name, profile in farm.profiles.items() if profile.subscribe
    )
    if not found:
        raise BadUpload("No profile was chosen, and none is subscribed.", remedy="Choose a format.")
    return found


def _check_size(farm: VideoFarm, count: int) -> None:
    most = farm.limits.max_bytes
    if count < 1:
        raise BadUpload("An upload has at least 1 byte.")
    if count > most:
        raise QuotaExceeded(
            f"The video has {size(count)}; {size(most)} are allowed.",
            remedy="Upload a smaller file, or ask an operator to raise uploads.max_gib.",
        )
    free = farm.backend.store.free_bytes()
    if free is not None and free - count < farm.least_free:
        raise DiskFull("The server has too little free disk space for this video.")


def _record(
    farm: VideoFarm, request: UploadRequest, video_id: str, profiles: tuple[str, ...]
) -> Video:
    now = farm.clock.now()
    upload = Upload(
        name=one_line(request.name, MAX_FILE_NAME),
        size=request.size,
        media_type=claimed_type(request.media_type, request.name),
        expires_at=now + EXPIRE_S,
    )
    title = one_line(request.title, MAX_TITLE) or one_line(
        upload.name.rpartition(".")[0], MAX_TITLE
    )
    return Video(
        video_id=video_id,
        owner=request.owner,
        title=title or one_line(upload.name, MAX_TITLE),
        description=paragraphs(request.description, MAX_DESCRIPTION),
        created_at=now,
        updated_at=now,
        profiles=profiles,
        upload=upload,
    )


def _prepared(farm: VideoFarm, video: Video) -> Video:
    if not video.open:
        return video
    multipart_id = farm.files.prepare(video)
    if multipart_id == video.upload.multipart_id:
        return video
    upload = video.upload.model_copy(update={"multipart_id": multipart_id})
    return farm.change(video, upload=upload.model_dump())


def prolong(farm: VideoFarm, video: Video) -> Video:
    """Give an upload that makes progress its whole time again, once half of it is over."""
    now = farm.clock.now()
    if video.upload.expires_at - now > EXPIRE_S / 2:
        return video
    upload = video.upload.model_copy(update={"expires_at": now + EXPIRE_S})
    return farm.change(video, upload=upload.model_dump())


def complete_upload(farm: VideoFarm, video: Video) -> Video:
    """Check an upload and queue it for its profiles; do nothing if that was done before.

    No byte of the video is read, so it takes the same time for any size. The jobs are queued before
    the record says so: a kill between the two is mended by the next call. Raises BadUpload if bytes
    are missing (nothing changes) or it is not what was declared (the video failed, and is dropped).
    """
    if video.source is not None:
        return video
    if not video.open:
        raise BadUpload(video.reason or "This upload has ended.", remedy=video.remedy or AGAIN)
    found = farm.files.complete(video)
    if isinstance(found, Incomplete):
        raise BadUpload(
            f"{found.received:,} of {video.upload.size:,} bytes came.", remedy="Send the rest."
        )
    if isinstance(found, Wrong):
        fail_upload(farm, video, found.why)
        raise BadUpload(found.why, remedy=AGAIN)
    return _queued(farm, video, found)


def _queued(farm: VideoFarm, video: Video, found: Complete) -> Video:
    jobs = farm.backend.task_publisher.publish(found.source, video.profiles, announced=False)
    try:
        return farm.change(
            video, status=VideoStatus.PROCESSING, source=found.source, reason="", remedy=""
        )
    except Conflict:
        there = farm.videos.get(video.video_id)
        if there is None:  # deleted meanwhile
            for job in jobs:
                list(cancel(farm.backend, [job.job_id], video.owner))
            farm.files.discard(video)
            raise
        if there.source == found.source:
            return there
        return _queued(farm, there, found) if there.open else there


def fail_upload(farm: VideoFarm, video: Video, why: str) -> Video:
    """End an upload: drop its bytes, and keep the record with the reason."""
    farm.files.discard(video)
    return farm.change(video, status=VideoStatus.FAILED, reason=why, remedy=AGAIN)


def expire_upload(farm: VideoFarm, video: Video) -> Video:
    """End an upload whose time is over; one whose bytes all came is completed instead."""
    if video.upload.expires_at > farm.clock.now():
        return video
    found = farm.files.complete(video)
    if isinstance(found, Complete):
        return _queued(farm, video, found)
    get_logger().info("upload_expired", video=video.video_id)
    return fail_upload(farm, video, found.why if isinstance(found, Wrong) else EXPIRED)
