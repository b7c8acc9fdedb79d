"""The operations on uploads, videos and formats."""

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
    out = models.VideoOut.model_validate(video)
    out.upload_expires_at = video.upload.expires_at if video.is_uploading else None
    out.formats = [_format_out(video, row) for row in found]
    return out


def _format_out(video: Video, row: ProfileRow) -> models.FormatOut:
    out = models.FormatOut.model_validate(row)
    if row.state is JobState.DONE and row.key:
        name = quote(row.key.rpartition("/")[2])
        out.url = f"/media/{video.video_id}/{row.profile}/{name}"
    return out


def _refreshed(call: Call, video: Video) -> models.VideoOut:
    video = refresh(call.farm, video)
    return video_out(video, live_rows(call.farm, video))


def _upload_out(call: Call, video: Video) -> models.UploadOut:
    files = call.farm.files
    received = files.received_bytes(video) if video.is_uploading else video.upload.size
    return models.UploadOut(video=video_out(video, []), way=files.way(video), came=received)


@router.post("/uploads", status_code=201)
def begin_upload(call: Uploads, body: models.UploadIn) -> models.UploadOut:
    """Begin an upload."""
    request = uploads.UploadRequest(owner=call.person.owner, **dict(body))
    return _upload_out(call, uploads.request_upload(call.farm, request))


@router.get("/uploads/{video_id}")
def show_upload(call: Uploads, video_id: str) -> models.UploadOut:
    """Show an unfinished upload: new signed addresses, and how many bytes arrived."""
    video = call.own_video(video_id)
    if not video.is_uploading:
        raise NoSuchVideo("No such unfinished upload.")
    return _upload_out(call, video)


@router.delete("/uploads/{video_id}", status_code=204)
def drop_upload(call: Uploads, video_id: str) -> None:
    """Drop an unfinished upload."""
    video = call.own_video(video_id)
    if video.source is not None:
        raise Conflict("The upload is complete.", remedy="Delete the video.")
    manage.delete(call.farm, video, call.person.owner)


@router.post("/uploads/{video_id}/parts")
def sign_parts(call: Uploads, video_id: str, body: models.PartsIn) -> models.PartsOut:
    """Sign addresses for parts (AWS)."""
    video = call.own_video(video_id)
    if not video.is_uploading:
        raise BadUpload("This upload has ended.")
    files = call.farm.files
    urls = {str(number): files.part_url(video, number) for number in body.numbers}
    received = {str(number): size for number, size in files.received_parts(video).items()}
    return models.PartsOut(urls=urls, came=received)


@router.post("/uploads/{video_id}/complete")
def complete_upload(call: Uploads, video_id: str) -> models.VideoOut:
    """Check an upload and queue it."""
    return _refreshed(call, uploads.complete_upload(call.farm, call.own_video(video_id)))


@router.get("/videos")
async def list_videos(
    call: Reads, query: Annotated[models.VideoQuery, Query()]
) -> models.VideoPage:
    """List videos, newest first."""
    everybody = query.all and call.person.is_operator
    video_filter = VideoFilter(
        owner=None if everybody else call.person.owner,
        statuses=frozenset([query.status] if query.status else []),
        text=query.text,
        before=query.cursor,
        limit=query.limit,
    )
    page = await run_sync(call.farm.videos.page, video_filter, limiter=call.searches)
    videos = [video_out(video, settled_rows(video)) for video in page.videos]
    return models.VideoPage(videos=videos, cursor=page.cursor)


@router.get("/videos/{video_id}")
def show_video(call: Reads, video_id: str) -> models.VideoOut:
    """Show a video with the current state of its formats."""
    return _refreshed(call, call.video(video_id))


@router.patch("/videos/{video_id}")
def change_video(call: Manages, video_id: str, body: models.VideoChange) -> models.VideoOut:
    """Change title, description, tags, or the terms of a public video."""
    video = call.video(video_id)
    if (terms := body.share) is not None:
        share = new_share(call.farm.clock.now(), **terms.model_dump())
        video = manage.set_terms(call.farm, video, share)
    facts = body.model_dump(include={"title", "description", "tags"})
    return _refreshed(call, manage.rename(call.farm, video, **facts))


@router.delete("/videos/{video_id}", status_code=204)
def delete_video(call: Manages, video_id: str) -> None:
    """Delete a video with all its files."""
    manage.delete(call.farm, call.video(video_id), call.person.owner)


@router.post("/videos/{video_id}/publish")
def publish_video(call: Manages, video_id: str, body: Shared) -> models.VideoOut:
    """Make a video public."""
    video = call.video(video_id)
    now, terms = call.farm.clock.now(), body.share
    share = new_share(now, **terms.model_dump()) if terms else None
    changed = manage.publish(call.farm, video, tags=body.tags, original=body.original, share=share)
    return _refreshed(call, changed)


@router.post("/videos/{video_id}/unpublish")
def unpublish_video(call: Manages, video_id: str) -> models.VideoOut:
    """Make a video private."""
    return _refreshed(call, manage.unpublish(call.farm, call.video(video_id)))


@router.post("/videos/{video_id}/retry")
def retry_video(call: Manages, video_id: str, body: Formats) -> models.VideoOut:
    """Queue failed formats again."""
    video = call.video(video_id)
    return _refreshed(call, manage.retry(call.farm, video, call.person.owner, body.profiles))


@router.post("/videos/{video_id}/cancel")
def cancel_video(call: Manages, video_id: str, body: Formats) -> models.VideoOut:
    """Cancel unfinished formats."""
    video = call.video(video_id)
    return _refreshed(call, manage.stop(call.farm, video, call.person.owner, body.profiles))


@router.get("/usage")
def show_usage(call: Reads) -> models.UsageOut:
    """Show what the caller's videos use, and the limits."""
    usage, quota = call.farm.videos.usage(call.person.owner), call.farm.quota
    return models.UsageOut(
        videos=usage.videos,
        open_uploads=usage.open_uploads,
        size=usage.size,
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
