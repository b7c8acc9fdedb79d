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
from hevcq.usecases.operations.reprocess import JOB_ID
from hevcq.web.identity.person import operator_of
from hevcq.web.services import Services, find_video, services_of

NAME = "poster.jpg"
KEEP = {"Cache-Control": "private, max-age=3600"}
SOON = {"Cache-Control": "private, max-age=30"}


def routes() -> Sequence[BaseRoute]:
    """Return the routes of pictures."""
    return (
        Route(f"/v/{{video_id}}/{NAME}", of_video),
        Route(f"/p/{{slug}}/{NAME}", of_video),
        Route(f"/board/jobs/{{job_id}}/{NAME}", of_job),
    )


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


def _answer(found: bytes) -> Response:
    if found:
        return Response(found, media_type="image/jpeg", headers=KEEP)
    return Response(_placeholder(), media_type="image/svg+xml", headers=SOON)


@cache
def _placeholder() -> bytes:
    return files("hevcq.web").joinpath("static", "no-picture.svg").read_bytes()
