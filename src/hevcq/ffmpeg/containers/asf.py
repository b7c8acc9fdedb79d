"""Read the objects of WMV and ASF files, for what their demuxer skips without a word.

Layouts: Advanced Systems Format (ASF) Specification, 3.2 and 5.1.
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
