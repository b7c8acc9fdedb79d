"""What the operations of the API share: the caller, scopes, and reading small bodies."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hevcq.domain.videos import Video
from hevcq.usecases.videos.manage import VideoFarm
from hevcq.web.identity.person import Person, Scope, person_of
from hevcq.web.services import read_body, services_of
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
        """Return a video that the caller may see; operators may see all. Raises NoSuchVideo."""
        return self.farm.find(video_id, None if self.person.is_operator else self.person.owner)

    def own_video(self, video_id: str) -> Video:
        """Return one of the caller's own videos. Raises NoSuchVideo."""
        return self.farm.find(video_id, self.person.owner)


def _caller(
    request: Request, needed: SecurityScopes, _described: Annotated[object, Depends(TOKEN)]
) -> Call:
    """Return the caller. Raises HTTPException 401, or 403 without the needed scopes."""
    person = person_of(request)
    for scope in needed.scopes:
        person.require(scope)
    if Scope.OPERATE in needed.scopes and not person.is_operator:
        raise HTTPException(403, f"Only operators may do this, and {person.name} is not one.")
    services = services_of(request)
    return Call(person, services.app, video_farm(services.app), services.searches)


Reads = Annotated[Call, Security(_caller, scopes=[Scope.READ])]
Uploads = Annotated[Call, Security(_caller, scopes=[Scope.UPLOAD])]
Manages = Annotated[Call, Security(_caller, scopes=[Scope.MANAGE])]
Operates = Annotated[Call, Security(_caller, scopes=[Scope.OPERATE])]
"""A caller whose token allows this scope; Operates also needs an operator."""


class _SmallRequest(Request):
    """A request whose body must be small JSON that arrives in time."""

    async def body(self) -> bytes:
        """Return the body. Raises HTTPException 408, 413, 415."""
        if not hasattr(self, "_body"):
            self._body = await read_body(self, MAX_BODY)
            kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self._body and kind != JSON:
                raise HTTPException(415, f"Send {JSON}.")
        return self._body


class _Operation(APIRoute):
    """The route of an operation, which reads small bodies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def endpoint(request: Request) -> Response:
            return await handle(_SmallRequest(request.scope, request.receive))

        return endpoint


def new_router() -> APIRouter:
    return APIRouter(
        route_class=_Operation,
        generate_unique_id_function=lambda route: route.name,
    )
