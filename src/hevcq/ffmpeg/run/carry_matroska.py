"""Carry into a Matroska rendition what ffmpeg does not write: languages, crops, chapters, odd tags.

The tables before the first cluster are written anew, as long as before: what is added takes from the
room that a tag made (`build._room`), so no offset of a cluster or cue changes. Elements: RFC 9559.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from typing import BinaryIO

from hevcq.domain.planning.encode_plan import StreamPlan
from hevcq.domain.planning.metadata import PROVENANCE_KEY, kept_crop, kept_language, tracks_of
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.command.build import ROOM
from hevcq.ffmpeg.containers import matroska as mkv
from hevcq.ffmpeg.containers.matroska import Element, elements, pack, whole
from hevcq.ffmpeg.containers.mp4 import Found
from hevcq.ports.encoder import EncodeRequest

_OURS = {"ENCODER", PROVENANCE_KEY.upper()}
"""Tags of the file that a rendition has anew."""
_MOST_PARTS = 16
"""Tags within tags that are looked into; real ones have two or three."""
_RATIO = 3
"""Unit of a display size that is an aspect ratio."""


def carry_into_matroska(request: EncodeRequest, found: Sequence[Found]) -> None:
    """Add to `request.output` what the plan says of its tracks, and these pieces of the source.

    Raises EncoderFailed. Gate G3 finds what did not arrive.
    """
    path = request.output
    try:
        with path.open("r+b") as file:
            segment, tables, end = _front(file, path.stat().st_size)
            if not tables or tables[0].number != mkv.SEEK_HEAD:
                raise EncoderFailed(f"{path} does not begin with a list of its tables.")
            start = segment.start
            made = _tables(file, request, found, tables)
            outside = [s for s in mkv.seeks(file, tables[0]) if s[1] >= end - start]
            content = _with_seek_head(made, outside)
            spare = end - start - len(content)
            if spare < 2:
                raise EncoderFailed(f"{path} has no room for {2 - spare} bytes of metadata.")
            file.seek(start)
            file.write(content + _void(spare))
    except OSError as error:
        reason = error.strerror or str(error)
        raise EncoderFailed(f"Metadata cannot be written to {path}: {reason}.") from error


def _front(file: BinaryIO, size: int) -> tuple[Element, list[Element], int]:
    """Return the segment, its tables before the first cluster, and where they end."""
    segment = next((e for e in mkv.headers(file, 0, size) if e.number == mkv.SEGMENT), None)
    if segment is None:
        return Element(0, 0, 0), [], 0
    tables: list[Element] = []
    end = segment.start
    for element in mkv.headers(file, segment.start, segment.end):
        if element.number == mkv.CLUSTER:
            return segment, tables, end
        tables.append(element)
        end = element.end
    return segment, [], 0


def _tables(
    file: BinaryIO, request: EncodeRequest, found: Sequence[Found], tables: list[Element]
) -> list[tuple[int, bytes]]:
    """Return the tables by their ids, with what is carried."""
    chapters = [p.box for p in found if p.item.place == "chapters" and _is(p, mkv.CHAPTERS)]
    links = b"".join(piece.box for piece in found if piece.item.place == "segment")
    made = []
    for table in tables:
        if table.number in {mkv.SEEK_HEAD, mkv.VOID, mkv.CRC}:
            continue
        if table.number == mkv.CHAPTERS and chapters:
            continue
        if table.number == mkv.TAGS and chapters:
            made.append((mkv.CHAPTERS, _checked(mkv.CHAPTERS, chapters[0])))
        content = _raw(file, table)
        if table.number == mkv.TRACKS:
            content = _checked(mkv.TRACKS, b"".join(_tracks(file, request, table)))
        elif table.number == mkv.INFO and links:
            gone = {mkv.CRC, *mkv.LINKS}
            parts = [e for e in elements(file, table.start, table.end) if e.number not in gone]
            content = _checked(mkv.INFO, b"".join(whole(file, e) for e in parts) + links)
        elif table.number == mkv.TAGS:
            ids = _track_ids(file, tables)
            tags = b"".join(_tags(file, request, found, table, ids))
            content = _checked(mkv.TAGS, tags) if tags else b""
        else:
            content = pack(table.number, content)
        if content:
            made.append((table.number, content))
    return made


def _is(piece: Found, table: int) -> bool:
    """Return whether a piece is a whole table, not a tag."""
    tag = piece.box.startswith(pack(mkv.TARGETS, b"")[:2])
    return tag == (table == mkv.TAGS)


def _raw(file: BinaryIO, element: Element) -> bytes:
    file.seek(element.start)
    return file.read(element.end - element.start)


def _checked(number: int, content: bytes) -> bytes:
    """Return an element with a checksum before its content, as ffmpeg writes it."""
    return pack(number, pack(mkv.CRC, zlib.crc32(content).to_bytes(4, "little")) + content)


def _with_seek_head(tables: list[tuple[int, bytes]], outside: list[tuple[int, int]]) -> bytes:
    """Return the tables behind a list of their positions, which count from the segment's start."""

    def head(positions: Iterable[tuple[int, int]]) -> bytes:
        return _checked(mkv.SEEK_HEAD, b"".join(mkv.seek(*each) for each in positions))

    at = len(head([*((number, 0) for number, _ in tables), *outside]))
    positions = []
    for number, content in tables:
        positions.append((number, at))
        at += len(content)
    return head([*positions, *outside]) + b"".join(content for _, content in tables)


def _void(length: int) -> bytes:
    if length < 10:
        return pack(mkv.VOID, bytes(length - 2))
    return bytes([mkv.VOID, 1]) + (length - 9).to_bytes(7, "big") + bytes(length - 9)


def _track_ids(file: BinaryIO, tables: list[Element]) -> list[int]:
    return [
        mkv.value_of(file, track, mkv.TRACK_ID)
        for table in tables
        if table.number == mkv.TRACKS
        for track in elements(file, table.start, table.end)
        if track.number == mkv.TRACK
    ]


def _kept(request: EncodeRequest) -> list[tuple[int, StreamPlan]]:
    """Return the tracks of the rendition in their order, each with its number in the source."""
    numbers = {stream.index: number for number, stream in enumerate(tracks_of(request.info))}
    kept = [stream for stream in request.plan.kept if stream.source_index in numbers]
    return [(numbers[stream.source_index], stream) for stream in kept]


def _tracks(file: BinaryIO, request: EncodeRequest, table: Element) -> Iterator[bytes]:
    planned = iter(_kept(request))
    for track in elements(file, table.start, table.end):
        if track.number == mkv.CRC:
            continue
        number, plan = next(planned, (0, None)) if track.number == mkv.TRACK else (0, None)
        yield whole(file, track) if plan is None else _track(file, request, track, number, plan)


def _track(
    file: BinaryIO, request: EncodeRequest, track: Element, number: int, plan: StreamPlan
) -> bytes:
    source = tracks_of(request.info)[number]
    language = kept_language(request.plan.muxer, plan, source)
    crop = kept_crop(request.plan.muxer, plan, source)
    parts = []
    for element in elements(file, track.start, track.end):
        if element.number == mkv.VIDEO and crop and source.video is not None:
            aspect = (plan.video or source.video).sample_aspect
            parts.append(_cropped(file, element, crop, aspect))
        elif element.number != mkv.LANGUAGE:
            parts.append(whole(file, element))
    if language:
        parts.append(pack(mkv.LANGUAGE, language.encode()))
    return pack(mkv.TRACK, b"".join(parts))


def _cropped(file: BinaryIO, video: Element, crop: str, aspect: str) -> bytes:
    """Return the description of a picture with a crop, and the display size of what is left."""
    anew = {mkv.DISPLAY_WIDTH, mkv.DISPLAY_HEIGHT, mkv.DISPLAY_UNIT, *mkv.CROPS.values()}
    parts = [whole(file, e) for e in elements(file, video.start, video.end) if e.number not in anew]
    left, top, right, bottom = map(int, crop.split(","))
    width = mkv.value_of(file, video, mkv.WIDTH) - left - right
    height = mkv.value_of(file, video, mkv.HEIGHT) - top - bottom
    numbers = dict(zip(mkv.CROPS.values(), (left, top, right, bottom), strict=True))
    wide = Fraction(aspect.replace(":", "/")) * width
    if wide.denominator > 1:
        ratio = wide / height
        numbers |= {mkv.DISPLAY_UNIT: _RATIO, mkv.DISPLAY_WIDTH: ratio.numerator}
        numbers[mkv.DISPLAY_HEIGHT] = ratio.denominator
    elif wide != width:
        numbers |= {mkv.DISPLAY_WIDTH: int(wide), mkv.DISPLAY_HEIGHT: height}
    parts += [mkv.pack_number(number, value) for number, value in numbers.items()]
    return pack(mkv.VIDEO, b"".join(parts))


def _tags(
    file: BinaryIO,
    request: EncodeRequest,
    found: Sequence[Found],
    table: Element,
    ids: list[int],
) -> Iterator[bytes]:
    """Yield the tags that ffmpeg wrote, without the room and what stands for a carried tag; then those."""
    carried = [p for p in found if p.item.place != "segment" and _is(p, mkv.TAGS)]
    chapters = any(piece.item.place == "chapters" for piece in found)
    of_file = [piece.box for piece in carried if piece.item.place == "file"]
    places = {ids[at]: f"track {n}" for at, (n, _) in enumerate(_kept(request)) if at < len(ids)}
    for tag in elements(file, table.start, table.end):
        if tag.number != mkv.TAG:
            continue
        targets = [e for e in elements(file, tag.start, tag.end) if e.number == mkv.TARGETS]
        inside = [t for e in targets for t in elements(file, e.start, e.end)]
        if chapters and any(t.number in mkv.CHAPTER_IDS for t in inside):
            continue
        place = places.get(
            next((mkv.number_of(file, t) for t in inside), 0), "" if inside else "file"
        )
        boxes = of_file if place == "file" else [p.box for p in carried if p.item.place == place]
        gone = {name for box in boxes for name in flat_names(box)} - (
            _OURS if place == "file" else set()
        )
        simple = [e for e in elements(file, tag.start, tag.end) if e.number == mkv.SIMPLE]
        left = [whole(file, e) for e in simple if not _stands_for(file, e, gone)]
        if left:
            yield pack(mkv.TAG, b"".join([*(whole(file, e) for e in targets), *left]))
    numbers = {place: number for number, place in places.items()}
    for piece in carried:
        content = _targeted(piece, numbers.get(piece.item.place, 0))
        if piece.item.reported:
            content = _without(content, _OURS)
        yield pack(mkv.TAG, content)


def flat_names(box: bytes) -> set[str]:
    """Return the names that ffmpeg gives the values of a tag: the level and the parts by slashes."""
    file = BytesIO(box)
    level = ""
    for target in elements(file, 0, len(box)):
        if target.number == mkv.TARGETS:
            inside = elements(file, target.start, target.end)
            level = next((mkv.text_of(file, e) for e in inside if e.number == mkv.LEVEL_NAME), "")
    return set(_flat(file, Element(0, 0, len(box)), f"{level}/" if level else ""))


def _flat(file: BinaryIO, parent: Element, prefix: str) -> Iterator[str]:
    for simple in elements(file, parent.start, parent.end):
        if simple.number == mkv.SIMPLE:
            parts = elements(file, simple.start, simple.end)
            name = next((mkv.text_of(file, e) for e in parts if e.number == mkv.NAME), "")
            yield f"{prefix}{name}".upper()
            if prefix.count("/") < _MOST_PARTS:
                yield from _flat(file, simple, f"{prefix}{name}/")


def _stands_for(file: BinaryIO, simple: Element, gone: set[str]) -> bool:
    texts = {e.number: mkv.text_of(file, e) for e in elements(file, simple.start, simple.end)}
    return texts.get(mkv.NAME, "").upper() in gone or texts.get(mkv.TEXT, "").startswith(ROOM)


def _without(content: bytes, names: set[str]) -> bytes:
    file = BytesIO(content)
    parts = elements(file, 0, len(content))
    return b"".join(whole(file, e) for e in parts if not _stands_for(file, e, names))


def _targeted(piece: Found, track: int) -> bytes:
    """Return the content of a tag, which names the track of the rendition if it is of one."""
    if not track:
        return piece.box
    file = BytesIO(piece.box)
    targets, *rest = elements(file, 0, len(piece.box))
    inside = _raw(file, targets) + pack(mkv.TAGGED_TRACK, track.to_bytes(8, "big"))
    return pack(mkv.TARGETS, inside) + b"".join(whole(file, each) for each in rest)
