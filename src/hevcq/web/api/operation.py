"""One way through the API for every operation: who, what is asked, the use case, the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hevcq.errors import HevcqError
from hevcq.usecases.videos.context import VideoFarm
from hevcq.web.identity.person import Person, person_of
from hevcq.web.problems import of_error, problem
from hevcq.web.services import read_small, services_of
from hevcq.wiring.app import App
from hevcq.wiring.videos import video_farm

PREFIX = "/api/v1"
MAX_BODY = 64 * 1024
JSON = "application/json"


@dataclass(frozen=True)
class Call:
    """A request that was checked: `query` and `body` are instances of the operation's models."""

    person: Person
    app: App
    farm: VideoFarm
    path: Mapping[str, str]
    query: Any
    body: Any
    request_key: str = ""
    expected: int | None = None

    @property
    def owner(self) -> str | None:
        """Whose videos may be touched; None: everybody's."""
        return None if self.person.is_operator else self.person.owner


@dataclass(frozen=True)
class Operation:
    """An operation: its address below /api/v1, what it takes and returns, and who may call it."""

    method: str
    path: str
    name: str
    summary: str
    scope: str
    work: Callable[[Call], BaseModel | None]
    answer: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    body_needed: bool = True
    status: int = 200
    operators: bool = False
    creates: bool = False
    problems: tuple[int, ...] = field(default=())

    @property
    def address(self) -> str:
        """The path with its prefix."""
        return PREFIX + self.path


def routes(operations: Sequence[Operation]) -> list[BaseRoute]:
    """Return a route for each address, so that the answer to an unknown method names the known ones."""
    by_path: dict[str, dict[str, Operation]] = {}
    for each in operations:
        by_path.setdefault(each.address, {})[each.method] = each
    return [Route(path, _Endpoint(known)) for path, known in by_path.items()]


class _Endpoint:
    """The operations of one address, as an ASGI application."""

    def __init__(self, known: Mapping[str, Operation]) -> None:
        self._known = known

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        operation = self._known.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            allowed = {"Allow": ", ".join(sorted(self._known))}
            return problem(405, "This address can't do that.", headers=allowed)
        try:
            person = _allowed(operation, person_of(request))
            body = await _body(request, operation)
            return await run_in_threadpool(_work, request, operation, person, body)
        except HTTPException as error:
            return problem(error.status_code, error.detail, headers=error.headers)
        except HevcqError as error:
            return of_error(error)


def _allowed(operation: Operation, person: Person) -> Person:
    person.require(operation.scope)
    if operation.operators and not person.is_operator:
        raise HTTPException(403, "This is for operators.")
    return person


def _work(request: Request, operation: Operation, person: Person, body: Any) -> Response:
    query = _parsed(operation.query, dict(request.query_params), "query")
    app = services_of(request).app
    call = Call(
        person,
        app,
        video_farm(app),
        request.path_params,
        query,
        body,
        request_key=_key(request) if operation.creates else "",
        expected=_expected(request.headers.get("if-match", "")),
    )
    found = operation.work(call)
    if found is None:
        return Response(status_code=operation.status)
    content = found.model_dump_json(by_alias=True).encode()
    headers = {"Cache-Control": "private, no-cache", "ETag": etag(found, content)}
    if request.method in {"GET", "HEAD"}:
        given = request.headers.get("if-none-match", "")
        if headers["ETag"] in {each.strip() for each in given.split(",")}:
            return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        headers["Content-Length"], content = str(len(content)), b""
    return Response(content, operation.status, headers, media_type=JSON)


def etag(found: BaseModel, content: bytes) -> str:
    """Return the tag of an answer; it begins with the record's revision where there is one."""
    revision = getattr(found, "revision", None)
    digest = hashlib.sha256(content).hexdigest()[:20]
    return f'"{digest}"' if revision is None else f'"{revision}-{digest}"'


def _expected(header: str) -> int | None:
    """Return the revision that an If-Match header asks for; the rest of the tag may have moved on."""
    number, dash, _ = header.strip().strip('"').partition("-")
    return int(number) if dash and number.isascii() and number.isdecimal() else None


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not key.isprintable():
        raise HTTPException(400, "Idempotency-Key must be printable.")
    return key


async def _body(request: Request, operation: Operation) -> Any:
    """Read a small JSON body and check it. Raises HTTPException 400, 408, 413, 415, 422."""
    if operation.body is None:
        return None
    raw = await read_small(request, MAX_BODY)
    if not raw and not operation.body_needed:
        return operation.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise HTTPException(415, f"Send {JSON}.")
    try:
        json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "The body is not JSON.") from error
    try:
        return operation.body.model_validate_json(raw)
    except ValidationError as error:
        raise HTTPException(422, _explained(error, "body")) from error


def _parsed(model: type[BaseModel] | None, given: Mapping[str, str], where: str) -> Any:
    if model is None:
        if given:
            raise HTTPException(422, f"{where}: nothing is expected here.")
        return None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise HTTPException(422, _explained(error, where)) from error


def _explained(error: ValidationError, where: str) -> str:
    problems = []
    for each in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        at = ".".join(str(part)[:40] for part in each["loc"]) or where
        problems.append(f"{at}: {each['msg']}")
    return "; ".join(problems).encode("utf-8", "backslashreplace").decode() + "."
