"""Serve renditions: by ranges from the data folder, or by a signed link to the bucket.

Names and types come from the record and from what hevcq itself made, never from what an uploader
claimed; a browser is told not to guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.videos.record import SLUG, Video
from hevcq.domain.videos.rules import disposition
from hevcq.errors import HevcqError, NoSuchVideo
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.playback import PlayFile, play_file, require_shared
from hevcq.usecases.videos.texts import track
from hevcq.util.text import whole
from hevcq.web.identity.person import Scope, person_of
from hevcq.web.problems import of_error
from hevcq.web.services import services_of
from hevcq.wiring.contexts import video_farm

Finder = Callable[[Request, VideoFarm], Video]


def routes() -> list[BaseRoute]:
    """Return the routes of private and of public videos; a HEAD is answered like a GET."""
    return [
        Route("/media/{video_id}/{profile}/texts/{number}.vtt", _private_text),
        Route("/p/{slug}/media/{profile}/texts/{number}.vtt", _public_text),
        Route("/media/{video_id}/{profile}/{name:path}", _private, methods=["GET"]),
        Route("/p/{slug}/media/{profile}/{name:path}", _public, methods=["GET"]),
    ]


async def _private(request: Request) -> Response:
    person_of(request).require(Scope.READ)
    return await _answer(request, _own)


async def _public(request: Request) -> Response:
    return await _answer(request, _shared)


async def _private_text(request: Request) -> Response:
    person_of(request).require(Scope.READ)
    return await _text(request, _own)


async def _public_text(request: Request) -> Response:
    return await _text(request, _shared)


def _own(request: Request, farm: VideoFarm) -> Video:
    person = person_of(request)
    owner = None if person.is_operator else person.owner
    return farm.find(request.path_params["video_id"], owner)


def _shared(request: Request, farm: VideoFarm) -> Video:
    slug = request.path_params["slug"]
    video = farm.videos.by_slug(slug) if re.fullmatch(SLUG, slug) else None
    if video is None:
        raise NoSuchVideo("There is no such video.")
    require_shared(farm, video, request.path_params["profile"])
    return video


async def _text(request: Request, find: Finder) -> Response:
    """Return subtitles of a rendition that is one file, which its page had read."""
    wanted = request.path_params

    def work() -> str:
        farm = video_farm(services_of(request).app)
        number = whole(wanted["number"])
        if number is None:
            raise NoSuchVideo("There are no such subtitles.")
        return track(farm, find(request, farm), wanted["profile"], number)

    try:
        content = await run_in_threadpool(work)
    except HevcqError as error:
        return of_error(error)
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(content, headers=headers, media_type="text/vtt")


async def _answer(request: Request, find: Finder) -> Response:
    wanted, attachment = request.path_params, request.query_params.get("download") == "1"

    def work() -> PlayFile:
        farm = video_farm(services_of(request).app)
        video = find(request, farm)
        name = wanted["name"]
        return play_file(farm, video, wanted["profile"], name, attachment=attachment)

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
