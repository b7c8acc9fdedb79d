"""Begin, complete and drop uploads, and process due videos in the background.

Nothing is queued before size and owner were checked. An uploaded file is deleted only when every profile's
rendition is published and was read back.
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
from hevcq.ports.catalog import Happened
from hevcq.settings.web import DAY_S
from hevcq.usecases.event_dispatch import RETRY_DELAYS_S
from hevcq.usecases.operations.reprocess import cancel
from hevcq.usecases.placement.collect import lived_s
from hevcq.usecases.videos.manage import VideoFarm, kept_name, refresh
from hevcq.util.file_io import sha256_stream
from hevcq.util.log import get_logger
from hevcq.util.text import size

ABANDONED_AFTER_S = 2 * 86_400.0
"""Seconds without progress until an upload is dropped."""
EXPIRED = "The upload was not finished in time."
AGAIN = "Upload the file again."


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """A client's upload; `size` is in bytes. Empty `profiles` means the subscribed ones."""

    owner: str
    name: str
    size: int
    title: str = ""
    description: str = ""
    profiles: Sequence[str] = ()
    media_type: str = ""


def request_upload(farm: VideoFarm, request: UploadRequest) -> Video:
    """Check a request, add the record of the upload, and prepare its file.

    Raises BadUpload (no byte, no profile), UnknownProfile, QuotaExceeded (too large, or quota used), DiskFull.
    """
    if not may_own(request.owner):
        raise BadUpload("This sign-in's name cannot own videos.", remedy="Tell an operator.")
    profiles = chosen_profiles(farm, request.profiles)
    _check_size(farm, request.size)
    video_id = make_video_id(farm.clock.now(), farm.chance(10))
    video = _record(farm, request, video_id, profiles)
    farm.videos.create(video, farm.quota)
    try:
        return _prepare(farm, video)
    except HevcqError:
        farm.videos.delete(video)
        raise


def chosen_profiles(farm: VideoFarm, names: Sequence[str]) -> tuple[str, ...]:
    """Return the profiles of an upload: the named ones, else the subscribed ones.

    Raises UnknownProfile, and BadUpload if there is no profile.
    """
    for name in names:
        if name not in farm.profiles:
            known = ", ".join(sorted(farm.profiles))
            raise UnknownProfile(
                f"No profile {one_line(name, 40)!r}.", remedy=f"Available: {known}."
            )
    profiles = tuple(dict.fromkeys(names)) or tuple(
        name for name, profile in farm.profiles.items() if profile.subscribe
    )
    if not profiles:
        raise BadUpload("No profile was chosen, and none is subscribed.", remedy="Choose a format.")
    return profiles


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
        expires_at=now + ABANDONED_AFTER_S,
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


def _prepare(farm: VideoFarm, video: Video) -> Video:
    if not video.is_uploading:
        return video
    multipart_id = farm.files.prepare(video)
    if multipart_id == video.upload.multipart_id:
        return video
    upload = video.upload.model_copy(update={"multipart_id": multipart_id})
    return farm.change(video, upload=upload.model_dump())


def prolong(farm: VideoFarm, video: Video) -> Video:
    """Restart the expiry time of an upload that makes progress, once half of it has passed."""
    now = farm.clock.now()
    if video.upload.expires_at - now > ABANDONED_AFTER_S / 2:
        return video
    upload = video.upload.model_copy(update={"expires_at": now + ABANDONED_AFTER_S})
    return farm.change(video, upload=upload.model_dump())


def complete_upload(farm: VideoFarm, video: Video) -> Video:
    """Check an upload and queue it for its profiles, unless that was done before.

    No byte of the video is read, so it takes the same time for any size. The jobs are queued before the
    record is updated; after a kill between the two, the next call repeats both. Raises BadUpload if bytes
    are missing (nothing changes) or differ from the declaration (the upload fails and is dropped).
    """
    if video.source is not None:
        return video
    if not video.is_uploading:
        raise BadUpload(video.reason or "This upload has ended.", remedy=video.remedy or AGAIN)
    try:
        source = farm.files.complete(video)
    except BadUpload as error:
        fail_upload(farm, video, error.message)
        raise BadUpload(error.message, remedy=AGAIN) from error
    if isinstance(source, int):
        raise BadUpload(f"{source:,} of {video.upload.size:,} bytes came.", remedy="Send the rest.")
    return _queue(farm, video, source)


def _queue(farm: VideoFarm, video: Video, source: Source) -> Video:
    jobs = farm.backend.task_publisher.publish(source, video.profiles, announced=False)
    try:
        return farm.change(
            video, status=VideoStatus.PROCESSING, source=source, reason="", remedy=""
        )
    except Conflict:
        current = farm.videos.get(video.video_id)
        if current is None:  # deleted meanwhile
            for job in jobs:
                list(cancel(farm.backend, [job.job_id], video.owner))
            farm.files.discard(video)
            raise
        if current.source == source:
            return current
        return _queue(farm, current, source) if current.is_uploading else current


def fail_upload(farm: VideoFarm, video: Video, why: str) -> Video:
    """Mark an upload as failed: delete its bytes, and keep the record with the reason."""
    farm.files.discard(video)
    return farm.change(video, status=VideoStatus.FAILED, reason=why, remedy=AGAIN)


def expire_upload(farm: VideoFarm, video: Video) -> Video:
    """Fail an upload whose time is over, or complete it if all its bytes arrived."""
    if video.upload.expires_at > farm.clock.now():
        return video
    why, source = EXPIRED, None
    try:
        source = farm.files.complete(video)
    except BadUpload as error:
        why = error.message
    if isinstance(source, Source):
        return _queue(farm, video, source)
    get_logger().info("upload_expired", video=video.video_id)
    return fail_upload(farm, video, why)


EVERY_S = 5.0
"""Seconds between two polls in a data folder; each reads the jobs of the open videos."""
EVERY_AWS_S = 60.0
"""The same on AWS, where a poll costs a query, and a read for each job."""
SENDING_S = 600.0
"""Seconds for which one server alone may send an event; if it dies, another server sends it again."""
SendEvent = Callable[[Happened], bool]
"""Send an event to its receivers; return whether all of them accepted it."""


def process_due(farm: VideoFarm, send: SendEvent | None = None) -> int:
    """Process every video that is due once; return how many there were. Without `send` nobody is notified.

    An error with one video is logged and does not stop the others.
    """
    count = 0
    for video in farm.videos.due(farm.clock.now()):
        count += 1
        try:
            _process(farm, video, send)
        except Conflict:
            continue  # another process changed it
        except HevcqError as error:
            get_logger().warning("video_not_kept_up", video=video.video_id, reason=str(error))
    return count


def _process(farm: VideoFarm, video: Video, send: SendEvent | None) -> None:
    if video.unsent is not None and video.unsent.next_at <= farm.clock.now():
        video = _send_end(farm, video, video.unsent, send)
        if video.due_at is None or video.due_at > farm.clock.now():
            return
    match video.status:
        case VideoStatus.UPLOADING:
            expire_upload(farm, video)
        case VideoStatus.PROCESSING:
            refresh(farm, video)
        case _:
            # The record may be old: one of its jobs may have been queued again.
            now = refresh(farm, video)
            if now.raw_look_at is not None and now.raw_look_at <= farm.clock.now():
                delete_raw(farm, now)


def _send_end(farm: VideoFarm, video: Video, end: Unsent, send: SendEvent | None) -> Video:
    """Send the event of a video's end at least once; among several servers, the one that claims it sends it.

    The record is the outbox, so that a dying server loses no event. Raises Conflict.
    """

    def record(video: Video, unsent: Unsent | None) -> Video:
        return farm.videos.update(video.model_copy(update={"unsent": unsent}))

    if send is None:
        return record(video, None)
    claim = end.model_copy(update={"next_at": farm.clock.now() + SENDING_S})
    video = record(video, claim)
    if send(_happened(video, end)):
        return record(video, None)
    if end.tries >= len(RETRY_DELAYS_S):
        get_logger().error("message_given_up", video=video.video_id)
        return record(video, None)
    later = farm.clock.now() + RETRY_DELAYS_S[end.tries]
    return record(video, Unsent(at=end.at, next_at=later, tries=end.tries + 1))


def _happened(video: Video, end: Unsent) -> Happened:
    """Return the same event as the database trigger of a data folder writes."""
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
"""Seconds until a file that had to be kept is checked again; a check reads every rendition."""


def delete_raw(farm: VideoFarm, video: Video) -> Video:
    """Delete the uploaded file if its retention has ended and all renditions are sound; return the record.

    The record is marked with `raw_leaving` before the deletion, so that nobody queues a job for the file
    meanwhile; after a kill in between, the checks are repeated.
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
    """Return why the retention has not ended, or ""; the longer of the former and present setting counts.

    In a data folder, only time that the machine lived through counts, so that a clock that was set
    forward deletes nothing.
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
    """Return why the uploaded file is still needed, or "" if every rendition is sound.

    Every byte of every rendition is read back and compared with its certificate.
    """
    if why := why_not_settled(farm, video):
        return why
    for record in farm.jobs(video).values():
        assert record is not None
        assert record.rendition is not None
        try:
            why = _why_unsound(farm, record, record.rendition)
        except HevcqError as error:
            why = error.message
        if why:
            return f"{record.profile}: {why}"
    return ""


def why_not_settled(farm: VideoFarm, video: Video) -> str:
    """Return which profile's job is not done, or ""; a skipped job is not done, since it has no rendition."""
    if video.status is not VideoStatus.DONE or video.source is None:
        return f"the video is {video.status.value}"
    for name, record in farm.jobs(video).items():
        if record is None:
            return f"the ledger does not know the job of {name}"
        if record.state is not JobState.DONE or record.rendition is None:
            return f"the job of {name} is {record.state.value}"
    return ""


def _why_unsound(farm: VideoFarm, record: JobRecord, ref: RenditionRef) -> str:
    store = farm.backend.store
    with store.open(ref.certificate_key) as stream:
        proof = Certificate.read(stream)
    if proof.digest != ref.certificate_sha256:
        return "its certificate is not the one that its job recorded"
    if (proof.job_id, proof.source) != (record.job_id, record.source):
        raise VerificationFailed("its certificate is another job's")
    if (proof.rendition_key, proof.rendition_sha256) != (ref.key, ref.sha256):
        return "its certificate is another rendition's"
    folder = ref.key.rpartition("/")[0]
    files = [(ref.key, proof.rendition_size, ref.sha256)]
    files += [(f"{folder}/{each.name}", each.size, each.sha256) for each in proof.files]
    for key, count, sha256 in files:
        stored = store.stat(key)
        if stored is None:
            return f"{key} is not published"
        if stored.size != count:
            return f"{key} has another size than its certificate says"
        with store.open(key) as stream:
            if sha256_stream(stream, lambda: None) != (sha256, count):
                return f"{key} was read back with other bytes than its certificate says"
    return ""
