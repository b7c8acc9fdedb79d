"""The operations on uploads and videos."""

from __future__ import annotations

from urllib.parse import quote

from hevcq.domain.job import JobState
from hevcq.domain.videos.record import Video
from hevcq.errors import BadUpload, Conflict, NoSuchVideo
from hevcq.ports.videos import VideoFilter
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.follow import ProfileRow, refresh, rows, settled_rows
from hevcq.usecases.videos.uploads import UploadRequest, complete_upload, request_upload
from hevcq.web.api import models
from hevcq.web.api.operation import Call, Operation


def video_out(video: Video, found: list[ProfileRow]) -> models.VideoOut:
    """Return a video as programs get it."""
    return models.VideoOut(
        id=video.video_id,
        owner=video.owner,
        title=video.title,
        description=video.description,
        created_at=video.created_at,
        updated_at=video.updated_at,
        status=video.status,
        reason=video.reason,
        remedy=video.remedy,
        failure_class=video.failure_class,
        visibility=video.visibility,
        slug=video.slug,
        profiles=list(video.profiles),
        file_name=video.upload.name,
        size=video.upload.size,
        upload_expires_at=video.upload.expires_at if video.open else None,
        raw_deleted_at=video.raw_deleted_at,
        revision=video.revision,
        formats=[_format_out(video, each) for each in found],
    )


def _format_out(video: Video, row: ProfileRow) -> models.FormatOut:
    name = quote(row.key.rpartition("/")[2])
    played = row.state is JobState.DONE and row.key
    return models.FormatOut(
        profile=row.profile,
        state=row.state,
        phase=row.phase,
        percent=row.percent,
        eta_s=row.eta_s,
        size=row.size,
        saved=row.saved,
        reason=row.reason,
        failure_class=row.failure_class,
        remedy=row.remedy,
        notices=list(row.notices),
        url=f"/media/{video.video_id}/{row.profile}/{name}" if played else "",
    )


def _shown(call: Call, video: Video) -> models.VideoOut:
    video = refresh(call.farm, video)
    return video_out(video, rows(call.farm, video))


def _found(call: Call) -> Video:
    return call.farm.find(call.path["id"], call.owner)


def _own(call: Call) -> Video:
    """Return one's own upload: an operator sends no bytes into another's."""
    return call.farm.find(call.path["id"], call.person.owner)


def _upload_out(call: Call, video: Video) -> models.UploadOut:
    way = call.farm.files.way(video)
    came = call.farm.files.received_bytes(video) if video.open else video.upload.size
    return models.UploadOut(
        video=video_out(video, []),
        way=models.WayOut(
            kind=way.kind,
            url=way.url,
            fields=dict(way.fields),
            part_size=way.part_size,
            parts=way.parts,
            valid_s=way.valid_s,
        ),
        came=came,
    )


def begin_upload(call: Call) -> models.UploadOut:
    """Begin an upload."""
    wanted: models.UploadIn = call.body
    request = UploadRequest(
        owner=call.person.owner,
        name=wanted.name,
        size=wanted.size,
        title=wanted.title,
        description=wanted.description,
        profiles=tuple(wanted.profiles),
        media_type=wanted.media_type,
        request_key=call.request_key,
    )
    return _upload_out(call, request_upload(call.farm, request))


def show_upload(call: Call) -> models.UploadOut:
    """Show how an upload goes on: new signed addresses, and how many bytes came.

    Raises NoSuchVideo once it has ended.
    """
    video = _own(call)
    if not video.open:
        raise NoSuchVideo("There is no such unfinished upload.")
    return _upload_out(call, video)


def sign_parts(call: Call) -> models.PartsOut:
    """Sign the addresses of some parts. Raises BadUpload once the upload has ended."""
    video = _own(call)
    if not video.open:
        raise BadUpload("This upload has ended.")
    files = call.farm.files
    urls = {str(number): files.part_url(video, number) for number in call.body.numbers}
    came = {str(number): size for number, size in files.received_parts(video).items()}
    return models.PartsOut(urls=urls, came=came)


def complete(call: Call) -> models.VideoOut:
    """Check an upload and queue it."""
    return _shown(call, complete_upload(call.farm, _own(call)))


def drop_upload(call: Call) -> None:
    """Drop an unfinished upload. Raises Conflict if it is complete."""
    video = _own(call)
    if video.source is not None:
        raise Conflict("The upload is complete.", remedy="Delete the video.")
    manage.delete(call.farm, video, call.person.owner)


def list_videos(call: Call) -> models.VideoPage:
    """List videos."""
    query: models.VideoQuery = call.query
    everybody = query.all and call.person.is_operator
    page = call.farm.videos.page(
        VideoFilter(
            owner=None if everybody else call.person.owner,
            statuses=frozenset([query.status] if query.status else []),
            text=query.text,
            before=query.cursor,
            limit=query.limit,
        )
    )
    found = [video_out(video, settled_rows(video)) for video in page.videos]
    return models.VideoPage(videos=found, cursor=page.cursor)


def show_video(call: Call) -> models.VideoOut:
    """Show a video with the live state of its formats."""
    return _shown(call, _found(call))


def change_video(call: Call) -> models.VideoOut:
    """Change title or description. Raises Conflict if another request did meanwhile."""
    video, wanted = _found(call), call.body
    if call.expected not in (None, video.revision):
        raise Conflict("The video was changed meanwhile.", remedy="Read it again.")
    changed = manage.rename(call.farm, video, title=wanted.title, description=wanted.description)
    return _shown(call, changed)


def delete_video(call: Call) -> None:
    """Delete a video with all its files. Raises Conflict if it was changed meanwhile."""
    video = _found(call)
    if call.expected not in (None, video.revision):
        raise Conflict("The video was changed meanwhile.", remedy="Read it again.")
    manage.delete(call.farm, video, call.person.owner)


def publish(call: Call) -> models.VideoOut:
    """Make a video public."""
    return _shown(call, manage.publish(call.farm, _found(call)))


def unpublish(call: Call) -> models.VideoOut:
    """Make a video private."""
    return _shown(call, manage.unpublish(call.farm, _found(call)))


def retry(call: Call) -> models.VideoOut:
    """Queue failed formats again."""
    return _shown(
        call, manage.retry(call.farm, _found(call), call.person.owner, call.body.profiles)
    )


def cancel(call: Call) -> models.VideoOut:
    """Cancel formats that are not finished."""
    return _shown(call, manage.stop(call.farm, _found(call), call.person.owner, call.body.profiles))


def usage(call: Call) -> models.UsageOut:
    """Show what one's videos take."""
    found, quota = call.farm.videos.usage(call.person.owner), call.farm.quota
    return models.UsageOut(
        videos=found.videos,
        open_uploads=found.open_uploads,
        size=found.size,
        max_size=quota.owner_size,
        max_open_uploads=quota.owner_open,
        max_video_size=call.farm.limits.max_bytes,
    )


def profiles(call: Call) -> models.ProfilesOut:
    """List the formats."""
    found = [
        models.ProfileOut(name=name, description=each.description, subscribed=each.subscribe)
        for name, each in call.farm.profiles.items()
    ]
    return models.ProfilesOut(profiles=found)


UPLOAD, VIDEO = "/uploads/{id}", "/videos/{id}"
OPERATIONS = (
    Operation(
        "POST",
        "/uploads",
        "beginUpload",
        "Begin an upload",
        "upload",
        begin_upload,
        answer=models.UploadOut,
        body=models.UploadIn,
        status=201,
        creates=True,
        problems=(413, 507),
    ),
    Operation(
        "GET",
        UPLOAD,
        "showUpload",
        "How an upload goes on",
        "upload",
        show_upload,
        answer=models.UploadOut,
    ),
    Operation(
        "DELETE",
        UPLOAD,
        "dropUpload",
        "Drop an unfinished upload",
        "upload",
        drop_upload,
        status=204,
    ),
    Operation(
        "POST",
        UPLOAD + "/parts",
        "signParts",
        "Sign addresses of parts (aws)",
        "upload",
        sign_parts,
        answer=models.PartsOut,
        body=models.PartsIn,
    ),
    Operation(
        "POST",
        UPLOAD + "/complete",
        "completeUpload",
        "Check an upload and queue it",
        "upload",
        complete,
        answer=models.VideoOut,
    ),
    Operation(
        "GET",
        "/videos",
        "listVideos",
        "List videos, newest first",
        "read",
        list_videos,
        answer=models.VideoPage,
        query=models.VideoQuery,
    ),
    Operation(
        "GET",
        VIDEO,
        "showVideo",
        "A video and its formats",
        "read",
        show_video,
        answer=models.VideoOut,
    ),
    Operation(
        "PATCH",
        VIDEO,
        "changeVideo",
        "Change title or description",
        "manage",
        change_video,
        answer=models.VideoOut,
        body=models.VideoChange,
    ),
    Operation(
        "DELETE",
        VIDEO,
        "deleteVideo",
        "Delete a video with all its files",
        "manage",
        delete_video,
        status=204,
    ),
    Operation(
        "POST",
        VIDEO + "/publish",
        "publishVideo",
        "Make a video public",
        "manage",
        publish,
        answer=models.VideoOut,
    ),
    Operation(
        "POST",
        VIDEO + "/unpublish",
        "unpublishVideo",
        "Make a video private",
        "manage",
        unpublish,
        answer=models.VideoOut,
    ),
    Operation(
        "POST",
        VIDEO + "/retry",
        "retryVideo",
        "Queue failed formats again",
        "manage",
        retry,
        answer=models.VideoOut,
        body=models.FormatsIn,
        body_needed=False,
    ),
    Operation(
        "POST",
        VIDEO + "/cancel",
        "cancelVideo",
        "Cancel unfinished formats",
        "manage",
        cancel,
        answer=models.VideoOut,
        body=models.FormatsIn,
        body_needed=False,
    ),
    Operation(
        "GET",
        "/usage",
        "showUsage",
        "What one's videos take",
        "read",
        usage,
        answer=models.UsageOut,
    ),
    Operation(
        "GET",
        "/profiles",
        "listProfiles",
        "The formats",
        "read",
        profiles,
        answer=models.ProfilesOut,
    ),
)
