"""Serve joined machines: trade an invitation for a token, hand out orders, send sources, take results.

A machine's token opens only its own orders, each while a job waits for it. Both ends run the same
minor version of hevcq, so the API's description does not list this protocol.
"""

import asyncio
from functools import partial
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
from hevcq.web.identity.authentication import MACHINES
from hevcq.web.identity.person import JOIN, MACHINE, WORK, person_of
from hevcq.web.services import read_body, services_of
from hevcq.web.uploads import CHUNK_TYPE, append_body

MAX_BODY = 1 << 20
"""Bytes of a report: a report on 1,000 streams has some hundred KiB."""
POLL_S, CHECK_S = 20.0, 0.5
"""Seconds that a poll waits for an order, and between two checks for one."""
Model = TypeVar("Model", bound=Frozen)


def routes() -> list[BaseRoute]:
    order_path = MACHINES + "orders/{order_id}"
    return [
        Route(MACHINES + "join", _join, methods=["POST"]),
        Route(MACHINES + "poll", _poll, methods=["POST"]),
        Route(f"{order_path}/beat", _beat, methods=["POST"]),
        Route(f"{order_path}/source", _source, methods=["GET"]),
        Route(f"{order_path}/made", _received_size, methods=["HEAD"]),
        Route(f"{order_path}/made", _append, methods=["PATCH"]),
        Route(f"{order_path}/answer", _answer, methods=["POST"]),
    ]


async def _join(request: Request) -> Response:
    """Trade an invitation, which is valid once, for the machine's own token."""
    _require_scope(request, JOIN)
    greeting = await _read(request, Greeting)
    _require_same_version(greeting)
    services = services_of(request)
    tokens = ProgramTokens(services.app.accounts, services.app.clock)
    invitation = request.headers["authorization"].partition(" ")[2].strip()
    admitted = await run_in_threadpool(tokens.admit, invitation, greeting.name, {node()})
    if admitted is None:
        raise HTTPException(401, "This invitation was already used.")
    return _json(Joined(name=admitted[0], token=admitted[1]))


async def _poll(request: Request) -> Response:
    name = _require_scope(request, WORK)
    facts = await _read(request, MachineFacts)
    _require_same_version(facts)
    machines, left = services_of(request).machines, POLL_S / CHECK_S
    machine = await run_in_threadpool(machines.greet, name, facts)
    while left > 0 and not machines.closing and not await request.is_disconnected():
        if refused := machine.refused:
            raise HTTPException(403, f"{refused} See `hevcq doctor` there.")
        if (order := machine.take()) is not None:
            return _json(order)
        left -= 1
        await asyncio.sleep(CHECK_S)
    if machines.closing:
        raise HTTPException(503, "The farm is stopping.")
    return Response(status_code=204)


async def _beat(request: Request) -> Response:
    machine, commission = _find_order(request)
    if (body := await read_body(request, MAX_BODY)) != b"":
        machine.note_progress(commission, _parse(body, OrderProgress))
    return _json(OrderHeld(held=commission.held))


def _source(request: Request) -> Response:
    _machine, commission = _find_order(request)
    return FileResponse(commission.source(), media_type="application/octet-stream")


def _received_size(request: Request) -> Response:
    target = _find_order(request)[1].target()
    size = target.stat().st_size if target.exists() else 0
    return Response(headers={"Upload-Offset": str(size)})


async def _append(request: Request) -> Response:
    """Append to the rendition at its current size. One connection at a time may send it."""
    _machine, commission = _find_order(request)
    start = whole(request.headers.get("upload-offset", ""))
    length = whole(request.headers.get("content-length", ""))
    if start is None or length is None or request.headers.get("content-type") != CHUNK_TYPE:
        raise _closing_error(415, f"Send {CHUNK_TYPE} with Upload-Offset and Content-Length.")
    target = commission.target(start + length)
    if not commission.receiving.acquire(blocking=False):
        raise _closing_error(423, "Another connection is sending this file.")
    try:
        if commission.closed:  # since it was looked up: the gates read the file now
            raise _closing_error(404, UNKNOWN)
        receiver = await run_in_threadpool(partial(ByteReceiver, target, durable=False))
        try:
            if receiver.offset != start:
                raise _closing_error(409, f"The file has {receiver.offset} bytes, not {start}.")
            body = await append_body(request, receiver, length)
        finally:
            receiver.close()
    finally:
        commission.receiving.release()
    return Response(status_code=204, headers={"Upload-Offset": str(body.offset)})


async def _answer(request: Request) -> Response:
    machine, commission = _find_order(request)
    machine.end(commission, await _read(request, OrderEnd))
    return Response(status_code=204)


def _require_scope(request: Request, scope: str) -> str:
    """Return the machine's name. Raises HTTPException 403 for a token without exactly this scope."""
    person = person_of(request)
    if person.scopes != frozenset([scope]):
        raise HTTPException(403, "This token does not allow that.")
    return person.owner.removeprefix(MACHINE)


def _find_order(request: Request) -> tuple[JoinedMachine, Commission]:
    """Return the calling machine and the order of the address. Raises NoSuchVideo, HTTPException 404."""
    machine = services_of(request).machines.find(_require_scope(request, WORK))
    if machine is None:
        raise HTTPException(404)
    return machine, machine.find(request.path_params["order_id"])


def _require_same_version(facts: MachineFacts) -> None:
    if minor(facts.version) != minor(__version__):
        words = f"The farm runs hevcq {__version__}, the machine {facts.version}."
        raise HTTPException(426, f"{words} Install the farm's version on the machine.")


async def _read(request: Request, kind: type[Model]) -> Model:
    return _parse(await read_body(request, MAX_BODY), kind)


def _parse(body: bytes, kind: type[Model]) -> Model:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, "Malformed message of a joined machine.") from error


def _json(value: Frozen) -> Response:
    return Response(value.model_dump_json(), media_type="application/json")


def _closing_error(status: int, words: str) -> HTTPException:
    """Return a refusal that closes the connection, whose body is not read."""
    return HTTPException(status, words, headers={"Connection": "close"})
