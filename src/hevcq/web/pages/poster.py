"""The picture of a video, or of a job's source; a sign until there is one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.job import JobRecord
from hevcq.domain.videos.record import Video
from hevcq.usecases.operations.reprocess import JOB_ID
from hevcq.usecases.videos.context import VideoFarm
from hevcq.web.identity.person import operator_of, person_of
from hevcq.web.services import Services, services_of
from hevcq.wiring.contexts import video_farm

NAME = "poster.jpg"
KEEP = {"Cache-Control": "private, max-age=3600"}
SOON = {"Cache-Control": "private, max-age=30"}


def routes() -> Sequence[BaseRoute]:
    """Return the routes of pictures."""
    return (
        Route(f"/v/{{video_id}}/{NAME}", own),
        Route(f"/p/{{slug}}/{NAME}", public),
        Route(f"/board/jobs/{{job_id}}/{NAME}", of_job),
    )


async def own(request: Request) -> Response:
    """Return the picture of one's own video."""
    person = person_of(request)
    farm = await run_in_threadpool(video_farm, services_of(request).app)
    owner = None if person.is_operator else person.owner
    video = await run_in_threadpool(farm.find, request.path_params["video_id"], owner)
    return await _picture(request, farm, video)


async def public(request: Request) -> Response:
    """Return the picture of a public video. Raises HTTPException 404."""
    farm = await run_in_threadpool(video_farm, services_of(request).app)
    video = await run_in_threadpool(farm.videos.by_slug, request.path_params["slug"])
    if video is None:
        raise HTTPException(404)
    return await _picture(request, farm, video)


async def of_job(request: Request) -> Response:
    """Return a small picture of a job's source. Raises HTTPException 404."""
    operator_of(request)
    services, wanted = services_of(request), request.path_params["job_id"]
    job = await run_in_threadpool(_job, services, wanted)
    if job is None:
        raise HTTPException(404)
    found = await run_in_threadpool(services.pictures.find_of_source, job.source)
    if not found:
        make, store = services.pictures.make_of_source, services.app.backend.store
        found = await run_sync(make, store, job.source, limiter=services.one_source)
    return _answer(found)


def _job(services: Services, job_id: str) -> JobRecord | None:
    return services.app.backend.ledger.get(job_id) if JOB_ID.fullmatch(job_id) else None


async def _picture(request: Request, farm: VideoFarm, video: Video) -> Response:
    services = services_of(request)
    found = await run_in_threadpool(services.pictures.find, farm, video)
    if not found:
        found = await run_sync(services.pictures.make, farm, video, limiter=services.one_picture)
    return _answer(found)


def _answer(found: bytes) -> Response:
    if found:
        return Response(found, media_type="image/jpeg", headers=KEEP)
    return Response(_placeholder(), media_type="image/svg+xml", headers=SOON)


@cache
def _placeholder() -> bytes:
    return files("hevcq.web").joinpath("static", "no-picture.svg").read_bytes()
