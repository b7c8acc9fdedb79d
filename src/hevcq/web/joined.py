"""What joined machines ask: a place on the farm by an invitation, then orders, sources and a way back.

A machine's token opens its own orders, for as long as a job waits for each, and nothing else. It is
the protocol of one minor version of hevcq with itself, so the API's description does not list it.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from hevcq import __version__
from hevcq.domain.model import Frozen
from hevcq.domain.orders import Greeting, Joined, MachineFacts, OrderEnd, OrderHeld, OrderProgress
from hevcq.ports.backend import minor
from hevcq.ports.videos import ByteReceiver
from hevcq.usecases.machines.board import UNKNOWN, Commission, JoinedMachine
from hevcq.util.processes import node
from hevcq.util.text import whole
from hevcq.web.identity.accounts import ProgramTokens
from hevcq.web.identity.authentication import OF_MACHINES
from hevcq.web.identity.person import JOIN, MACHINE, WORK, person_of
from hevcq.web.services import read_small, services_of
from hevcq.web.uploads import CHUNK_TYPE, pour

MAX_BODY = 1 << 20
"""Bytes of a report: one of 1,000 streams has some hundred KiB."""
POLL_S, LOOK_S = 20.0, 0.5
"""Seconds that a poll waits for an order, and between its looks."""
Model = TypeVar("Model", bound=Frozen)


def routes() -> list[BaseRoute]:
    one = OF_MACHINES + "orders/{order_id}"
    return [
        Route(OF_MACHINES + "join", _join, methods=["POST"]),
        Route(OF_MACHINES + "poll", _poll, methods=["POST"]),
        Route(f"{one}/beat", _beat, methods=["POST"]),
        Route(f"{one}/source", _source, methods=["GET"]),
        Route(f"{one}/made", _offset, methods=["HEAD"]),
        Route(f"{one}/made", _patch, methods=["PATCH"]),
        Route(f"{one}/answer", _answer, methods=["POST"]),
    ]


async def _join(request: Request) -> Response:
    """Exchange an invitation for a token of the machine's own; an invitation serves once."""
    _require(request, JOIN)
    greeting = await _read(request, Greeting)
    _require_alike(greeting)
    services = services_of(request)
    tokens = ProgramTokens(services.app.accounts, services.clock)
    invitation = request.headers["authorization"].partition(" ")[2].strip()
    found = await run_in_threadpool(tokens.admit, invitation, greeting.name, {node()})
    if found is None:
        raise HTTPException(401, "This invitation was used already.")
    return _json(Joined(name=found[0], token=found[1]))


async def _poll(request: Request) -> Response:
    name = _require(request, WORK)
    facts = await _read(request, MachineFacts)
    _require_alike(facts)
    machines, left = services_of(request).machines, POLL_S / LOOK_S
    machine = await run_in_threadpool(machines.greet, name, facts)
    while left > 0 and not machines.closing and not await request.is_disconnected():
        if refused := machine.refused:
            raise HTTPException(403, f"{refused} See `hevcq doctor` there.")
        if (order := machine.take()) is not None:
            return Response(order.model_dump_json(), media_type="application/json")
        left -= 1
        await asyncio.sleep(LOOK_S)
    if machines.closing:
        raise HTTPException(503, "The farm stops.")
    return Response(status_code=204)


async def _beat(request: Request) -> Response:
    machine, commission = _found(request)
    if (body := await read_small(request, MAX_BODY)) != b"":
        machine.note_progress(commission, _parsed(body, OrderProgress))
    return _json(OrderHeld(held=commission.held))


def _source(request: Request) -> Response:
    """Serve the source, by ranges."""
    _machine, commission = _found(request)
    return FileResponse(commission.source(), media_type="application/octet-stream")


def _offset(request: Request) -> Response:
    target = _found(request)[1].target()
    return Response(headers={"Upload-Offset": str(_size(target))})


async def _patch(request: Request) -> Response:
    """Append to the file that was made, by one connection at a time, at the offset it has."""
    _machine, commission = _found(request)
    start = whole(request.headers.get("upload-offset", ""))
    length = whole(request.headers.get("content-length", ""))
    if start is None or length is None or request.headers.get("content-type") != CHUNK_TYPE:
        raise _closing(415, f"Send {CHUNK_TYPE} with Upload-Offset and Content-Length.")
    target = commission.target(start + length)
    if not commission.receiving.acquire(blocking=False):
        raise _closing(423, "Another connection still sends this file.")
    try:
        if commission.closed:  # since it was found: the gates read the file now
            raise _closing(404, UNKNOWN)
        receiver = await run_in_threadpool(partial(ByteReceiver, target, durable=False))
        try:
            if receiver.offset != start:
                raise _closing(409, f"The file has {receiver.offset} bytes, not {start}.")
            body = await pour(request, receiver, length)
        finally:
            receiver.close()
    finally:
        commission.receiving.release()
    return Response(status_code=204, headers={"Upload-Offset": str(body.offset)})


async def _answer(request: Request) -> Response:
    machine, commission = _found(request)
    machine.end(commission, await _read(request, OrderEnd))
    return Response(status_code=204)


def _require(request: Request, scope: str) -> str:
    """Return the machine's name. Raises HTTPException 403 for any other token."""
    person = person_of(request)
    if person.scopes != frozenset([scope]):
        raise HTTPException(403, "This token is not for that.")
    return person.owner.removeprefix(MACHINE)


def _found(request: Request) -> tuple[JoinedMachine, Commission]:
    """Return an order of the machine that asks. Raises NoSuchVideo, HTTPException 404."""
    machine = services_of(request).machines.find(_require(request, WORK))
    if machine is None:
        raise HTTPException(404)
    return machine, machine.find(request.path_params["order_id"])


def _require_alike(facts: MachineFacts) -> None:
    if minor(facts.version) != minor(__version__):
        words = f"This farm has hevcq {__version__}, and the machine {facts.version}."
        raise HTTPException(426, f"{words} Install the farm's version there.")


async def _read(request: Request, kind: type[Model]) -> Model:
    return _parsed(await read_small(request, MAX_BODY), kind)


def _parsed(body: bytes, kind: type[Model]) -> Model:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, "This is not what a joined machine sends.") from error


def _json(value: Frozen) -> Response:
    return Response(value.model_dump_json(), media_type="application/json")


def _closing(status: int, words: str) -> HTTPException:
    """Refuse without reading the body, which the connection may still hold."""
    return HTTPException(status, words, headers={"Connection": "close"})


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
