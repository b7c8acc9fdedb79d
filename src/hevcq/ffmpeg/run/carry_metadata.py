"""Carry into a rendition the metadata of an MP4 or MOV that ffmpeg does not copy.

ffmpeg writes the index with a tag that only makes room (`build._room`). The room is then filled in
place: the index keeps its size, so no offset in it changes and nothing is written twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from hevcq.domain.media.containers import is_mp4_family
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.metadata import carried, free_form
from hevcq.errors import EncoderFailed, SourceUnreadable
from hevcq.ffmpeg.command.build import ROOM
from hevcq.ffmpeg.containers.mp4 import Box, Found, children, metadata
from hevcq.ffmpeg.inputs import display_name, is_url
from hevcq.ports.encoder import EncodeRequest

_TEXT = struct.pack(">II", 1, 0)
"""Type (UTF-8) and locale of a value in iTunes' list."""


def carry_metadata(request: EncodeRequest) -> None:
    """Add the source's boxes and free-form tags to `request.output`, an MP4 or MOV.

    Raises SourceUnreadable and EncoderFailed. Gate G3 finds what did not arrive.
    """
    plan, info = request.plan, request.info
    if not is_mp4_family(plan.muxer):
        return
    found = _wanted(request.location, plan, info)
    tags = [_free_form(*tag) for tag in free_form(plan.muxer, info, covers=plan.has_covers).items()]
    after = [piece.box for piece in found if piece.item.place == "file"]
    inside = [piece for piece in found if piece.item.place != "file"]
    if not (inside or tags or after):
        return
    try:
        with request.output.open("r+b") as file:
            if inside or tags:
                _fill_room(file, request.output, inside, tags)
            file.seek(0, 2)
            for box in after:
                file.write(box)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EncoderFailed(f"Metadata cannot be written to {request.output}: {reason}.") from error


def _wanted(location: str, plan: EncodePlan, info: MediaInfo) -> list[Found]:
    wanted = {item.digest for item in carried(plan.muxer, info, covers=plan.has_covers)}
    if not wanted or is_url(location):
        return []
    try:
        with Path(location).open("rb") as file:
            return [piece for piece in metadata(file, info.size) if piece.item.digest in wanted]
    except OSError as error:
        raise SourceUnreadable(f"{display_name(location)} can no longer be read.") from error


def _fill_room(file: BinaryIO, path: Path, found: Sequence[Found], tags: Sequence[bytes]) -> None:
    size = path.stat().st_size
    udta = next(
        (
            inner
            for box in children(file, 0, size)
            if box.kind == b"moov"
            for inner in children(file, box.payload, box.end)
            if inner.kind == b"udta"
        ),
        None,
    )
    if udta is None:
        raise EncoderFailed(f"The index of {path} has no place for metadata.")
    entries = [piece.box for piece in found if piece.item.place == "movie list"]
    boxes = [piece.box for piece in found if piece.item.place == "movie"]
    content = _user_data(file, udta, boxes, [*entries, *tags])
    free = udta.end - udta.start - len(content)
    if free < 8:
        raise EncoderFailed(f"The index of {path} has no room for {-free} bytes of metadata.")
    content += struct.pack(">I4s", free, b"free") + bytes(free - 8)
    file.seek(udta.start)
    file.write(struct.pack(">I", len(content)) + content[4:])


def _user_data(file: BinaryIO, udta: Box, boxes: list[bytes], entries: list[bytes]) -> bytes:
    """Return the user data with what is carried, and without the tag that made the room."""
    kept = []
    for box in children(file, udta.payload, udta.end):
        if box.kind == b"meta":
            kept.append(_table(file, box, entries))
        else:
            kept.append(_whole(file, box))
    return _box(b"udta", chain(kept, _new(boxes, kept)))


def _table(file: BinaryIO, meta: Box, entries: list[bytes]) -> bytes:
    """Return the metadata table; ffmpeg writes it as a full box in MP4 and in MOV."""
    kept = []
    for box in children(file, meta.payload + 4, meta.end):
        if box.kind != b"ilst":
            kept.append(_whole(file, box))
            continue
        listed = [_whole(file, entry) for entry in children(file, box.payload, box.end)]
        listed = [entry for entry in listed if ROOM.encode() not in entry]
        kept.append(_box(b"ilst", chain(listed, _new(entries, listed))))
    return _box(b"meta", [bytes(4), *kept])


def _new(boxes: list[bytes], there: Iterable[bytes]) -> list[bytes]:
    """Return the boxes whose types ffmpeg has not written itself; free-form entries share one."""
    kinds = {box[4:8] for box in there}
    return [box for box in boxes if box[4:8] == b"----" or box[4:8] not in kinds]


def _free_form(name: str, value: str) -> bytes:
    key, text = (part.encode("utf-8", "surrogateescape") for part in (name, value))
    parts = [
        _box(b"mean", [bytes(4), b"com.apple.iTunes"]),
        _box(b"name", [bytes(4), key]),
        _box(b"data", [_TEXT, text]),
    ]
    return _box(b"----", parts)


def _box(kind: bytes, parts: Iterable[bytes]) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _whole(file: BinaryIO, box: Box) -> bytes:
    file.seek(box.start)
    return file.read(box.end - box.start)
