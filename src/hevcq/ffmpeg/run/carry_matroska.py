"""Carry into a Matroska rendition the languages of its tracks by BCP 47, which ffmpeg does not write.

The tables before the first cluster are written anew, as long as before: what is added takes from the
room that a tag made (`build._room`), so no offset of a cluster or cue changes. Elements: RFC 9559.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from hevcq.domain.planning.encode_plan import StreamPlan
from hevcq.domain.planning.metadata import kept_language, tracks_of
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.command.build import ROOM
from hevcq.ffmpeg.containers import matroska as mkv
from hevcq.ffmpeg.containers.matroska import Element, elements, pack, whole
from hevcq.ports.encoder import EncodeRequest


def carry_into_matroska(request: EncodeRequest) -> None:
    """Add to `request.output` what the plan says of its tracks.

    Raises EncoderFailed. Gate G3 finds what did not arrive.
    """
    path = request.output
    try:
        with path.open("r+b") as file:
            segment, tables, end = _front(file, path.stat().st_size)
            if not tables or tables[0].number != mkv.SEEK_HEAD:
                raise EncoderFailed(f"{path} does not begin with a list of its tables.")
            start = segment.start
            made = list(_tables(file, request, tables))
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
    file: BinaryIO, request: EncodeRequest, tables: list[Element]
) -> Iterator[tuple[int, bytes]]:
    """Yield the tables by their ids, with what is carried."""
    for table in tables:
        if table.number in {mkv.SEEK_HEAD, mkv.VOID, mkv.CRC}:
            continue
        content = pack(table.number, _raw(file, table))
        if table.number == mkv.TRACKS:
            content = _checked(mkv.TRACKS, b"".join(_tracks(file, request, table)))
        elif table.number == mkv.TAGS:
            tags = b"".join(_tags(file, table))
            content = _checked(mkv.TAGS, tags) if tags else b""
        if content:
            yield table.number, content


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
    language = kept_language(request.plan.muxer, plan, tracks_of(request.info)[number])
    inside = elements(file, track.start, track.end)
    parts = [whole(file, element) for element in inside if element.number != mkv.LANGUAGE]
    if language:
        parts.append(pack(mkv.LANGUAGE, language.encode()))
    return pack(mkv.TRACK, b"".join(parts))


def _tags(file: BinaryIO, table: Element) -> Iterator[bytes]:
    """Yield the tags without the one that made the room."""
    for tag in elements(file, table.start, table.end):
        if tag.number != mkv.TAG:
            continue
        parts = list(elements(file, tag.start, tag.end))
        kept = [e for e in parts if e.number != mkv.SIMPLE or not _is_room(file, e)]
        if any(element.number == mkv.SIMPLE for element in kept):
            yield pack(mkv.TAG, b"".join(whole(file, element) for element in kept))


def _is_room(file: BinaryIO, simple: Element) -> bool:
    parts = elements(file, simple.start, simple.end)
    return any(e.number == mkv.TEXT and mkv.text_of(file, e).startswith(ROOM) for e in parts)
