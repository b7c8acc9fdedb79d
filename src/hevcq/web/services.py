"""What every handler of the page works with, and how it reads a form."""

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
from hevcq.settings.web import WebSettings
from hevcq.usecases.compare import Comparisons
from hevcq.usecases.plan_one_file import Trial
from hevcq.usecases.videos.manage import VideoFarm
from hevcq.usecases.videos.playback import Pictures, TextReader
from hevcq.util.clock import Clock
from hevcq.web.identity.authentication import Authenticator, Limiter
from hevcq.web.identity.person import operator_of, person_of
from hevcq.web.identity.session import digest
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm

MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 200
BODY_S = 30.0
"""Seconds that the body of a form or of a call of the API may take: it is at most 64 KiB."""
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Services:
    """The opened farm, who is asking, and what pages share.

    `app` blocks: call it in a thread (`starlette.concurrency.run_in_threadpool`).
    """

    app: App
    authenticator: Authenticator
    limiter: Limiter
    pictures: Pictures
    texts: TextReader
    machines: JoinedMachines
    comparisons: Comparisons
    trial: Trial = field(default_factory=Trial)
    """The test encode of the first run."""
    one_picture: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """The turn to take a picture: whoever waits for it holds no thread."""
    searches: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """The turns to search, each a look at many records: other threads serve everybody's pages."""
    passwords: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    """The turns to check a password: each takes argon2's 64 MiB."""
    one_source: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """The same for a source of a library, whose file server may hang."""

    @property
    def settings(self) -> WebSettings:
        return self.app.settings.web

    @property
    def clock(self) -> Clock:
        return self.app.clock


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the application that handles this request."""
    found = connection.app.state.services
    assert isinstance(found, Services)
    return found


def own_address(request: Request) -> str:
    """Return the address of this page as people open it; its host was checked."""
    return services_of(request).settings.url or f"http://{request.headers['host']}"


def find_video(request: Request) -> tuple[VideoFarm, Video]:
    """Return the video of an address: for anybody by its slug, else for its owner and operators.

    Blocking. Raises HTTPException 401, 403 without a share's password, NoSuchVideo.
    """
    farm, named = video_farm(services_of(request).app), request.path_params
    if "slug" not in named:
        person = person_of(request)
        return farm, farm.find(named["video_id"], None if person.is_operator else person.owner)
    farm, video = find_shared(request)
    if not knows_password(request, video):
        raise HTTPException(403, "This video asks for a password: open its page first.")
    return farm, video


def find_shared(request: Request) -> tuple[VideoFarm, Video]:
    """Return the public video of a slug, also to who does not know its password yet.

    Blocking. Raises NoSuchVideo, also once the share has ended.
    """
    farm, slug = video_farm(services_of(request).app), request.path_params["slug"]
    video = farm.videos.by_slug(slug) if re.fullmatch(SLUG, slug) else None
    if video is None or (video.share.ends_at or math.inf) <= farm.clock.now():
        raise NoSuchVideo("There is no such video.")
    return farm, video


def knows_password(request: Request, video: Video) -> bool:
    """Return whether this browser sent the password that the video's share has now, if it has one."""
    services, wanted = services_of(request), video.share.password
    cookies = services.authenticator.cookies
    known = cookies.read(request, share_cookie(video), services.clock.now()) if wanted else None
    return not wanted or (known is not None and known.get("mark") == digest(wanted))


def share_cookie(video: Video) -> str:
    return f"share-{video.slug}"


def find_job(request: Request, name: str) -> JobRecord:
    """Return a job by its whole id. Blocking. Raises HTTPException 404."""
    ledger = services_of(request).app.backend.ledger
    job = ledger.get(name) if JOB_ID.fullmatch(name) else None
    if job is None:
        raise HTTPException(404)
    return job


def certificate_file(proof: Certificate | None, name: str) -> Response:
    """Return a certificate to be saved under a name. Raises HTTPException 404 without one."""
    if proof is None:
        raise HTTPException(404)
    headers = {"Content-Disposition": f'attachment; filename="{name}.certificate.json"'}
    text = json.dumps(proof.model_dump(mode="json", by_alias=True), indent=2)
    return Response(text, media_type="application/json", headers=headers)


async def read_small(request: Request, most: int) -> bytes:
    """Return a body of `most` bytes at most, which must not take long. Raises HTTPException 408, 413."""
    body, closing = bytearray(), {"Connection": "close"}
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise HTTPException(413, "That is too large.", headers=closing)
    except TimeoutError as error:
        raise HTTPException(408, "The request took too long to come.", headers=closing) from error
    return bytes(body)


class OperatorRoute(Route):
    """The route of a page for operators, which is not there for anybody else."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        operator_of(HTTPConnection(scope))
        await super().handle(scope, receive, send)


def of_form(
    handle: Callable[[Request, Mapping[str, str]], Response],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return the endpoint of a form of whoever signed in; `handle` works in a thread."""

    async def answer(request: Request) -> Response:
        person_of(request)
        return await run_in_threadpool(handle, request, await read_form(request))

    return answer


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a small urlencoded form; of a repeated one the last.

    Raises HTTPException 400, 408, 413 or 415.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, "Send the form as it is on the page.")
    body = await read_small(request, MAX_FORM_BYTES)
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise HTTPException(400, "The form cannot be read.") from error
    return dict(fields)
