"""Hold what the indexes of an AVI promise against what its demuxer finds.

A small AVI has one index, `idx1`. One of more than about a gigabyte has several parts (`RIFF AVIX`), an
index for each piece (`ix00`), and a list of those in its header (`indx`): OpenDML AVI File Format
Extensions 1.02. Entries without a size are frames that repeat the one before, which no demuxer returns.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

_UNFINISHED = 0xFFFF_0000
"""Lengths from here on are placeholders of a recording that was never finished."""
_READ_ENTRIES = 4096
_OF_INDEXES, _OF_CHUNKS = 0, 1
_NO_KEY = 1 << 31
"""The bit of a size in `ix00` that says that a frame is no key frame."""
_HEAD = struct.Struct("<HBBI4s")
"""Of `indx` and `ix00`: longs per entry, subtype, type, entries in use, name of the chunks."""
_HEAD_BYTES = 24
_MOST_HEADER_BYTES = 1 << 22
_TOLERATED = 0.005
"""Share of frames by which a header may promise too many: writers count their last ones in several ways."""
_MOST_INDEX_BYTES = 1 << 24
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 4096
"""Last bytes of a picture in which its end is looked for: some writers pad behind it."""

Chunk = tuple[bytes, int, int]


@dataclass(slots=True)
class _Promised:
    """What an AVI says of each stream: frames that its indexes name, and repeated ones among all."""

    named: Counter[int] = field(default_factory=Counter)
    repeats: Counter[int] = field(default_factory=Counter)
    headers: dict[int, int] = field(default_factory=dict)
    """Frames by the stream's header, where the header of the whole file says as many."""


def missing_frames(file: BinaryIO, size: int, found: Mapping[int, int]) -> str:
    """Return what is missing of what the indexes promise, as a clause, or "".

    `found` is how many packets a demuxer finds of each video, by the stream's number.
    """
    parts = [chunk for chunk in _chunks(file, 0, size) if chunk[0] == b"RIFF"]
    for _, begin, length in parts:
        missing = begin + length - size
        if missing > 1:
            return "" if length >= _UNFINISHED else f"its last {missing} bytes are missing"
    if not parts:
        return ""
    _, begin, length = parts[0]
    top = list(_chunks(file, begin + 4, size if len(parts) == 1 else begin + length))
    header = next((c for c in top if c[0] == b"LIST" and _kind(file, c) == b"hdrl"), None)
    promised = _Promised()
    if header is not None and header[2] <= _MOST_HEADER_BYTES:
        gone = _open_dml(file, size, header, promised)
        if gone:
            return gone
    if not promised.named and len(parts) == 1:  # idx1 names the frames of the first part only
        for name, begin, length in top:
            if name == b"idx1":
                _count(promised, _entries(file, begin, length))
    return _compared(promised, found, has_parts=len(parts) > 1) or _endless(file, top)


def _compared(promised: _Promised, found: Mapping[int, int], *, has_parts: bool) -> str:
    for stream, packets in found.items():
        named = promised.named[stream]
        if packets < named:
            return f"its index names {named} frames, but {packets} can be read"
        total = promised.headers.get(stream, 0) - promised.repeats[stream]
        if (named or has_parts) and total - packets > max(1, _TOLERATED * total):
            return f"its header promises {total} frames, but {packets} can be read"
    return ""


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[Chunk]:
    """Yield name, begin and length of the chunks between two offsets."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = struct.unpack("<4sI", head)
        yield name, start + 8, length
        start += 8 + length + (length & 1)


def _kind(file: BinaryIO, chunk: Chunk) -> bytes:
    file.seek(chunk[1])
    return file.read(4)


def _open_dml(file: BinaryIO, size: int, header: Chunk, promised: _Promised) -> str:
    """Count what the indexes of OpenDML name; return the clause of one that is not in the file."""
    whole, number, stated = 0, 0, dict[int, int]()
    for chunk in _chunks(file, header[1] + 4, header[1] + header[2]):
        if chunk[0] != b"LIST":
            continue
        inner = {c[0]: c for c in _chunks(file, chunk[1] + 4, chunk[1] + chunk[2])}
        if _kind(file, chunk) == b"odml" and b"dmlh" in inner:
            file.seek(inner[b"dmlh"][1])
            whole = int.from_bytes(file.read(4), "little")
        elif _kind(file, chunk) == b"strl":
            if b"strh" in inner and _kind(file, inner[b"strh"]) == b"vids":
                file.seek(inner[b"strh"][1] + 32)
                stated[number] = int.from_bytes(file.read(4), "little")
                beyond = _counted(file, size, inner.get(b"indx"), (number, promised))
                if beyond:
                    return beyond
            number += 1
    promised.headers = {n: frames for n, frames in stated.items() if frames == whole}
    return ""


def _counted(file: BinaryIO, size: int, index: Chunk | None, counts: tuple[int, _Promised]) -> str:
    """Count the frames that a stream's `indx` names, by way of the indexes that it names."""
    number, promised = counts
    if index is None or index[2] < _HEAD_BYTES:
        return ""
    file.seek(index[1])
    _, _, kind, used, _ = _HEAD.unpack(file.read(_HEAD.size))
    if kind == _OF_CHUNKS:
        _count(promised, ((number, length) for length in _sizes(file, index)))
    if kind != _OF_INDEXES:
        return ""
    file.seek(index[1] + _HEAD_BYTES)
    table = file.read(min(16 * used, index[2] - _HEAD_BYTES))
    own: list[tuple[int, int]] = []
    for place, length, _ in struct.iter_unpack("<QII", table[: len(table) // 16 * 16]):
        if place + length > size:
            return f"its index names a part at byte {place}, behind its end"
        part = next(_chunks(file, place, place + 8), None)
        if part is None or part[0][:2] != b"ix":
            return ""  # places that a writer got wrong prove nothing
        own += [(number, length) for length in _sizes(file, part)]
    _count(promised, own)
    return ""


def _sizes(file: BinaryIO, part: Chunk) -> Iterator[int]:
    """Yield the size of each chunk that an `ix00` names."""
    file.seek(part[1])
    _, _, _, used, _ = _HEAD.unpack(file.read(_HEAD.size))
    file.seek(part[1] + _HEAD_BYTES)
    table = file.read(min(8 * used, max(0, part[2] - _HEAD_BYTES)))
    for _, length in struct.iter_unpack("<II", table[: len(table) // 8 * 8]):
        yield length & ~_NO_KEY


def _endless(file: BinaryIO, top: list[Chunk]) -> str:
    """Return how many JPEG pictures that an `idx1` names have no end, as a clause, or "".

    ffmpeg only warns of them. A few of many are damage; a camera that writes no ends writes none at all.
    """
    movi = next((c[1] for c in top if c[0] == b"LIST" and _kind(file, c) == b"movi"), 0)
    index = next((c for c in top if c[0] == b"idx1"), None)
    if index is None:
        return ""
    file.seek(index[1])
    table = file.read(min(index[2], _MOST_INDEX_BYTES))
    named = [
        (offset, size)
        for name, _, offset, size in struct.iter_unpack("<4sIII", table[: len(table) // 16 * 16])
        if name == b"00dc" and size
    ]
    # Writers count from the list of the media or from the beginning of the file.
    base = next((at for at in (movi, 0) if named and _is_jpeg(file, at + named[0][0])), None)
    if base is None:
        return ""
    without = 0
    for offset, size in named:
        file.seek(base + offset + 8 + max(0, size - _JPEG_TAIL))
        without += _JPEG_END not in file.read(min(size, _JPEG_TAIL))
    few = 0 < without <= len(named) // 4
    have = "has" if without == 1 else "have"
    return f"{without} of its {len(named)} JPEG pictures {have} no end" if few else ""


def _is_jpeg(file: BinaryIO, at: int) -> bool:
    """Whether a chunk of video begins there and holds a JPEG."""
    file.seek(at)
    head = file.read(10)
    return head[:4] == b"00dc" and head[8:] == _JPEG_BEGIN


def _count(promised: _Promised, entries: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> None:
    for number, length in entries:
        (promised.named if length else promised.repeats)[number] += 1


def _entries(file: BinaryIO, begin: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield the stream and the size of each picture that an `idx1` names."""
    file.seek(begin)
    left = length
    while left >= 16:
        block = file.read(min(left, 16 * _READ_ENTRIES))
        left -= len(block)
        for name, _, _, size in struct.iter_unpack("<4sIII", block[: len(block) // 16 * 16]):
            if name[2:] in {b"dc", b"db"} and name[:2].isdigit():
                yield int(name[:2]), size
        if len(block) < 16:
            return
