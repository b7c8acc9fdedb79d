"""Receive uploads by the tus protocol 1.0 (https://tus.io/protocols/resumable-upload).

The owner and the size are checked before a byte of a body is read. A returned offset is durable: the
bytes before it were written and synced. One connection at a time sends an upload. The last request is
as fast as the others: it only queues the video.
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
from hevcq.web.problems import error_problem, problem
from hevcq.web.services import services_of
from hevcq.wiring.contexts import video_farm

VERSION = "1.0.0"
CHUNK_TYPE = "application/offset+octet-stream"
BLOCK = 1 << 20
"""Bytes buffered before a write: handing work to a thread costs as much as copying 100 KiB."""
IDLE_S = 20.0
"""Seconds without a byte after which a connection is dropped. Until then a client that reconnects is
answered 423, and tries again."""
MAX_METADATA = 16 * 1024
TUS = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
OFFERS = {**TUS, "Tus-Version": VERSION, "Tus-Extension": "creation,expiration,termination"}
REFUSED = ("x-http-method-override", "upload-concat", "upload-defer-length", "upload-checksum")
"""Headers of protocol extensions that are not supported."""


@dataclass
class _Body:
    offset: int
    too_long: bool = False
    disconnected: bool = False


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
    person = _require_protocol(request)
    if _number(request, "content-length", "0") > 0:
        return problem(400, "Send the bytes in the requests after this one.", headers=TUS)
    upload = _upload_request(request, person)
    farm = video_farm(services_of(request).app)
    if not farm.files.receives:
        raise BadUpload(
            "Uploads go to the bucket.", remedy="Ask POST /api/v1/uploads for an address."
        )
    video = request_upload(farm, upload)
    where = {"Location": f"/uploads/{video.video_id}", **_expires(video)}
    return Response(status_code=201, headers={**TUS, **where})


def _offset(request: Request) -> Response:
    farm, video = _find_own_upload(request)
    offset, length = _received_bytes(farm, video), video.upload.size
    sizes = {"Upload-Offset": str(offset), "Upload-Length": str(length)}
    return Response(headers={**TUS, **sizes, **_expires(video)})


async def _patch(request: Request) -> Response:
    _require_protocol(request)
    start = _number(request, "upload-offset")
    farm, video = await run_in_threadpool(_find_own_upload, request)
    _refuse_early(request, video, start)
    return await _receive(request, farm, video, start)


async def _receive(request: Request, farm: VideoFarm, video: Video, start: int) -> Response:
    opened: AbstractContextManager[ByteReceiver] = farm.files.receive(video)
    receiver = await run_in_threadpool(opened.__enter__)
    try:
        if receiver.offset != start:
            return _refuse_and_close(409, f"The upload has {receiver.offset} bytes, not {start}.")
        body = await append_body(request, receiver, video.upload.size - start)
    finally:
        await run_in_threadpool(opened.__exit__, None, None, None)
    if body.too_long:
        return _refuse_and_close(413, "More bytes came than the upload was declared with.")
    if body.offset == video.upload.size:
        await run_in_threadpool(_complete, farm, video)
    elif not body.disconnected:
        with suppress(Conflict):
            video = await run_in_threadpool(prolong, farm, video)
    headers = {**TUS, "Upload-Offset": str(body.offset), **_expires(video)}
    return Response(status_code=204, headers=headers)


def _delete(request: Request) -> Response:
    farm, video = _find_own_upload(request)
    if video.source is not None:
        return problem(409, "The upload is complete.", remedy="Delete the video.", headers=TUS)
    delete(farm, video, person_of(request).owner)
    return Response(status_code=204, headers=TUS)


async def append_body(request: Request, receiver: ByteReceiver, room: int) -> _Body:
    """Append the body, of `room` bytes at most, and sync. Keep the received part of a broken body.

    Of a body with more bytes nothing is kept.
    """
    start, block, more = receiver.offset, bytearray(), True
    received, body = 0, _Body(start)
    try:
        while more and not body.too_long:
            message = await _next(request)
            if message is None or message["type"] == "http.disconnect":
                body.disconnected = True
                break
            piece = message.get("body", b"")
            received, more = received + len(piece), bool(message.get("more_body"))
            body.too_long = received > room
            block += piece
            if not body.too_long and (len(block) >= BLOCK or not more):
                await run_in_threadpool(receiver.append, bytes(block))
                block.clear()
        if body.too_long:
            await run_in_threadpool(receiver.cut, start)
        elif block:
            await run_in_threadpool(receiver.append, bytes(block))
    finally:
        body.offset = await run_in_threadpool(receiver.sync)
    return body


async def _next(request: Request) -> Message | None:
    """Return the next message of the body, or None after IDLE_S seconds of silence."""
    try:
        async with asyncio.timeout(IDLE_S):
            return await request.receive()
    except TimeoutError:
        return None


def _received_bytes(farm: VideoFarm, video: Video) -> int:
    """Return how many bytes are stored durably. Completes an upload whose bytes are all there."""
    if video.source is not None:
        return video.upload.size
    if not video.is_uploading:
        raise BadUpload(video.reason, remedy=video.remedy)
    try:
        with farm.files.receive(video) as receiver:
            received = receiver.sync()
    except (
        Conflict
    ):  # a connection still sends it; a client that resumes takes over from this offset
        return farm.files.received_bytes(video)
    if received >= video.upload.size:
        _complete(farm, video)
    return received


def _complete(farm: VideoFarm, video: Video) -> None:
    with suppress(Conflict):  # another request completed it at the same time
        complete_upload(farm, farm.find(video.video_id, None))


def _refuse_early(request: Request, video: Video, start: int) -> None:
    """Refuse a body by its headers and the upload's state. Raises HTTPException."""
    status, words = 0, ""
    if request.headers.get("content-type", "") != CHUNK_TYPE:
        status, words = 415, f"Send {CHUNK_TYPE}."
    elif not video.is_uploading:
        status, words = 409 if video.source else 410, "This upload has ended."
    elif start + _number(request, "content-length", "0") > video.upload.size:
        status, words = 413, "More bytes than the upload was declared with."
    if status:
        raise HTTPException(status, words, headers={**TUS, "Connection": "close"})


def _upload_request(request: Request, person: Person) -> UploadRequest:
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
    facts: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else ():
        key, _, value = pair.strip().partition(" ")
        try:
            facts[key] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise HTTPException(400, "Upload-Metadata is malformed.") from error
    return facts


def _require_protocol(request: Request) -> Person:
    """Return the caller. Raises HTTPException for another version, or an extension that is not supported."""
    person = person_of(request)
    person.require(Scope.UPLOAD)
    if request.headers.get("tus-resumable") != VERSION:
        raise HTTPException(412, f"Tus-Resumable must be {VERSION}.", headers=OFFERS)
    for name in REFUSED:
        if name in request.headers:
            raise HTTPException(400, f"{name} is not supported.", headers=TUS)
    return person


def _number(request: Request, header: str, otherwise: str = "") -> int:
    value = whole(request.headers.get(header, otherwise))
    if value is None:
        raise HTTPException(400, f"{header} must be a whole number.", headers=TUS)
    return value


def _find_own_upload(request: Request) -> tuple[VideoFarm, Video]:
    """Return the caller's own upload: not even an operator may send bytes into another's."""
    person, farm = _require_protocol(request), video_farm(services_of(request).app)
    try:
        return farm, farm.find(request.path_params["video_id"], person.owner)
    except HevcqError as error:
        raise HTTPException(404, "No such upload.", headers=TUS) from error


def _expires(video: Video) -> dict[str, str]:
    return (
        {"Upload-Expires": formatdate(video.upload.expires_at, usegmt=True)}
        if video.is_uploading
        else {}
    )


def error_answer(request: Request, error: HevcqError) -> Response:
    """Answer an error. An upload that another connection is sending gets 423, which clients retry."""
    if request.method not in {"PATCH", "DELETE"}:
        return error_problem(error, headers=TUS)
    headers = {**TUS, "Connection": "close"}
    if isinstance(error, Conflict):
        return problem(423, error.message, headers=headers)
    return error_problem(error, headers=headers)


def _refuse_and_close(status: int, words: str) -> Response:
    """Refuse and close the connection, whose body is not read."""
    return problem(status, words, headers={**TUS, "Connection": "close"})
