"""Receive uploads by the tus protocol 1.0 (https://tus.io/protocols/resumable-upload).

Who, whose and how large is decided before a byte of a body is read. The offset that is answered is
durable: the bytes were written and synced. An upload is sent by one connection at a time. The last
request takes no longer than any other: it only queues the video.
"""

import asyncio
import base64
import binascii
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from email.utils import formatdate

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message

from hevcq.domain.videos import Video
from hevcq.errors import BadUpload, Conflict, HevcqError
from hevcq.ports.videos import ByteReceiver
from hevcq.usecases.videos.manage import VideoFarm, delete
from hevcq.usecases.videos.uploads import (
    UploadRequest,
    complete_upload,
    prolong,
    request_upload,
)
from hevcq.util.text import whole
from hevcq.web.identity.person import Person, Scope, person_of
from hevcq.web.problems import of_error, problem
from hevcq.web.services import services_of
from hevcq.wiring.contexts import video_farm

VERSION = "1.0.0"
CHUNK_TYPE = "application/offset+octet-stream"
BLOCK = 1 << 20
"""Bytes gathered before they are written: a step of a thread costs as much as 100 KiB of copying."""
IDLE_S = 20.0
"""Seconds without a byte after which a connection is given up: until then a client that lost its line
and resumes is answered 423, and tries again."""
MAX_METADATA = 16 * 1024
TUS = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
OFFERS = {**TUS, "Tus-Version": VERSION, "Tus-Extension": "creation,expiration,termination"}
REFUSED = ("x-http-method-override", "upload-concat", "upload-defer-length", "upload-checksum")
"""Headers of parts of the protocol that are not offered."""


@dataclass
class _Body:
    offset: int
    lied: bool = False
    gone: bool = False


def routes() -> list[BaseRoute]:
    one = "/uploads/{video_id}"
    return [
        Route("/uploads", _create, methods=["POST", "OPTIONS"]),
        Route(one, _offset, methods=["HEAD"]),
        Route(one, _patch, methods=["PATCH"]),
        Route(one, _delete, methods=["DELETE"]),
        Route(one, _options, methods=["OPTIONS"]),
    ]


def _options(request: Request) -> Response:
    most = {"Tus-Max-Size": str(video_farm(services_of(request).app).limits.max_bytes)}
    return Response(status_code=204, headers={**OFFERS, **most})


def _create(request: Request) -> Response:
    if request.method == "OPTIONS":
        return _options(request)
    person = _checked(request)
    if _number(request, "content-length", "0") > 0:
        return problem(400, "Send the bytes in the requests after this one.", headers=TUS)
    wanted = _wanted(request, person)
    farm = video_farm(services_of(request).app)
    if not farm.files.receives:
        raise BadUpload(
            "Uploads go to the bucket.", remedy="Ask POST /api/v1/uploads for an address."
        )
    video = request_upload(farm, wanted)
    where = {"Location": f"/uploads/{video.video_id}", **_expires(video)}
    return Response(status_code=201, headers={**TUS, **where})


def _offset(request: Request) -> Response:
    farm, video = _found(request)
    offset, length = _came(farm, video), video.upload.size
    sizes = {"Upload-Offset": str(offset), "Upload-Length": str(length)}
    return Response(headers={**TUS, **sizes, **_expires(video)})


async def _patch(request: Request) -> Response:
    _checked(request)
    start = _number(request, "upload-offset")
    farm, video = await run_in_threadpool(_found, request)
    _judge(request, video, start)
    return await _receive(request, farm, video, start)


async def _receive(request: Request, farm: VideoFarm, video: Video, start: int) -> Response:
    opened: AbstractContextManager[ByteReceiver] = farm.files.receive(video)
    receiver = await run_in_threadpool(opened.__enter__)
    try:
        if receiver.offset != start:
            return _closing(409, f"The upload has {receiver.offset} bytes, not {start}.")
        body = await pour(request, receiver, video.upload.size - start)
    finally:
        await run_in_threadpool(opened.__exit__, None, None, None)
    if body.lied:
        return _closing(413, "More bytes came than the upload was declared with.")
    if body.offset == video.upload.size:
        await run_in_threadpool(_complete, farm, video)
    elif not body.gone:
        with suppress(Conflict):
            video = await run_in_threadpool(prolong, farm, video)
    headers = {**TUS, "Upload-Offset": str(body.offset), **_expires(video)}
    return Response(status_code=204, headers=headers)


def _delete(request: Request) -> Response:
    farm, video = _found(request)
    if video.source is not None:
        return problem(409, "The upload is complete.", remedy="Delete the video.", headers=TUS)
    delete(farm, video, person_of(request).owner)
    return Response(status_code=204, headers=TUS)


async def pour(request: Request, receiver: ByteReceiver, room: int) -> _Body:
    """Append the body up to `room` bytes, and sync; keep what came of one that breaks off.

    A body with more bytes is a lie: nothing of it is kept.
    """
    start, block, more = receiver.offset, bytearray(), True
    came, body = 0, _Body(start)
    try:
        while more and not body.lied:
            message = await _next(request)
            if message is None or message["type"] == "http.disconnect":
                body.gone = True
                break
            piece = message.get("body", b"")
            came, more = came + len(piece), bool(message.get("more_body"))
            body.lied = came > room
            block += piece
            if not body.lied and (len(block) >= BLOCK or not more):
                await run_in_threadpool(receiver.append, bytes(block))
                block.clear()
        if body.lied:
            await run_in_threadpool(receiver.cut, start)
        elif block:
            await run_in_threadpool(receiver.append, bytes(block))
    finally:
        body.offset = await run_in_threadpool(receiver.sync)
    return body


async def _next(request: Request) -> Message | None:
    """Return the next message of the body, or None if the client is silent."""
    try:
        async with asyncio.timeout(IDLE_S):
            return await request.receive()
    except TimeoutError:
        return None


def _came(farm: VideoFarm, video: Video) -> int:
    """Return how many bytes are there for good; an upload that has them all is completed."""
    if video.source is not None:
        return video.upload.size
    if not video.is_uploading:
        raise BadUpload(video.reason, remedy=video.remedy)
    try:
        with farm.files.receive(video) as receiver:
            came = receiver.sync()
    except Conflict:  # still being sent; whoever resumes takes it over, and gets the offset
        return farm.files.received_bytes(video)
    if came >= video.upload.size:
        _complete(farm, video)
    return came


def _complete(farm: VideoFarm, video: Video) -> None:
    with suppress(Conflict):  # by another request at the same time
        complete_upload(farm, farm.find(video.video_id, None))


def _judge(request: Request, video: Video, start: int) -> None:
    """Refuse a body by what is known before it is read. Raises HTTPException."""
    status, words = 0, ""
    if request.headers.get("content-type", "") != CHUNK_TYPE:
        status, words = 415, f"Send {CHUNK_TYPE}."
    elif not video.is_uploading:
        status, words = 409 if video.source else 410, "This upload has ended."
    elif start + _number(request, "content-length", "0") > video.upload.size:
        status, words = 413, "These are more bytes than the upload was declared with."
    if status:
        raise HTTPException(status, words, headers={**TUS, "Connection": "close"})


def _wanted(request: Request, person: Person) -> UploadRequest:
    facts = parse_metadata(request.headers.get("upload-metadata", ""))
    names = facts.get("profiles", "").split(",")
    return UploadRequest(
        owner=person.owner,
        name=facts.get("filename") or facts.get("name") or "video",
        size=_number(request, "upload-length"),
        title=facts.get("title", ""),
        description=facts.get("description", ""),
        profiles=tuple(name.strip() for name in names if name.strip()),
        media_type=facts.get("filetype") or facts.get("type") or "",
    )


def parse_metadata(header: str) -> dict[str, str]:
    """Return the pairs of an Upload-Metadata header. Raises HTTPException 400."""
    if len(header) > MAX_METADATA:
        raise HTTPException(400, "Upload-Metadata is too long.")
    found: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else ():
        key, _, value = pair.strip().partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise HTTPException(400, "Upload-Metadata cannot be read.") from error
    return found


def _checked(request: Request) -> Person:
    """Return who is asking; refuse other versions and parts of the protocol that are not offered."""
    person = person_of(request)
    person.require(Scope.UPLOAD)
    if request.headers.get("tus-resumable") != VERSION:
        raise HTTPException(412, f"Tus-Resumable must be {VERSION}.", headers=OFFERS)
    for name in REFUSED:
        if name in request.headers:
            raise HTTPException(400, f"{name} is not offered.", headers=TUS)
    return person


def _number(request: Request, header: str, otherwise: str = "") -> int:
    value = whole(request.headers.get(header, otherwise))
    if value is None:
        raise HTTPException(400, f"{header} must be a whole number.", headers=TUS)
    return value


def _found(request: Request) -> tuple[VideoFarm, Video]:
    """Return a person's own upload; an operator sends no bytes into another's."""
    person, farm = _checked(request), video_farm(services_of(request).app)
    try:
        return farm, farm.find(request.path_params["video_id"], person.owner)
    except HevcqError as error:
        raise HTTPException(404, "There is no such upload.", headers=TUS) from error


def _expires(video: Video) -> dict[str, str]:
    return (
        {"Upload-Expires": formatdate(video.upload.expires_at, usegmt=True)}
        if video.is_uploading
        else {}
    )


def refused(request: Request, error: HevcqError) -> Response:
    """Refuse what another connection is sending just now with 423, which clients try again."""
    if request.method not in {"PATCH", "DELETE"}:
        return of_error(error, headers=TUS)
    headers = {**TUS, "Connection": "close"}
    if isinstance(error, Conflict):
        return problem(423, error.message, headers=headers)
    return of_error(error, headers=headers)


def _closing(status: int, words: str) -> Response:
    """Refuse without reading the body, which the connection may still hold."""
    return problem(status, words, headers={**TUS, "Connection": "close"})
