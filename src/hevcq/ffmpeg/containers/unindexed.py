"""Find what is missing of WMV and ASF, raw DV and Ogg, which their demuxers skip without a word.

Layouts: Advanced Systems Format (ASF) Specification, 3.2 and 5.1; IEC 61834-2; RFC 3533.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from hevcq.ffmpeg.containers.mp4 import container_behind

HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
"""GUIDs of the Header, the File Properties and the Data object."""
_OBJECT = struct.Struct("<16sQ")
_HEAD_BYTES = 1 << 20
_BROADCAST = 1
_DV_FRAME_BYTES = {0x00: 120_000, 0x80: 144_000}
"""Bytes of a frame of 525 and of 625 lines, by a bit of its first block; DVCPRO has multiples of them
(IEC 61834-2)."""
_OGG_HEAD_BYTES = 27 + 255
"""Bytes of the longest head of a page (RFC 3533)."""


def packet_damage(file: BinaryIO, size: int) -> str:
    """Return which data packets are missing, or begin unlike all others, as a clause, or ""."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    facts, data = head.find(FILE), head.find(DATA)
    if min(facts, data) < 0 or facts + 104 > len(head) or data + 50 > len(head):
        return ""
    flags, smallest, largest = struct.unpack_from("<III", head, facts + 88)
    length, count = (
        struct.unpack_from("<Q", head, data + 16)[0],
        struct.unpack_from("<Q", head, data + 40)[0],
    )
    if flags & _BROADCAST or smallest != largest or not smallest or not count:
        return ""
    first = data + 50
    whole = (min(size, data + length) - first) // smallest
    if whole < count:
        return f"{count - whole} of its {count} data packets are missing"
    broken = sum(1 for mark in _marks(file, first, smallest, count) if mark != head[first])
    # Packets of several makes begin in several ways; damage is rare.
    if 0 < broken <= max(1, count // 4):
        return f"{broken} of its {count} data packets are broken"
    return ""


def _marks(file: BinaryIO, first: int, size: int, count: int) -> Iterator[int]:
    """Yield the first byte of each data packet: the kind of its error correction."""
    for number in range(count):
        file.seek(first + number * size)
        yield from file.read(1)


def second_video(file: BinaryIO, size: int) -> int:
    """Return the byte from which a file holds a second video behind its first, or 0.

    Of files that were put together the demuxer reads the packets of the first only.
    """
    at, seen = 0, False
    while at + _OBJECT.size <= size:
        file.seek(at)
        kind, length = _OBJECT.unpack(file.read(_OBJECT.size))
        if kind == HEADER and seen:
            return at
        if length < _OBJECT.size or at + length > size:
            break
        seen = seen or kind == DATA
        at += length
    return container_behind(file, at, size) if seen else 0


def ends_inside_frame(file: BinaryIO, size: int) -> str:
    """Return whether raw DV ends inside a frame, as a clause, or "" if not or if it is no whole DV."""
    head = file.read(4)
    if len(head) < 4 or head[0] & 0xE0 or size % _DV_FRAME_BYTES[head[3] & 0x80] == 0:
        return ""
    return "it ends inside a frame, so it was cut"


def ends_inside_page(file: BinaryIO, size: int) -> str:
    """Return whether an Ogg ends inside a page, as a clause, or "".

    A last page without the mark of the end is none: what is recorded live has no such mark.
    """
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(_OGG_HEAD_BYTES)
        if not head.startswith(b"OggS"):
            # Other words behind the last page, or a page that is broken, which its demuxer says.
            return "it ends inside a page, so it was cut" if b"OggS".startswith(head) else ""
        count = head[26] if len(head) > 26 else 0
        at += 27 + count + sum(head[27 : 27 + count])
    return "it ends inside a page, so it was cut" if at > size else ""
