"""What the operations of the API share: who calls, small bodies, and the ETag of an answer."""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hevcq.domain.videos.record import Video
from hevcq.usecases.videos.context import VideoFarm
from hevcq.util.text import whole
from hevcq.web.identity.person import Person, Scope, person_of
from hevcq.web.services import read_small, services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm

MAX_BODY = 64 * 1024
JSON = "application/json"
TOKEN = HTTPBearer(scheme_name="token", auto_error=False)


@dataclass(frozen=True)
class Call:
    """The person or program that calls, and the farm."""

    person: Person
    app: App
    farm: VideoFarm
    searches: CapacityLimiter

    def video(self, video_id: str) -> Video:
        """Return a video that the caller may see; an operator may see all. Raises NoSuchVideo."""
        return self.farm.find(video_id, None if self.person.is_operator else self.person.owner)

    def own_video(self, video_id: str) -> Video:
        """Return one of the caller's own videos. Raises NoSuchVideo."""
        return self.farm.find(video_id, self.person.owner)


def _caller(
    request: Request, needed: SecurityScopes, _described: Annotated[object, Depends(TOKEN)]
) -> Call:
    """Return who calls. Raises HTTPException 401, or 403 without the needed scopes."""
    person = person_of(request)
    for scope in needed.scopes:
        person.require(scope)
    if Scope.OPERATE in needed.scopes and not person.is_operator:
        raise HTTPException(403, "Only operators may do this.")
    services = services_of(request)
    return Call(person, services.app, video_farm(services.app), services.searches)


Reads = Annotated[Call, Security(_caller, scopes=[Scope.READ])]
Uploads = Annotated[Call, Security(_caller, scopes=[Scope.UPLOAD])]
Manages = Annotated[Call, Security(_caller, scopes=[Scope.MANAGE])]
Operates = Annotated[Call, Security(_caller, scopes=[Scope.OPERATE])]
"""Callers whose token allows these scopes; only operators operate."""


class _SmallRequest(Request):
    """A request whose body is small JSON that comes in time."""

    async def body(self) -> bytes:
        """Return the body. Raises HTTPException 408, 413, 415."""
        if not hasattr(self, "_body"):
            self._body = await read_small(self, MAX_BODY)
            kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self._body and kind != JSON:
                raise HTTPException(415, f"Send {JSON}.")
        return self._body


class _Tagged(JSONResponse):
    """JSON with an ETag, which begins with the record's revision where there is one."""

    def __init__(
        self,
        content: Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        super().__init__(content, status_code, headers, media_type, background)
        if isinstance(content, dict):
            digest, revision = hashlib.sha256(self.body).hexdigest()[:20], content.get("revision")
            self.headers["ETag"] = f'"{digest}"' if revision is None else f'"{revision}-{digest}"'
            self.headers["Cache-Control"] = "private, no-cache"


class _Operation(APIRoute):
    """Reads small bodies, and answers 304 to a caller that knows the answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response = await handle(_SmallRequest(request.scope, request.receive))
            tag, known = response.headers.get("etag"), request.headers.get("if-none-match", "")
            if request.method == "GET" and tag in {each.strip() for each in known.split(",")}:
                headers = {"ETag": tag, "Cache-Control": response.headers["cache-control"]}
                return Response(status_code=304, headers=headers)
            return response

        return answer


def new_router() -> APIRouter:
    return APIRouter(
        route_class=_Operation,
        default_response_class=_Tagged,
        generate_unique_id_function=lambda route: route.name,
    )


def revision_of(if_match: str) -> int | None:
    """Return the revision that an If-Match header asks for, if any; the rest may have moved on."""
    number, dash, _ = if_match.strip().strip('"').partition("-")
    return whole(number) if dash else None
