"""Read what matters for a join from a part's MP4 headers, without starting a program for each.

Only to say that parts are alike. Whatever is not as ffmpeg's own muxer writes it reads as None,
and ffprobe is asked instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MOST_HEADERS = 64 << 20
"""Headers larger than this are not read here: some 16 bytes a frame make 1 MiB for an hour."""
_ENTRY = 78
"""Bytes of a picture's sample entry before its boxes (ISO/IEC 14496-12, 12.1.3)."""
_VARYING = frozenset({b"btrt"})
"""Boxes of a sample entry that tell of the bytes and not of how they are decoded."""


def quick_headers(path: Path) -> bytes | None:
    """Return time scale and sample description of the only track, or None if it is not so simple."""
    try:
        with path.open("rb") as file:
            moov = _moov(file)
        return _headers(moov) if moov is not None else None
    except (OSError, struct.error, KeyError, IndexError):
        return None


def _moov(file: BinaryIO) -> bytes | None:
    """Return the content of the one box that holds all headers."""
    while True:
        head = file.read(8)
        if len(head) < 8:
            return None
        size, kind = struct.unpack(">I4s", head)
        taken = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            taken = 16
        if size < taken:
            return None
        if kind == b"moov":
            content = file.read(min(size - taken, MOST_HEADERS))
            return content if len(content) == size - taken else None
        file.seek(size - taken, 1)


def _headers(moov: bytes) -> bytes | None:
    boxes = list(_boxes(moov))
    if [kind for kind, _ in boxes].count(b"trak") != 1:
        return None
    media = dict(_boxes(dict(boxes)[b"trak"]))[b"mdia"]
    inside = dict(_boxes(media))
    scale = _time_scale(inside[b"mdhd"])
    table = dict(_boxes(dict(_boxes(inside[b"minf"]))[b"stbl"]))[b"stsd"]
    (entries,) = struct.unpack(">I", table[4:8])
    entry = list(_boxes(table[8:]))
    if entries != 1 or len(entry) != 1 or len(entry[0][1]) < _ENTRY:
        return None
    kind, content = entry[0]
    kept = b"".join(name + box for name, box in _boxes(content[_ENTRY:]) if name not in _VARYING)
    return scale + kind + content[:_ENTRY] + kept


def _time_scale(mdhd: bytes) -> bytes:
    """Return the four bytes that say how many ticks a second has."""
    place = 20 if mdhd[0] == 1 else 12
    if len(mdhd) < place + 4:
        raise KeyError("mdhd")
    return mdhd[place : place + 4]


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each box's kind and content; raise KeyError where they do not fill the space."""
    at = 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if size < 8 or at + size > len(content):
            raise KeyError(kind)
        yield kind, content[at + 8 : at + size]
        at += size
