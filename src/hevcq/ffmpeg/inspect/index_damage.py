"""Compare what a container's header and index promise with what the demuxer found.

Some demuxers skip what they cannot read without a word: an AVI or WMV with a broken piece decodes with a
frame less, and an MP4 or Matroska file that lost its last bytes with a shorter last frame.

A small AVI has one index, `idx1`. One of more than about a gigabyte has several parts (`RIFF AVIX`), an
index for each piece (`ix00`), and a list of those in its header (`indx`): OpenDML AVI File Format
Extensions 1.02. Entries without a size are frames that repeat the one before, which no demuxer returns.
Other layouts: Advanced Systems Format (ASF) Specification, 3.2 and 5.1; IEC 61834-2; RFC 3533.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind
from hevcq.errors import SourceDamaged
from hevcq.ffmpeg.containers import matroska, mp4
from hevcq.ffmpeg.inputs import display_name, is_url
from hevcq.ffmpeg.inspect.measure import skipped

TAIL_S = 0.5
TAIL_SHARE = 0.005
"""A track may end this much before its header says: the larger of TAIL_S seconds and 0.5 %.

On intact sample clips the largest difference is 0.09 s (an AAC track's padding)."""
INDEXED = frozenset({"mov", "matroska", "avi", "asf", "mxf", "flv"})
"""Containers whose header states a duration; for others ffprobe estimates it."""

_UNFINISHED = 0xFFFF_0000
"""Lengths from here on are placeholders of a recording that was never finished."""
_READ_ENTRIES = 4096
_OF_INDEXES, _OF_CHUNKS = 0, 1
_NO_KEY = 1 << 31
"""The bit of a size in `ix00` that says that a frame is no key frame."""
_INDX = struct.Struct("<HBBI4s")
"""Of `indx` and `ix00`: longs per entry, subtype, type, entries in use, name of the chunks."""
_INDX_BYTES = 24
_MOST_HEADER_BYTES = 1 << 22
_TOLERATED = 0.005
"""Share of frames by which a header may promise too many: writers count their last ones in several ways."""
_MOST_INDEX_BYTES = 1 << 24
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 4096
"""Last bytes of a picture in which its end is looked for: some writers pad behind it."""

Chunk = tuple[bytes, int, int]
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


def shortfall(info: MediaInfo, measured: Measurement) -> str:
    """Return what is missing compared with the header, as a clause, or ""."""
    if info.format_name.partition(",")[0] not in INDEXED:
        return ""
    for stream in info.streams:
        if stream.kind in {StreamKind.VIDEO, StreamKind.AUDIO}:
            missing = _track_shortfall(info, stream, measured)
            if missing:
                return missing
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    if info.duration_s is None or not ends:
        return ""
    claimed = info.duration_s + min(0.0, info.start_s or 0.0)
    return _late(claimed, max(ends), "the file")


def _track_shortfall(info: MediaInfo, stream: Stream, measured: Measurement) -> str:
    name = f"{stream.kind.value} stream {stream.index}"
    track = measured.track(stream.index)
    if track is None or track.packets == 0:
        # A track without samples and without a duration is odd, but misses nothing.
        claims = stream.frames or (stream.duration_s and not stream.pictureless)
        return f"{name} has no packets" if claims else ""
    if stream.duration_s is None or track.end_s is None:
        return ""
    # Matroska's DURATION tag is the end of the track; elsewhere a duration counts from its start.
    from_zero = info.format_name.startswith("matroska")
    start = 0.0 if from_zero else (track.first_pts_s or 0.0)
    return _late(stream.duration_s, track.end_s - start, name) or skipped(info, stream, track)


def _late(claimed: float, found: float, name: str) -> str:
    if claimed - found <= max(TAIL_S, TAIL_SHARE * claimed):
        return ""
    return f"{name} claims {claimed:.2f} s but ends after {found:.2f} s"


def index_damage(location: str, info: MediaInfo, measured: Measurement) -> str:
    """Return what is missing of what the index promises, as a clause, or ""; URLs are not read."""
    demuxer = info.format_name.partition(",")[0]
    look = {
        "avi": _avi, "asf": _packets, "mov": _boxes, "matroska": _segment, "dv": _end, "ogg": _end,
    }.get(demuxer)  # fmt: skip
    if look is None or is_url(location):
        return ""
    with open(location, "rb") as file:
        return look(file, info, measured)


def require_single(location: str, info: MediaInfo) -> None:
    """Raise SourceDamaged if a second video lies behind the one that ffmpeg reads; URLs are not read."""
    demuxer = info.format_name.partition(",")[0]
    if is_url(location) or demuxer not in {"mov", "asf"}:
        return
    with open(location, "rb") as file:
        look = mp4.second_video if demuxer == "mov" else second_asf
        at = look(file, _size(file))
    if at:
        raise SourceDamaged(
            f"{display_name(location)} is not sound: it holds a second video behind the first"
            f" (from byte {at}), which would be lost.",
            remedy=f"Split it there (head -c {at} FILE > FIRST; tail -c +{at + 1} FILE > SECOND),"
            " and encode both files.",
        )


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _avi(file: BinaryIO, info: MediaInfo, measured: Measurement) -> str:
    """Compare the frames that the indexes name, without the empty ones that repeat a picture."""
    tracks = (measured.track(stream.index) for stream in info.of_kind(StreamKind.VIDEO))
    found = {track.index: track.packets + track.discarded for track in tracks if track is not None}
    return missing_frames(file, _size(file), found)


def _boxes(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    """Look whether the media of an MP4 or MOV ends after the file does."""
    size = _size(file)
    media = (box for box in mp4.headers(file, 0, size) if box.kind == b"mdat")
    return next((_short(box.end - size) for box in media if box.end > size), "")


def _segment(file: BinaryIO, _info: MediaInfo, measured: Measurement) -> str:
    """Look whether the segment of a Matroska file ends after the file does, and whether its Cues hold."""
    size = _size(file)
    tops = matroska.headers(file, 0, size)
    segment = next((top for top in tops if top.number == matroska.SEGMENT), None)
    short = _short(segment.end - size) if segment is not None else ""
    ends = [track.end_s for track in measured.tracks if track.end_s is not None]
    return short or matroska.broken_cues(file, size, max(ends, default=None))


def _end(file: BinaryIO, info: MediaInfo, _measured: Measurement) -> str:
    """Look whether a file without an index ends inside a frame of DV or a page of Ogg."""
    look = ends_inside_frame if info.format_name == "dv" else ends_inside_page
    size = _size(file)
    file.seek(0)
    return look(file, size)


def _short(missing: int) -> str:
    return f"its last {missing} bytes are missing" if missing > 0 else ""


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
    if index is None or index[2] < _INDX_BYTES:
        return ""
    file.seek(index[1])
    _, _, kind, used, _ = _INDX.unpack(file.read(_INDX.size))
    if kind == _OF_CHUNKS:
        _count(promised, ((number, length) for length in _sizes(file, index)))
    if kind != _OF_INDEXES:
        return ""
    file.seek(index[1] + _INDX_BYTES)
    table = file.read(min(16 * used, index[2] - _INDX_BYTES))
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
    _, _, _, used, _ = _INDX.unpack(file.read(_INDX.size))
    file.seek(part[1] + _INDX_BYTES)
    table = file.read(min(8 * used, max(0, part[2] - _INDX_BYTES)))
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


def _packets(file: BinaryIO, _info: MediaInfo, _measured: Measurement) -> str:
    """Return which data packets are missing, or begin unlike all others, as a clause, or ""."""
    size = _size(file)
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


def second_asf(file: BinaryIO, size: int) -> int:
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
    return mp4.container_behind(file, at, size) if seen else 0


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
