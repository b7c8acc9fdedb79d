"""The operations on uploads and videos."""

from typing import Annotated
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import Body, Query

from hevcq.domain.job import JobState
from hevcq.domain.videos import Video
from hevcq.errors import BadUpload, Conflict, NoSuchVideo
from hevcq.ports.videos import VideoFilter
from hevcq.usecases.videos import manage, uploads
from hevcq.usecases.videos.manage import ProfileRow, live_rows, refresh, settled_rows
from hevcq.web.api import models
from hevcq.web.api.call import Call, Manages, Reads, Uploads, new_router
from hevcq.web.identity.accounts import new_share

router = new_router()
Shared = Annotated[models.PublishIn, Body(default_factory=models.PublishIn)]
Formats = Annotated[models.FormatsIn, Body(default_factory=models.FormatsIn)]


def video_out(video: Video, found: list[ProfileRow]) -> models.VideoOut:
    """Return a video as programs get it."""
    made = models.VideoOut.model_validate(video)
    made.upload_expires_at = video.upload.expires_at if video.is_uploading else None
    made.formats = [_format_out(video, each) for each in found]
    return made


def _format_out(video: Video, row: ProfileRow) -> models.FormatOut:
    made = models.FormatOut.model_validate(row)
    if row.state is JobState.DONE and row.key:
        name = quote(row.key.rpartition("/")[2])
        made.url = f"/media/{video.video_id}/{row.profile}/{name}"
    return made


def _shown(call: Call, video: Video) -> models.VideoOut:
    video = refresh(call.farm, video)
    return video_out(video, live_rows(call.farm, video))


def _upload_out(call: Call, video: Video) -> models.UploadOut:
    files = call.farm.files
    came = files.received_bytes(video) if video.is_uploading else video.upload.size
    return models.UploadOut(video=video_out(video, []), way=files.way(video), came=came)


@router.post("/uploads", status_code=201)
def begin_upload(call: Uploads, wanted: models.UploadIn) -> models.UploadOut:
    """Begin an upload."""
    request = uploads.UploadRequest(owner=call.person.owner, **dict(wanted))
    return _upload_out(call, uploads.request_upload(call.farm, request))


@router.get("/uploads/{video_id}")
def show_upload(call: Uploads, video_id: str) -> models.UploadOut:
    """Show an unfinished upload: new signed addresses, and how many bytes came."""
    video = call.own_video(video_id)
    if not video.is_uploading:
        raise NoSuchVideo("There is no such unfinished upload.")
    return _upload_out(call, video)


@router.delete("/uploads/{video_id}", status_code=204)
def drop_upload(call: Uploads, video_id: str) -> None:
    """Drop an unfinished upload."""
    video = call.own_video(video_id)
    if video.source is not None:
        raise Conflict("The upload is complete.", remedy="Delete the video.")
    manage.delete(call.farm, video, call.person.owner)


@router.post("/uploads/{video_id}/parts")
def sign_parts(call: Uploads, video_id: str, wanted: models.PartsIn) -> models.PartsOut:
    """Sign addresses of parts (AWS)."""
    video = call.own_video(video_id)
    if not video.is_uploading:
        raise BadUpload("This upload has ended.")
    files = call.farm.files
    urls = {str(number): files.part_url(video, number) for number in wanted.numbers}
    came = {str(number): size for number, size in files.received_parts(video).items()}
    return models.PartsOut(urls=urls, came=came)


@router.post("/uploads/{video_id}/complete")
def complete_upload(call: Uploads, video_id: str) -> models.VideoOut:
    """Check an upload and queue it."""
    return _shown(call, uploads.complete_upload(call.farm, call.own_video(video_id)))


@router.get("/videos")
async def list_videos(
    call: Reads, query: Annotated[models.VideoQuery, Query()]
) -> models.VideoPage:
    """List videos, newest first."""
    everybody = query.all and call.person.is_operator
    wanted = VideoFilter(
        owner=None if everybody else call.person.owner,
        statuses=frozenset([query.status] if query.status else []),
        text=query.text,
        before=query.cursor,
        limit=query.limit,
    )
    page = await run_sync(call.farm.videos.page, wanted, limiter=call.searches)
    found = [video_out(video, settled_rows(video)) for video in page.videos]
    return models.VideoPage(videos=found, cursor=page.cursor)


@router.get("/videos/{video_id}")
def show_video(call: Reads, video_id: str) -> models.VideoOut:
    """Show a video with the live state of its formats."""
    return _shown(call, call.video(video_id))


@router.patch("/videos/{video_id}")
def change_video(call: Manages, video_id: str, wanted: models.VideoChange) -> models.VideoOut:
    """Change title, description, tags, or the terms of a public video."""
    video = call.video(video_id)
    if (terms := wanted.share) is not None:
        share = new_share(call.farm.clock.now(), **terms.model_dump())
        video = manage.set_terms(call.farm, video, share)
    facts = wanted.model_dump(include={"title", "description", "tags"})
    return _shown(call, manage.rename(call.farm, video, **facts))


@router.delete("/videos/{video_id}", status_code=204)
def delete_video(call: Manages, video_id: str) -> None:
    """Delete a video with all its files."""
    manage.delete(call.farm, call.video(video_id), call.person.owner)


@router.post("/videos/{video_id}/publish")
def publish_video(call: Manages, video_id: str, wanted: Shared) -> models.VideoOut:
    """Make a video public."""
    video = call.video(video_id)
    now, terms = call.farm.clock.now(), wanted.share
    share = new_share(now, **terms.model_dump()) if terms else None
    changed = manage.publish(
        call.farm, video, tags=wanted.tags, original=wanted.original, share=share
    )
    return _shown(call, changed)


@router.post("/videos/{video_id}/unpublish")
def unpublish_video(call: Manages, video_id: str) -> models.VideoOut:
    """Make a video private."""
    return _shown(call, manage.unpublish(call.farm, call.video(video_id)))


@router.post("/videos/{video_id}/retry")
def retry_video(call: Manages, video_id: str, wanted: Formats) -> models.VideoOut:
    """Queue failed formats again."""
    video = call.video(video_id)
    return _shown(call, manage.retry(call.farm, video, call.person.owner, wanted.profiles))


@router.post("/videos/{video_id}/cancel")
def cancel_video(call: Manages, video_id: str, wanted: Formats) -> models.VideoOut:
    """Cancel formats that are not finished."""
    video = call.video(video_id)
    return _shown(call, manage.stop(call.farm, video, call.person.owner, wanted.profiles))


@router.get("/usage")
def show_usage(call: Reads) -> models.UsageOut:
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


@router.get("/profiles")
def list_profiles(call: Reads) -> list[models.ProfileOut]:
    """List the formats."""
    return [
        models.ProfileOut(name=name, description=each.description, subscribed=each.subscribe)
        for name, each in call.farm.profiles.items()
    ]
