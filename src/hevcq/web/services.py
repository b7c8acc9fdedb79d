"""What the handlers of pages share: the farm, look-ups by address, and reading forms."""

import asyncio
import json
import math
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JOB_ID, JobRecord
from hevcq.domain.videos import SLUG, Video
from hevcq.errors import NoSuchVideo
from hevcq.running.machines import JoinedMachines
from hevcq.usecases.compare import Comparisons
from hevcq.usecases.plan_one_file import Trial
from hevcq.usecases.videos.manage import VideoFarm
from hevcq.usecases.videos.playback import Pictures, TextReader
from hevcq.web.identity.attempts import AttemptLimiter
from hevcq.web.identity.authentication import Authenticator
from hevcq.web.identity.person import operator_of, person_of
from hevcq.web.identity.session import digest
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm

MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 200
BODY_S = 30.0
"""Seconds that receiving a form or the body of an API call may take: it has at most 64 KiB."""
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Services:
    """The opened farm, the authenticator, and what pages share.

    `app` blocks, so call it in a thread (`starlette.concurrency.run_in_threadpool`).
    """

    app: App
    authenticator: Authenticator
    attempts: AttemptLimiter
    pictures: Pictures
    texts: TextReader
    machines: JoinedMachines
    comparisons: Comparisons
    trial: Trial = field(default_factory=Trial)
    """The test encode of the first run."""
    one_picture: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """Makes one poster of a video at a time: a request that waits for its turn holds no thread."""
    one_source: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """The same for posters of library files, whose file server may hang."""
    searches: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """Limits searches, which read many records, so that threads are left for other pages."""
    passwords: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    """Limits checks of passwords, which take 64 MiB each in argon2."""


def services_of(connection: HTTPConnection) -> Services:
    services = connection.app.state.services
    assert isinstance(services, Services)
    return services


def own_address(request: Request) -> str:
    """Return the address at which people open the page. The Host header was checked before."""
    return services_of(request).app.settings.web.url or f"http://{request.headers['host']}"


def find_video(request: Request) -> tuple[VideoFarm, Video]:
    """Return the video of the address: a shared video for anybody, else for its owner and operators.

    Blocking. Raises HTTPException 401, 403 without the share's password, NoSuchVideo.
    """
    farm, named = video_farm(services_of(request).app), request.path_params
    if "slug" not in named:
        person = person_of(request)
        return farm, farm.find(named["video_id"], None if person.is_operator else person.owner)
    farm, video = find_shared(request)
    if not has_password(request, video):
        raise HTTPException(403, "This video has a password: open its page first.")
    return farm, video


def find_shared(request: Request) -> tuple[VideoFarm, Video]:
    """Return the public video of a slug, even if the browser has not sent the share's password.

    Blocking. Raises NoSuchVideo, also after the share has ended.
    """
    farm, slug = video_farm(services_of(request).app), request.path_params["slug"]
    video = farm.videos.by_slug(slug) if re.fullmatch(SLUG, slug) else None
    if video is None or (video.share.ends_at or math.inf) <= farm.clock.now():
        raise NoSuchVideo("There is no such video.")
    return farm, video


def has_password(request: Request, video: Video) -> bool:
    """Return whether the share has no password, or this browser has sent the current one."""
    services, password = services_of(request), video.share.password
    if not password:
        return True
    now = services.app.clock.now()
    claims = services.authenticator.cookies.read(request, share_cookie(video), now)
    return claims is not None and claims.get("mark") == digest(password)


def share_cookie(video: Video) -> str:
    return f"share-{video.slug}"


def find_job(request: Request, name: str) -> JobRecord:
    """Return a job by its full id. Blocking. Raises HTTPException 404."""
    ledger = services_of(request).app.backend.ledger
    job = ledger.get(name) if JOB_ID.fullmatch(name) else None
    if job is None:
        raise HTTPException(404)
    return job


def certificate_file(proof: Certificate | None, name: str) -> Response:
    """Return a certificate as a download called `name`. Raises HTTPException 404 without one."""
    if proof is None:
        raise HTTPException(404)
    headers = {"Content-Disposition": f'attachment; filename="{name}.certificate.json"'}
    text = json.dumps(proof.model_dump(mode="json", by_alias=True), indent=2)
    return Response(text, media_type="application/json", headers=headers)


async def read_body(request: Request, most: int) -> bytes:
    """Return a body of at most `most` bytes. Raises HTTPException 413, or 408 after BODY_S seconds."""
    body, closing = bytearray(), {"Connection": "close"}
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise HTTPException(413, "The request is too large.", headers=closing)
    except TimeoutError as error:
        raise HTTPException(408, "The request took too long to arrive.", headers=closing) from error
    return bytes(body)


class OperatorRoute(Route):
    """The route of a page for operators; other people get 404."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        operator_of(HTTPConnection(scope))
        await super().handle(scope, receive, send)


def form_endpoint(
    handle: Callable[[Request, Mapping[str, str]], Response],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return the endpoint of a form that needs a sign-in; `handle` runs in a thread."""

    async def endpoint(request: Request) -> Response:
        person_of(request)
        return await run_in_threadpool(handle, request, await read_form(request))

    return endpoint


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a small urlencoded form; of a repeated field the last.

    Raises HTTPException 400, 408, 413 or 415.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, "Send the form as the page has it.")
    body = await read_body(request, MAX_FORM_BYTES)
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise HTTPException(400, "The form is malformed.") from error
    return dict(fields)
