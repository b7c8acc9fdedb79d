"""Upload a video: the form; its bytes go to the upload endpoints by a script."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hevcq.domain.videos.record import MAX_DESCRIPTION, MAX_TITLE
from hevcq.web.identity.person import person_of
from hevcq.web.rendering import page
from hevcq.web.services import services_of
from hevcq.wiring.videos import video_farm

CHUNK_BYTES = 16 << 20
"""Bytes of one request: below the limits of common proxies (Cloudflare allows 100 MB)."""


def routes() -> Sequence[BaseRoute]:
    """Return the route of the form."""
    return (Route("/upload", show),)


async def show(request: Request) -> Response:
    """Show the form."""
    person = person_of(request)
    app = services_of(request).app
    farm = await run_in_threadpool(video_farm, app)
    used = await run_in_threadpool(farm.videos.usage, person.owner)
    quota = farm.quota.owner_size
    return page(
        request,
        "upload.html",
        profiles=sorted(farm.profiles.values(), key=lambda profile: profile.name),
        most=farm.limits.max_bytes,
        left=None if quota is None else max(0, quota - used.size),
        max_title=MAX_TITLE,
        max_description=MAX_DESCRIPTION,
        chunk=CHUNK_BYTES,
        direct=app.settings.backend == "aws",
    )
