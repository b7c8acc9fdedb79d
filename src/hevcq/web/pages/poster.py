"""The picture of a video: of its HLS set, else a sign until there is one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.job import JobState
from hevcq.domain.videos.record import Video
from hevcq.errors import HevcqError
from hevcq.usecases.videos.context import VideoFarm
from hevcq.web.identity.person import person_of
from hevcq.web.pages.links import PLAYLIST
from hevcq.web.services import services_of
from hevcq.wiring.videos import video_farm

NAME = "poster.jpg"
MOST_BYTES = 4 << 20
KEEP = {"Cache-Control": "private, max-age=3600"}
SOON = {"Cache-Control": "private, max-age=30"}


def routes() -> Sequence[BaseRoute]:
    """Return the routes of pictures."""
    return (Route(f"/v/{{video_id}}/{NAME}", own), Route(f"/p/{{slug}}/{NAME}", public))


async def own(request: Request) -> Response:
    """Return the picture of one's own video."""
    person = person_of(request)
    farm = await run_in_threadpool(video_farm, services_of(request).app)
    owner = None if person.is_operator else person.owner
    video = await run_in_threadpool(farm.find, request.path_params["video_id"], owner)
    return await run_in_threadpool(_picture, farm, video)


async def public(request: Request) -> Response:
    """Return the picture of a public video."""
    farm = await run_in_threadpool(video_farm, services_of(request).app)
    video = await run_in_threadpool(farm.videos.by_slug, request.path_params["slug"])
    if video is None:
        raise HTTPException(404)
    return await run_in_threadpool(_picture, farm, video)


def _picture(farm: VideoFarm, video: Video) -> Response:
    for made in video.renditions:
        if made.state is JobState.DONE and made.key.endswith(PLAYLIST):
            found = _read(farm, f"{made.key.rpartition('/')[0]}/{NAME}")
            if found:
                return Response(found, media_type="image/jpeg", headers=KEEP)
    return Response(_placeholder(), media_type="image/svg+xml", headers=SOON)


@cache
def _placeholder() -> bytes:
    return files("hevcq.web").joinpath("static", "no-picture.svg").read_bytes()


def _read(farm: VideoFarm, key: str) -> bytes:
    """Return a small object, or nothing if there is none: a picture is no reason to fail."""
    try:
        with farm.backend.store.open(key) as stream:
            found = stream.read(MOST_BYTES + 1)
    except HevcqError:
        return b""
    return found if len(found) <= MOST_BYTES else b""
