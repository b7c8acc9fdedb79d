"""Compare what a container's own index promises with what its demuxer found.

Some demuxers skip what they cannot read without a word: an AVI or WMV with a broken piece decodes
with a frame less, and an MP4 or Matroska file that lost its last bytes with a shorter last frame.
The containers count, so the loss can be told without decoding.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind
from hevcq.ffmpeg.containers import matroska, mp4
from hevcq.ffmpeg.inputs import is_url

_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
"""GUIDs of the File Properties and the Data object (Advanced Systems Format, 3.2 and 5.1)."""
_ASF_HEAD_BYTES = 1 << 20
_BROADCAST = 1
_UNFINISHED = 0xFFFF_0000
"""Lengths from here on are placeholders of a recording that was never finished."""
_READ_ENTRIES = 4096


def index_damage(location: str, info: MediaInfo, measured: Measurement) -> str:
    """Return what is missing of what the index promises, as a clause, or ""; URLs are not read."""
    demuxer = info.format_name.partition(",")[0]
    look = {"avi": _avi, "asf": _asf, "mov": _boxes, "matroska": _segment}.get(demuxer)
    if look is None or is_url(location):
        return ""
    with open(location, "rb") as file:
        return look(file, info, measured)


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _avi(file: BinaryIO, info: MediaInfo, measured: Measurement) -> str:
    """Compare the frames that `idx1` names, without the empty ones that repeat a picture."""
    promised: Counter[int] = Counter()
    for name, begin, length in _chunks(file):
        if name == b"RIFF" and begin > 8:
            return ""  # OpenDML: idx1 names the frames of the first part only
        missing = begin + length - _size(file)
        if name == b"RIFF" and missing > 1:
            return "" if length >= _UNFINISHED else _short(missing)
        if name == b"idx1":
            promised.update(number for number, size in _entries(file, begin, length) if size)
    for stream in info.of_kind(StreamKind.VIDEO):
        track, named = measured.track(stream.index), promised[stream.index]
        if track is not None and track.packets + track.discarded < named:
            found = track.packets + track.discarded
            return f"its index names {named} frames, but {found} can be read"
    return ""


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and length of the chunks of an AVI, inside its first RIFF and after it."""
    end, at = _size(file), 0
    while at + 12 <= end:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        yield name, at + 8, length
        # The RIFF of a file is entered; lists of headers and frames are passed over.
        at += 12 if at == 0 else 8 + length + (length & 1)


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


def _asf(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    """Look for data packets that are missing, or that do not begin as all others do."""
    head = file.read(_ASF_HEAD_BYTES)
    facts, data = head.find(_ASF_FILE), head.find(_ASF_DATA)
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
    whole = (min(_size(file), data + length) - first) // smallest
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


def _boxes(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    """Look whether the media of an MP4 or MOV ends after the file does."""
    size = _size(file)
    media = (box for box in mp4.headers(file, 0, size) if box.kind == b"mdat")
    return next((_short(box.end - size) for box in media if box.end > size), "")


def _segment(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    """Look whether the segment of a Matroska file ends after the file does."""
    size = _size(file)
    tops = matroska.headers(file, 0, size)
    return next((_short(top.end - size) for top in tops if top.number == matroska.SEGMENT), "")


def _short(missing: int) -> str:
    return f"its last {missing} bytes are missing" if missing > 0 else ""
