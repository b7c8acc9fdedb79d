"""Serve renditions: by ranges from the data folder, or by a signed link to the bucket.

Names and types come from the record and from what hevcq itself made, never from what an uploader
claimed; a browser is told not to guess.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.videos.record import Video
from hevcq.domain.videos.rules import disposition
from hevcq.errors import HevcqError, NoSuchVideo
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.playback import PlayFile, play_file, require_shared
from hevcq.usecases.videos.texts import track
from hevcq.util.text import whole
from hevcq.web.identity.person import Scope, person_of
from hevcq.web.problems import of_error
from hevcq.web.services import find_video


def routes() -> list[BaseRoute]:
    """Return the routes of private and of public videos; a HEAD is answered like a GET."""
    places = ("/media/{video_id}", "/p/{slug}/media")
    texts = [Route(f"{place}/{{profile}}/texts/{{number}}.vtt", _text) for place in places]
    files = [Route(f"{place}/{{profile}}/{{name:path}}", _file) for place in places]
    return [*texts, *files]


def _find(request: Request) -> tuple[VideoFarm, Video]:
    """Return a video of which whoever asks may have this format."""
    farm, video = find_video(request)
    if "slug" in request.path_params:
        require_shared(farm, video, request.path_params["profile"])
    return farm, video


def _allow(request: Request) -> None:
    if "slug" not in request.path_params:
        person_of(request).require(Scope.READ)


async def _text(request: Request) -> Response:
    """Return subtitles of a rendition that is one file, which its page had read."""
    _allow(request)
    wanted = request.path_params

    def work() -> str:
        number = whole(wanted["number"])
        farm, video = _find(request)
        if number is None:
            raise NoSuchVideo("There are no such subtitles.")
        return track(farm, video, wanted["profile"], number)

    try:
        content = await run_in_threadpool(work)
    except HevcqError as error:
        return of_error(error)
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(content, headers=headers, media_type="text/vtt")


async def _file(request: Request) -> Response:
    """Return a file of a format, or the uploaded one."""
    _allow(request)
    wanted, attachment = request.path_params, request.query_params.get("download") == "1"

    def work() -> PlayFile:
        farm, video = _find(request)
        return play_file(farm, video, wanted["profile"], wanted["name"], attachment=attachment)

    try:
        found = await run_in_threadpool(work)
    except HevcqError as error:
        return of_error(error)
    tag = f'"{found.tag[:32]}"'
    headers = {
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(found.name, attachment=found.attachment),
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    known = request.headers.get("if-none-match", "").split(",")
    if isinstance(found.at, str):
        return RedirectResponse(found.at, 307, headers={"Cache-Control": "no-store"})
    if tag in {each.strip().removeprefix("W/") for each in known}:
        return Response(status_code=304, headers=headers)
    if isinstance(found.at, bytes):
        return Response(found.at, headers=headers, media_type=found.media_type)
    return FileResponse(found.at, headers=headers, media_type=found.media_type)
