"""Copy metadata that ffmpeg does not copy into an MP4 or MOV.

ffmpeg writes the index with a tag that only makes room (`build._metadata_room`), and the metadata takes
the place of this tag. The index keeps its size, so no offset in it changes, and the media data are
written once.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Self

from hevcq.domain.media.containers import is_mp4_family
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.metadata import (
    carried_metadata,
    free_form,
    kept_language,
    replaced_list,
    tracks_of,
)
from hevcq.errors import EncoderFailed, SourceUnreadable
from hevcq.ffmpeg.command.build import ROOM
from hevcq.ffmpeg.containers.mp4 import Box, MetadataBox, children, metadata
from hevcq.ffmpeg.inputs import display_name, is_url
from hevcq.ports.encoder import EncodeRequest

_TEXT = struct.pack(">II", 1, 0)
"""Type (UTF-8) and locale of a value in iTunes' list."""
_REWRITTEN = frozenset({b"\xa9too", b"covr"})
"""Entries of ffmpeg that stay where the source's whole list is carried: our mark, and covers (streams)."""


def carry_metadata(request: EncodeRequest) -> None:
    """Add the source's boxes, tags and track labels to `request.output`.

    Raises SourceUnreadable and EncoderFailed. Gate G3 finds what is missing afterwards.
    """
    plan, info = request.plan, request.info
    if not is_mp4_family(plan.muxer):
        return
    pieces = _boxes_to_carry(request.location, plan, info)
    after = [piece.box for piece in pieces if piece.item.place == "file"]
    index = _Index.planned(plan, info, [p for p in pieces if p.item.place != "file"])
    if index.is_empty and not after:
        return
    try:
        with request.output.open("r+b") as file:
            if not index.is_empty:
                _fill_room(file, request.output, index)
            file.seek(0, 2)
            for box in after:
                file.write(box)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EncoderFailed(f"Metadata cannot be written to {request.output}: {reason}.") from error


@dataclass(slots=True)
class _Track:
    """Additions to one track: boxes for its user data, boxes beside them, and its language."""

    user_data: list[bytes] = field(default_factory=list)
    own: list[bytes] = field(default_factory=list)
    language: str = ""


@dataclass(frozen=True, slots=True)
class _Index:
    """Additions to the index; `tracks` are in the order of the rendition's tracks."""

    user_data: list[bytes]
    entries: list[bytes]
    own: list[bytes]
    tracks: list[_Track]
    is_whole: bool
    """Whether `entries` replace those that ffmpeg wrote."""

    @property
    def is_empty(self) -> bool:
        mine = (self.user_data, self.entries, self.own)
        return not any(mine) and all(track == _Track() for track in self.tracks)

    @classmethod
    def planned(cls, plan: EncodePlan, info: MediaInfo, pieces: Sequence[MetadataBox]) -> Self:
        def of(place: str) -> list[bytes]:
            return [piece.box for piece in pieces if piece.item.place == place]

        tracks = []
        for number, language in _languages(plan, info):
            tracks.append(_Track(of(f"track {number}"), of(f"track {number} itself"), language))
        tags = free_form(plan.muxer, info, covers=plan.has_covers)
        entries = [*of("movie list"), *(_free_form(*tag) for tag in tags.items())]
        is_whole = bool(replaced_list(plan.muxer, info, covers=plan.has_covers))
        return cls(of("movie"), entries, of("index"), tracks, is_whole)


def _boxes_to_carry(location: str, plan: EncodePlan, info: MediaInfo) -> list[MetadataBox]:
    carried = {
        (item.place, item.digest) for item in carried_metadata(plan.muxer, info, plan.streams)
    }
    if not carried or is_url(location):
        return []
    try:
        with Path(location).open("rb") as file:
            pieces = list(metadata(file, info.size))
    except OSError as error:
        raise SourceUnreadable(f"{display_name(location)} can no longer be read.") from error
    return [piece for piece in pieces if (piece.item.place, piece.item.digest) in carried]


def _fill_room(file: BinaryIO, path: Path, index: _Index) -> None:
    """Rewrite the index at its former length: the additions take their bytes from the room."""
    moov = next((b for b in children(file, 0, path.stat().st_size) if b.kind == b"moov"), None)
    if moov is None:
        raise EncoderFailed(f"{path} has no index that could hold metadata.")
    file.seek(moov.payload)
    old = file.read(moov.end - moov.payload)
    content, room = _new_index(old, index)
    free = len(old) - len(content)
    if room is None or free < 8:
        raise EncoderFailed(f"The index of {path} has no room for {8 - free} bytes of metadata.")
    # What is left of the room becomes the last box of the user data.
    size = struct.unpack_from(">I", content, room)[0]
    spare = struct.pack(">I4s", free, b"free") + bytes(free - 8)
    struct.pack_into(">I", content, room, size + free)
    content[room + size : room + size] = spare
    file.seek(moov.payload)
    file.write(content)


def _new_index(old: bytes, index: _Index) -> tuple[bytearray, int | None]:
    """Return the index's payload with the additions, and the offset of its user data in it."""
    file, content, room = BytesIO(old), bytearray(), None
    tracks = iter(index.tracks)
    for box in children(file, 0, len(old)):
        if box.kind == b"udta":
            room = len(content)
            content += _new_user_data(file, box, index)
        elif box.kind == b"trak":
            content += _new_track(file, box, next(tracks, _Track()))
        else:
            content += _read_box(file, box)
    return content + b"".join(index.own), room


def _new_track(file: BinaryIO, trak: Box, added: _Track) -> bytes:
    if added == _Track():
        return _read_box(file, trak)
    parts, boxes = [], list(children(file, trak.payload, trak.end))
    for box in boxes:
        if box.kind == b"udta":
            written = [_read_box(file, inner) for inner in children(file, box.payload, box.end)]
            parts.append(_box(b"udta", [*written, *_missing_from(added.user_data, written)]))
        elif box.kind == b"mdia" and added.language:
            parts.append(_new_media(file, box, added.language))
        else:
            parts.append(_read_box(file, box))
    if added.user_data and not any(box.kind == b"udta" for box in boxes):
        parts.append(_box(b"udta", added.user_data))
    return _box(b"trak", [*parts, *added.own])


def _new_media(file: BinaryIO, box: Box, language: str) -> bytes:
    parts = []
    for inner in children(file, box.payload, box.end):
        if inner.kind != b"elng":
            parts.append(_read_box(file, inner))
        if inner.kind == b"mdhd":
            parts.append(_box(b"elng", [bytes(4), language.encode(), b"\0"]))
    return _box(b"mdia", parts)


def _new_user_data(file: BinaryIO, udta: Box, index: _Index) -> bytes:
    kept = [
        _new_table(file, box, index) if box.kind == b"meta" else _read_box(file, box)
        for box in children(file, udta.payload, udta.end)
    ]
    return _box(b"udta", chain(kept, _missing_from(index.user_data, kept)))


def _new_table(file: BinaryIO, meta: Box, index: _Index) -> bytes:
    """Return the metadata table, which ffmpeg writes as a full box in MP4 and in MOV."""
    kept = []
    for box in children(file, meta.payload + 4, meta.end):
        if box.kind != b"ilst":
            kept.append(_read_box(file, box))
            continue
        listed = [_read_box(file, entry) for entry in children(file, box.payload, box.end)]
        listed = [entry for entry in listed if ROOM.encode() not in entry]
        if index.is_whole:
            listed = [entry for entry in listed if entry[4:8] in _REWRITTEN]
        added = index.entries if index.is_whole else _missing_from(index.entries, listed)
        kept.append(_box(b"ilst", chain(listed, added)))
    return _box(b"meta", [bytes(4), *kept])


def _missing_from(boxes: list[bytes], there: Iterable[bytes]) -> list[bytes]:
    """Return the boxes whose types ffmpeg has not written; free-form entries share one type."""
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


def _read_box(file: BinaryIO, box: Box) -> bytes:
    file.seek(box.start)
    return file.read(box.end - box.start)


def _languages(plan: EncodePlan, info: MediaInfo) -> list[tuple[int, str]]:
    """Return the source's track number and the language of each track of the rendition, in order."""
    sources = {stream.index: (n, stream) for n, stream in enumerate(tracks_of(info))}
    return [
        (sources[s.source_index][0], kept_language(plan.muxer, s, sources[s.source_index][1]))
        for s in plan.kept
        if s.source_index in sources
    ]
