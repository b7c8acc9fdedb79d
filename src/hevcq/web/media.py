"""Serve renditions and pictures: by ranges from the data folder, or by a signed link to the bucket.

Names and types come from the record and from what hevcq itself made, never from what an uploader
claimed; a browser is told not to guess.
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

NAME = "poster.jpg"
PRIVATE = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}


def routes() -> list[BaseRoute]:
    places = ("/media/{video_id}", "/p/{slug}/media")
    texts = [Route(f"{place}/{{profile}}/texts/{{number}}.vtt", _text) for place in places]
    files = [Route(f"{place}/{{profile}}/{{name:path}}", _file) for place in places]
    pictures = [
        Route(f"/v/{{video_id}}/{NAME}", of_video),
        Route(f"/p/{{slug}}/{NAME}", of_video),
        OperatorRoute(f"/board/jobs/{{job_id}}/{NAME}", of_job),
    ]
    return [*texts, *files, *pictures]


def _find(request: Request) -> tuple[VideoFarm, Video]:
    """Return a video of which whoever asks may have this format."""
    if "slug" not in request.path_params:
        person_of(request).require(Scope.READ)
    farm, video = find_video(request)
    if "slug" in request.path_params:
        require_shared(farm, video, request.path_params["profile"])
    return farm, video


def _text(request: Request) -> Response:
    """Return subtitles of a rendition that is one file, which its page had read."""
    wanted = request.path_params
    number = whole(wanted["number"])
    farm, video = _find(request)
    if number is None:
        raise NoSuchVideo("There are no such subtitles.")
    content = track(farm, video, wanted["profile"], number)
    return Response(content, headers=PRIVATE, media_type="text/vtt")


def _file(request: Request) -> Response:
    """Return a file of a format, or the uploaded one."""
    wanted, attachment = request.path_params, request.query_params.get("download") == "1"
    farm, video = _find(request)
    found = play_file(farm, video, wanted["profile"], wanted["name"], attachment=attachment)
    if found.attachment and "slug" in wanted and not video.share.download:
        raise NoSuchVideo("This video is shared without download.")
    tag = f'"{found.tag[:32]}"'
    disposed = content_disposition(found.name, attachment=found.attachment)
    headers = {**PRIVATE, "Content-Disposition": disposed, "ETag": tag}
    known = request.headers.get("if-none-match", "").split(",")
    if isinstance(found.at, str):
        return RedirectResponse(found.at, 307, headers={"Cache-Control": "no-store"})
    if tag in {each.strip().removeprefix("W/") for each in known}:
        return Response(status_code=304, headers=headers)
    if isinstance(found.at, bytes):
        return Response(found.at, headers=headers, media_type=found.media_type)
    return FileResponse(found.at, headers=headers, media_type=found.media_type)


KEEP = {"Cache-Control": "private, max-age=3600"}
SOON = {"Cache-Control": "private, max-age=30"}


async def of_video(request: Request) -> Response:
    """Return the picture of one's own video, or of a public one."""
    farm, video = await run_in_threadpool(find_video, request)
    services = services_of(request)
    found = await run_in_threadpool(services.pictures.find, farm, video)
    if not found:
        found = await run_sync(services.pictures.make, farm, video, limiter=services.one_picture)
    return _answer(found)


async def of_job(request: Request) -> Response:
    """Return a small picture of a job's source. Raises HTTPException 404."""
    services = services_of(request)
    job = await run_in_threadpool(find_job, request, request.path_params["job_id"])
    found = await run_in_threadpool(services.pictures.find_of_source, job.source)
    if not found:
        make, store = services.pictures.make_of_source, services.app.backend.store
        found = await run_sync(make, store, job.source, limiter=services.one_source)
    return _answer(found)


def _answer(found: bytes) -> Response:
    if found:
        return Response(found, media_type="image/jpeg", headers=KEEP)
    return Response(_placeholder(), media_type="image/svg+xml", headers=SOON)


@cache
def _placeholder() -> bytes:
    return files("hevcq.web").joinpath("static", "no-picture.svg").read_bytes()
