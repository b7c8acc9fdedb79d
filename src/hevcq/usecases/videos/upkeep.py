"""Look after videos while nobody watches: end uploads, follow jobs, report their ends, delete what may go.

An uploaded file goes only when every profile's rendition of it is published and was read back.
"""

from collections.abc import Callable

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobRecord, JobState, RenditionRef
from hevcq.domain.videos.record import Unsent, Video, VideoStatus
from hevcq.errors import Conflict, HevcqError, VerificationFailed
from hevcq.ports.event_log import RETRIES_S, Happened
from hevcq.settings.web import DAY_S
from hevcq.usecases.placement.lived_time import lived_s
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.follow import kept_name, refresh
from hevcq.usecases.videos.uploads import expire_upload
from hevcq.util.file_io import sha256_stream
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
    for key, size, sha256 in files:
        seen = store.stat(key)
        if seen is None:
            return f"{key} is not published"
        if seen.size != size:
            return f"{key} has another size than its certificate says"
        with store.open(key) as stream:
            if sha256_stream(stream, lambda: None) != (sha256, size):
                return f"{key} was read back with other bytes than its certificate says"
    return ""
