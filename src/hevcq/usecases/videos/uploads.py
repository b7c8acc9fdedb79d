"""Begin, complete and drop uploads, and look after videos while nobody watches.

Nothing is queued before size and owner were checked. An uploaded file goes only when every profile's
rendition of it is published and was read back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobRecord, JobState, RenditionRef, Source
from hevcq.domain.videos import (
    MAX_DESCRIPTION,
    MAX_FILE_NAME,
    MAX_TITLE,
    Unsent,
    Upload,
    Video,
    VideoStatus,
    make_video_id,
    may_own,
    one_line,
    paragraphs,
    upload_media_type,
)
from hevcq.errors import (
    BadUpload,
    Conflict,
    DiskFull,
    HevcqError,
    QuotaExceeded,
    UnknownProfile,
    VerificationFailed,
)
from hevcq.ports.catalog import RETRIES_S, Happened
from hevcq.settings.web import DAY_S
from hevcq.usecases.operations.reprocess import cancel
from hevcq.usecases.placement.collect import lived_s
from hevcq.usecases.videos.manage import VideoFarm, kept_name, refresh
from hevcq.util.file_io import sha256_stream
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
    profiles: Sequence[str] = ()
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
        media_type=upload_media_type(request.media_type, request.name),
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
    try:
        found = farm.files.complete(video)
    except BadUpload as error:
        fail_upload(farm, video, error.message)
        raise BadUpload(error.message, remedy=AGAIN) from error
    if isinstance(found, int):
        raise BadUpload(f"{found:,} of {video.upload.size:,} bytes came.", remedy="Send the rest.")
    return _queued(farm, video, found)


def _queued(farm: VideoFarm, video: Video, source: Source) -> Video:
    jobs = farm.backend.task_publisher.publish(source, video.profiles, announced=False)
    try:
        return farm.change(
            video, status=VideoStatus.PROCESSING, source=source, reason="", remedy=""
        )
    except Conflict:
        there = farm.videos.get(video.video_id)
        if there is None:  # deleted meanwhile
            for job in jobs:
                list(cancel(farm.backend, [job.job_id], video.owner))
            farm.files.discard(video)
            raise
        if there.source == source:
            return there
        return _queued(farm, there, source) if there.open else there


def fail_upload(farm: VideoFarm, video: Video, why: str) -> Video:
    """End an upload: drop its bytes, and keep the record with the reason."""
    farm.files.discard(video)
    return farm.change(video, status=VideoStatus.FAILED, reason=why, remedy=AGAIN)


def expire_upload(farm: VideoFarm, video: Video) -> Video:
    """End an upload whose time is over; one whose bytes all came is completed instead."""
    if video.upload.expires_at > farm.clock.now():
        return video
    why, found = EXPIRED, None
    try:
        found = farm.files.complete(video)
    except BadUpload as error:
        why = error.message
    if isinstance(found, Source):
        return _queued(farm, video, found)
    get_logger().info("upload_expired", video=video.video_id)
    return fail_upload(farm, video, why)


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


LOOK_AGAIN_S = DAY_S
"""Seconds until a file that may not go is looked at again: a look reads every rendition."""


def delete_raw(farm: VideoFarm, video: Video) -> Video:
    """Delete the uploaded file if its time is over and nothing speaks against it.

    The record says that the file is leaving before it goes, so that nobody queues a job for it
    meanwhile; a kill in between repeats the checks. Returns the record as it is now.
    """
    if video.raw_deleted_at is not None or video.source is None:
        return video
    why = why_too_early(farm, video) or why_kept(farm, video)
    if not why and not video.raw_leaving:
        try:
            video = farm.change(video, raw_leaving=True)
        except Conflict:
            return farm.videos.get(video.video_id) or video
        why = why_not_settled(farm, video)  # a job was queued again while the renditions were read
    if why:
        get_logger().info("raw_file_kept", video=video.video_id, reason=why)
        later = max(video.raw_due_at or 0.0, farm.clock.now() + LOOK_AGAIN_S)
        return farm.change(video, raw_due_at=later, raw_leaving=False)
    farm.files.delete_raw(video)
    get_logger().info("raw_file_deleted", video=video.video_id)
    return farm.change(video, raw_deleted_at=farm.clock.now(), raw_leaving=False)


def why_too_early(farm: VideoFarm, video: Video) -> str:
    """Return why the retention has not ended, or "": by the setting of now and that of then.

    In a data folder the time counts that the machine lived through: a clock that was set forward
    deletes nothing.
    """
    now, kept_s = farm.clock.now(), farm.limits.raw_retention_s
    if video.done_at is None or video.raw_due_at is None:
        return "not every rendition is published"
    if now < video.raw_due_at or now < video.done_at + kept_s:
        return "its retention has not ended"
    if farm.catalog is None:
        return ""
    lived, since = lived_s(farm.catalog, farm.clock), farm.catalog.kept_since(kept_name(video))
    if since is None:
        farm.catalog.record_kept(kept_name(video), lived)
        return "since when it is kept is not known here" if kept_s else ""
    return "its retention has not ended" if lived - since < kept_s else ""


def why_kept(farm: VideoFarm, video: Video) -> str:
    """Return why the file is still needed, or "" if every rendition was found whole.

    Every byte of every rendition is read back and compared with its certificate.
    """
    if why := why_not_settled(farm, video):
        return why
    for record in farm.jobs(video).values():
        assert record is not None
        assert record.rendition is not None
        try:
            why = _why_unfit(farm, record, record.rendition)
        except HevcqError as error:
            why = error.message
        if why:
            return f"{record.profile}: {why}"
    return ""


def why_not_settled(farm: VideoFarm, video: Video) -> str:
    """Return which profile's job is not done, or "". Skipped is not done: it made nothing."""
    if video.status is not VideoStatus.DONE or video.source is None:
        return f"the video is {video.status.value}"
    for name, record in farm.jobs(video).items():
        if record is None:
            return f"the ledger does not know the job of {name}"
        if record.state is not JobState.DONE or record.rendition is None:
            return f"the job of {name} is {record.state.value}"
    return ""


def _why_unfit(farm: VideoFarm, record: JobRecord, made: RenditionRef) -> str:
    store = farm.backend.store
    with store.open(made.certificate_key) as stream:
        proof = Certificate.read(stream)
    if proof.digest != made.certificate_sha256:
        return "its certificate is not the one that its job recorded"
    if (proof.job_id, proof.source) != (record.job_id, record.source):
        raise VerificationFailed("its certificate is another job's")
    if (proof.rendition_key, proof.rendition_sha256) != (made.key, made.sha256):
        return "its certificate is another rendition's"
    folder = made.key.rpartition("/")[0]
    files = [(made.key, proof.rendition_size, made.sha256)]
    files += [(f"{folder}/{each.name}", each.size, each.sha256) for each in proof.files]
    for key, count, sha256 in files:
        seen = store.stat(key)
        if seen is None:
            return f"{key} is not published"
        if seen.size != count:
            return f"{key} has another size than its certificate says"
        with store.open(key) as stream:
            if sha256_stream(stream, lambda: None) != (sha256, count):
                return f"{key} was read back with other bytes than its certificate says"
    return ""
