"""Serve renditions: by ranges from the data folder, or by a signed link to the bucket.

Names and types come from the record and from what hevcq itself made, never from what an uploader
claimed; a browser is told not to guess.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from hevcq.domain.videos.record import SLUG, Video
from hevcq.domain.videos.rules import disposition
from hevcq.errors import HevcqError, NoSuchVideo
from hevcq.usecases.videos.context import VideoFarm
from hevcq.usecases.videos.playback import PlayFile, open_file, play_file, require_shared
from hevcq.usecases.videos.texts import track
from hevcq.util.text import whole
from hevcq.web.identity.person import Scope, person_of
from hevcq.web.problems import of_error, problem
from hevcq.web.services import services_of
from hevcq.wiring.videos import video_farm

BLOCK = 256 * 1024
Finder = Callable[[Request, VideoFarm], Video]
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


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

    def work() -> tuple[VideoFarm, Video, PlayFile]:
        farm = video_farm(services_of(request).app)
        video = find(request, farm)
        name = wanted["name"]
        return farm, video, play_file(farm, video, wanted["profile"], name, attachment=attachment)

    try:
        farm, video, found = await run_in_threadpool(work)
        if found.link is not None:
            return RedirectResponse(found.link, 307, headers={"Cache-Control": "no-store"})
        return await _serve(request, farm, video, found)
    except HevcqError as error:
        return of_error(error)


async def _serve(request: Request, farm: VideoFarm, video: Video, found: PlayFile) -> Response:
    tag = f'"{found.tag[:32]}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(found.name, attachment=found.attachment),
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    if tag in _tags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    start, end, status = 0, found.size, 200
    if request.headers.get("if-range", tag) == tag:
        given = span(request.headers.get("range", ""), found.size)
        if given == ():
            headers["Content-Range"] = f"bytes */{found.size}"
            return problem(416, "The file has no such range.", headers=headers)
        if given:
            start, end, status = given[0], given[1], 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=found.media_type)
    stream = await run_in_threadpool(open_file, farm, video, found, start=start, end=end)
    return StreamingResponse(
        _blocks(stream, end - start), status, headers, media_type=found.media_type
    )


def span(header: str, size: int) -> tuple[int, int] | tuple[()] | None:
    """Return the bytes that a Range header asks for, from start to end (exclusive).

    None stands for all of them: no range, several, or one that cannot be read (RFC 9110, 14.2).
    () stands for a range that the file does not have.
    """
    match = RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        last = int(match[2])
        return (max(0, size - last), size) if last and size else ()
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    return (start, end) if start < size else ()


def _tags(header: str) -> set[str]:
    return {each.strip().removeprefix("W/") for each in header.split(",")}


async def _blocks(stream: BinaryIO, count: int) -> AsyncIterator[bytes]:
    """Yield `count` bytes of a stream, then close it. A file that is shorter breaks the answer."""
    try:
        while count:
            block = await run_in_threadpool(stream.read, min(BLOCK, count))
            if not block:
                raise OSError("the file ended early")
            count -= len(block)
            yield block
    finally:
        await run_in_threadpool(stream.close)
