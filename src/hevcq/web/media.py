"""Serve renditions and pictures: by ranges from the data folder, or by a signed link to the bucket.

Names and types come from the record and from hevcq's own files, never from an uploader. Browsers are
told not to guess types.
"""

from functools import cache
from importlib.resources import files

from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.videos import Video, content_disposition
from hevcq.errors import NoSuchVideo
from hevcq.usecases.videos.manage import VideoFarm
from hevcq.usecases.videos.playback import play_file, require_shared, track
from hevcq.util.text import whole
from hevcq.web.identity.person import Scope, person_of
from hevcq.web.services import OperatorRoute, find_job, find_video, services_of

POSTER = "poster.jpg"
PRIVATE = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}


def routes() -> list[BaseRoute]:
    places = ("/media/{video_id}", "/p/{slug}/media")
    texts = [Route(f"{place}/{{profile}}/texts/{{number}}.vtt", _subtitles) for place in places]
    files = [Route(f"{place}/{{profile}}/{{name:path}}", _file) for place in places]
    pictures = [
        Route(f"/v/{{video_id}}/{POSTER}", video_poster),
        Route(f"/p/{{slug}}/{POSTER}", video_poster),
        OperatorRoute(f"/board/jobs/{{job_id}}/{POSTER}", job_poster),
    ]
    return [*texts, *files, *pictures]


def _find_permitted(request: Request) -> tuple[VideoFarm, Video]:
    """Return the video of the address, if the caller may have this format of it."""
    if "slug" not in request.path_params:
        person_of(request).require(Scope.READ)
    farm, video = find_video(request)
    if "slug" in request.path_params:
        require_shared(farm, video, request.path_params["profile"])
    return farm, video


def _subtitles(request: Request) -> Response:
    """Return subtitles of a single-file rendition, which its page has extracted."""
    address = request.path_params
    number = whole(address["number"])
    farm, video = _find_permitted(request)
    if number is None:
        raise NoSuchVideo("No such subtitles.")
    content = track(farm, video, address["profile"], number)
    return Response(content, headers=PRIVATE, media_type="text/vtt")


def _file(request: Request) -> Response:
    """Return a file of a format, or the uploaded file."""
    address, attachment = request.path_params, request.query_params.get("download") == "1"
    farm, video = _find_permitted(request)
    file = play_file(farm, video, address["profile"], address["name"], attachment=attachment)
    if file.attachment and "slug" in address and not video.share.download:
        raise NoSuchVideo("Downloads of this shared video are off.")
    tag = f'"{file.tag[:32]}"'
    header = content_disposition(file.name, attachment=file.attachment)
    headers = {**PRIVATE, "Content-Disposition": header, "ETag": tag}
    cached = request.headers.get("if-none-match", "").split(",")
    if isinstance(file.at, str):
        return RedirectResponse(file.at, 307, headers={"Cache-Control": "no-store"})
    if tag in {each.strip().removeprefix("W/") for each in cached}:
        return Response(status_code=304, headers=headers)
    if isinstance(file.at, bytes):
        return Response(file.at, headers=headers, media_type=file.media_type)
    return FileResponse(file.at, headers=headers, media_type=file.media_type)


CACHE_POSTER = {"Cache-Control": "private, max-age=3600"}
CACHE_PLACEHOLDER = {"Cache-Control": "private, max-age=30"}


async def video_poster(request: Request) -> Response:
    """Return the picture of the caller's own video, or of a public one."""
    farm, video = await run_in_threadpool(find_video, request)
    services = services_of(request)
    jpeg = await run_in_threadpool(services.pictures.find, farm, video)
    if not jpeg:
        jpeg = await run_sync(services.pictures.make, farm, video, limiter=services.one_picture)
    return _poster(jpeg)


async def job_poster(request: Request) -> Response:
    """Return a small picture of a job's source. Raises HTTPException 404."""
    services = services_of(request)
    job = await run_in_threadpool(find_job, request, request.path_params["job_id"])
    jpeg = await run_in_threadpool(services.pictures.find_of_source, job.source)
    if not jpeg:
        make, store = services.pictures.make_of_source, services.app.backend.store
        jpeg = await run_sync(make, store, job.source, limiter=services.one_source)
    return _poster(jpeg)


def _poster(jpeg: bytes) -> Response:
    if jpeg:
        return Response(jpeg, media_type="image/jpeg", headers=CACHE_POSTER)
    return Response(_placeholder(), media_type="image/svg+xml", headers=CACHE_PLACEHOLDER)


@cache
def _placeholder() -> bytes:
    return files("hevcq.web").joinpath("static", "no-picture.svg").read_bytes()
