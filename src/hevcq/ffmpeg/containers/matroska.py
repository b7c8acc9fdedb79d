"""Read the elements of Matroska files, for metadata that ffmpeg neither reports nor copies.

Element ids and layouts: RFC 9559 and RFC 8794. Damaged elements end the reading without an error:
whether a file can be read is decided by ffprobe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import BinaryIO

from hevcq.domain.media.facts import MetadataItem
from hevcq.util.file_io import sha256_bytes

MOST_BYTES = 1 << 24
"""Largest table, in bytes, that is read; typical ones have some kilobytes."""
_MOST_ELEMENTS = 20_000
SEGMENT, _CLUSTER, _SEEK_HEAD = 0x18538067, 0x1F43B675, 0x114D9B74
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
_TRACKS, _TRACK, _VIDEO, _LANGUAGE = 0x1654AE6B, 0xAE, 0xE0, 0x22B59D
_CROPS = {0x54AA, 0x54BB, 0x54CC, 0x54DD}
_CHAPTERS, _EDITION, _ORDERED = 0x1043A770, 0x45B9, 0x45DD
_TAGS, _TAG, _TARGETS = 0x1254C367, 0x7373, 0x63C0
_OF_PARTS = {0x63C4: "chapters", 0x63C9: "editions", 0x63C6: "attachments"}
_ATTACHMENTS, _FILE, _DESCRIPTION = 0x1941A469, 0x61A7, 0x467E
_TABLES = (_TRACKS, _CHAPTERS, _TAGS, _ATTACHMENTS)


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its id, and where its data begin and end in the file, in bytes."""

    number: int
    start: int
    end: int


def elements(file: BinaryIO, start: int, end: int) -> Iterator[Element]:
    """Yield the elements between two offsets, up to the first that does not fit."""
    return takewhile(lambda element: element.end <= end, headers(file, start, end))


def headers(file: BinaryIO, start: int, end: int) -> Iterator[Element]:
    """Yield the elements that begin between two offsets, wherever they claim to end.

    One of unknown size, as live recordings have it, ends at `end`.
    """
    for _ in range(_MOST_ELEMENTS):
        if start >= end:
            return
        file.seek(start)
        head = file.read(12)
        number, taken = _number(head, keep_marker=True)
        size, more = _number(head[taken:], keep_marker=False)
        if not taken or not more:
            return
        data = start + taken + more
        last = end if size == (1 << 7 * more) - 1 else data + size  # all ones: unknown size
        yield Element(number, data, last)
        start = last


def _number(head: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Return a variable-size integer and its length in bytes, (0, 0) if it is not whole."""
    length = 9 - head[0].bit_length() if head and head[0] else 0
    if not length or len(head) < length:
        return 0, 0
    value = int.from_bytes(head[:length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def unreported(file: BinaryIO, size: int) -> list[MetadataItem]:
    """Return the metadata of a Matroska file that no tag of ffprobe holds."""
    for top in elements(file, 0, size):
        if top.number == SEGMENT:
            return [item for table in _tables(file, top) for item in _read(file, table)]
    return []


def _tables(file: BinaryIO, segment: Element) -> list[Element]:
    """Return the tables before the first cluster, and those that the seek heads point to."""
    found: dict[int, Element] = {}
    wanted: list[int] = []
    for element in elements(file, segment.start, segment.end):
        if element.number == _CLUSTER:
            break
        if element.number == _SEEK_HEAD:
            wanted += _positions(file, element)
        elif element.number in _TABLES:
            found[element.start] = element
    for position in wanted:
        table = next(elements(file, segment.start + position, segment.end), None)
        if table is not None and table.number in _TABLES:
            found[table.start] = table
    return [table for table in found.values() if table.end - table.start <= 64 * MOST_BYTES]


def _positions(file: BinaryIO, head: Element) -> Iterator[int]:
    for seek in elements(file, head.start, head.end):
        values = {e.number: _bytes(file, e) for e in elements(file, seek.start, seek.end)}
        if seek.number == _SEEK and int.from_bytes(values.get(_SEEK_ID, b""), "big") in _TABLES:
            yield int.from_bytes(values.get(_SEEK_POSITION, b""), "big")


def _read(file: BinaryIO, table: Element) -> Iterator[MetadataItem]:
    inner = list(elements(file, table.start, table.end))
    if table.number == _TRACKS:
        tracks = [element for element in inner if element.number == _TRACK]
        for place, track in enumerate(tracks):
            yield from _track(file, track, f"track {place}")
    elif table.number == _CHAPTERS:
        yield from _editions(file, [element for element in inner if element.number == _EDITION])
    elif table.number == _ATTACHMENTS:
        for element in inner:
            yield from _described(file, element)
    else:
        for element in inner:
            yield from _tag(file, element)


def _track(file: BinaryIO, track: Element, place: str) -> Iterator[MetadataItem]:
    for element in elements(file, track.start, track.end):
        if element.number == _LANGUAGE and b"-" in _bytes(file, element):
            yield _item(file, element, place, f"language {_text(file, element)}")
        elif element.number == _VIDEO:
            for setting in elements(file, element.start, element.end):
                if setting.number in _CROPS and any(_bytes(file, setting)):
                    yield _item(file, setting, place, "crop of the picture")


def _editions(file: BinaryIO, editions: list[Element]) -> Iterator[MetadataItem]:
    for number, edition in enumerate(editions):
        ordered = any(
            element.number == _ORDERED and any(_bytes(file, element))
            for element in elements(file, edition.start, edition.end)
        )
        if number:
            yield _item(file, edition, "chapters", "a further edition of the chapters")
        elif ordered:
            yield _item(file, edition, "chapters", "the order of the chapters (ordered edition)")


def _described(file: BinaryIO, attached: Element) -> Iterator[MetadataItem]:
    if attached.number == _FILE:
        for element in elements(file, attached.start, attached.end):
            if element.number == _DESCRIPTION:
                name = f"description of an attachment ({_text(file, element)})"
                yield _item(file, element, "attachments", name)


def _tag(file: BinaryIO, tag: Element) -> Iterator[MetadataItem]:
    if tag.number != _TAG:
        return
    for element in elements(file, tag.start, tag.end):
        if element.number != _TARGETS:
            continue
        for target in elements(file, element.start, element.end):
            if target.number in _OF_PARTS and any(_bytes(file, target)):
                yield _item(file, tag, "tags", f"tags of {_OF_PARTS[target.number]}")
                return


def _item(file: BinaryIO, element: Element, place: str, name: str) -> MetadataItem:
    content = _bytes(file, element)
    return MetadataItem(place=place, name=name, size=len(content), digest=sha256_bytes(content))


def _text(file: BinaryIO, element: Element) -> str:
    text = _bytes(file, element).rstrip(b"\0").decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable())[:80]


def _bytes(file: BinaryIO, element: Element) -> bytes:
    file.seek(element.start)
    return file.read(min(element.end - element.start, MOST_BYTES))
