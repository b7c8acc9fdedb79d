"""Read fragmented MP4 of one track: its codec as HLS names it, and where each fragment is.

Box layouts: ISO/IEC 14496-12 (moof, tfhd, tfdt, trun), 14496-15 (avcC, hvcC), 14496-1 (esds). Codec names: RFC 6381
and ISO/IEC 14496-15, annex E. Playlists are written from the result, so an unexpected box raises ValueError,
unlike in the readers of metadata.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import add
from pathlib import Path
from typing import BinaryIO

from hevcq.ffmpeg.containers.mp4 import Box, children

_NOT_SYNC = 0x00010000
"""The flag of a sample that depends on others (14496-12, 8.8.3.1)."""
_MAX_BOX_BYTES = 1 << 22
"""Largest box that is read; the moof of 10 s at 240 frames a second has 40 KiB."""
_IDR = {"avc1": frozenset({5}), "hvc1": frozenset({19, 20})}
"""NAL unit types of IDR pictures: decoding may start there without anything before them."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One moof with its media. Places are bytes of the file, times are in ticks.

    `decoded` is the decoding time of the first sample, `shown` its presentation time, shifted by the edit list.
    `last_shown` is when the last picture begins, and `shown_end` when it ends: uneven times do not tell how long it
    stays, so the shortest sample counts. `duration` is the sum of the samples' durations. The first sample is at
    `first_at` to `first_end`; `time_at` is where the decoding time is stored.
    """

    start: int
    end: int
    decoded: int
    shown: int
    last_shown: int
    shown_end: int
    duration: int
    samples: int
    first_at: int
    first_end: int
    sync: bool
    time_at: int


@dataclass(frozen=True, slots=True)
class FragmentedFile:
    """A fragmented MP4 of one track; its first `head` bytes are the initialization."""

    size: int
    head: int
    timescale: int
    codec: str
    width: int
    height: int
    channels: int
    fragments: tuple[Fragment, ...]

    @property
    def seconds(self) -> float:
        return sum(f.duration for f in self.fragments) / self.timescale

    @property
    def samples(self) -> int:
        return sum(f.samples for f in self.fragments)


def read_fragments(path: Path) -> FragmentedFile:
    """Read a fragmented MP4 of one track.

    Raises ValueError if it is none, or has bytes between or after its fragments, and OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            boxes = list(children(file, 0, size))
            if not boxes or boxes[-1].end != size:
                raise ValueError("it ends in the middle of a box")
            index = _index(file, _only(boxes, b"moov"))
            fragments = tuple(_fragments(file, boxes, index))
        except (struct.error, IndexError) as error:
            raise ValueError("a box is cut short") from error
    if not fragments:
        raise ValueError("it has no fragments")
    gaps = any(one.end != other.start for one, other in pairwise(fragments))
    if gaps or fragments[-1].end != size:
        raise ValueError("it has bytes that belong to no fragment")
    return replace(index.file, size=size, head=fragments[0].start, fragments=fragments)


def delay_fragments(path: Path, file: FragmentedFile, ticks: int) -> FragmentedFile:
    """Shift the times of all fragments by `ticks`, in the file at `path` itself; return its new content.

    ffmpeg can only write an edit list with a gap. Browsers ignore that, and the picture would come early.
    """
    fragments = tuple(
        replace(
            f,
            decoded=f.decoded + ticks,
            shown=f.shown + ticks,
            last_shown=f.last_shown + ticks,
            shown_end=f.shown_end + ticks,
        )
        for f in file.fragments
    )
    with path.open("r+b") as target:
        for fragment in fragments:
            target.seek(fragment.time_at)
            target.write(struct.pack(">Q", fragment.decoded))
    return replace(file, fragments=fragments)


def starts_with_idr(file: BinaryIO, fragment: Fragment, codec: str) -> bool:
    """Whether the first picture of a fragment is an IDR picture."""
    types = _IDR.get(codec[:4])
    if types is None:
        return False
    file.seek(fragment.first_at)
    data = file.read(fragment.first_end - fragment.first_at)
    at = 0
    while at + 5 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        is_avc = codec.startswith("avc1")
        kind = data[at + 4] & 0x1F if is_avc else data[at + 4] >> 1 & 0x3F
        if kind in (range(1, 6) if is_avc else range(32)):  # a picture
            return kind in types
        at += 4 + length
    return False


def _only(boxes: list[Box], kind: bytes) -> Box:
    matches = [box for box in boxes if box.kind == kind]
    if len(matches) != 1:
        raise ValueError(f"it has {len(matches)} {kind.decode('latin-1')} boxes, not one")
    return matches[0]


def _inside(file: BinaryIO, box: Box, *path: bytes) -> Box:
    """Return the box at the end of a path of kinds below `box`; each must be there once."""
    for kind in path:
        box = _only(list(children(file, box.payload, box.end)), kind)
    return box


def _payload(file: BinaryIO, box: Box) -> bytes:
    if box.end - box.payload > _MAX_BOX_BYTES:
        raise ValueError(f"its {box.kind.decode('latin-1')} box is too large")
    file.seek(box.payload)
    return file.read(box.end - box.payload)


@dataclass(frozen=True, slots=True)
class _FragmentIndex:
    """The index: the file's facts, the edit list's shift in ticks, and default duration, size and flags of samples."""

    file: FragmentedFile
    edit: int
    defaults: tuple[int, int, int]


def _index(file: BinaryIO, moov: Box) -> _FragmentIndex:
    media = _inside(file, moov, b"trak", b"mdia")
    header = _payload(file, _inside(file, media, b"mdhd"))
    (timescale,) = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)
    if not timescale:
        raise ValueError("its track has no time scale")
    table = _inside(file, media, b"minf", b"stbl", b"stsd")
    (entry,) = children(file, table.payload + 8, table.end)
    trex = _payload(file, _inside(file, moov, b"mvex", b"trex"))
    duration, size, flags = struct.unpack_from(">3I", trex, 12)
    width = height = channels = 0
    if entry.kind in _SOUNDS:
        box, read = _SOUNDS[entry.kind]
        codec, channels = read(_payload(file, _after(file, entry, 28, box)))
    else:
        fixed = _payload(file, entry)
        width, height = struct.unpack_from(">2H", fixed, 24)
        codec = _video_codec(file, entry)
    facts = FragmentedFile(0, 0, timescale, codec, width, height, channels, ())
    return _FragmentIndex(facts, _edit(file, moov), (duration, size, flags))


def _edit(file: BinaryIO, moov: Box) -> int:
    """Return by how many ticks the edit list shows every sample earlier; players support one edit only."""
    track = _inside(file, moov, b"trak")
    lists = [box for box in children(file, track.payload, track.end) if box.kind == b"edts"]
    if not lists:
        return 0
    edits = _payload(file, _inside(file, lists[0], b"elst"))
    count = struct.unpack_from(">I", edits, 4)[0]
    start: int = struct.unpack_from(">8xq" if edits[0] else ">4xi", edits, 8)[0] if count else 0
    if count > 1 or start < 0:
        raise ValueError(f"its edit list has {count} edits, of which players know one")
    return start


def _after(file: BinaryIO, entry: Box, fixed: int, kind: bytes) -> Box:
    return _only(list(children(file, entry.payload + fixed, entry.end)), kind)


def _video_codec(file: BinaryIO, entry: Box) -> str:
    if entry.kind == b"avc1":
        record = _payload(file, _after(file, entry, 78, b"avcC"))
        if record[4] & 3 != 3:
            raise ValueError("its NAL units have no lengths of four bytes")
        return f"avc1.{record[1:4].hex()}"
    if entry.kind == b"hvc1":
        return hevc_name(_payload(file, _after(file, entry, 78, b"hvcC")))
    raise ValueError(f"its codec is {entry.kind.decode('latin-1')}, which is not known for HLS")


def hevc_name(record: bytes) -> str:
    space = ["", "A", "B", "C"][record[1] >> 6]
    tier = "H" if record[1] & 0x20 else "L"
    (compatible,) = struct.unpack_from(">I", record, 2)
    turned = int(f"{compatible:032b}"[::-1], 2)
    constraints = record[6:12].rstrip(b"\0")
    parts = [f"hvc1.{space}{record[1] & 0x1F}", f"{turned:X}", f"{tier}{record[12]}"]
    return ".".join([*parts, *(f"{byte:X}" for byte in constraints)])


def _aac(esds: bytes) -> tuple[str, int]:
    """Return codec name and channels of AAC from its elementary stream descriptor.

    The sample entry always says two channels (14496-14, 5.6.1).
    """
    at, end = 4, len(esds)
    kind = 0
    while at + 2 <= end:
        tag, at = esds[at], at + 1
        size = 0
        while True:
            byte, at = esds[at], at + 1
            size = size << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if tag == 3:  # ES_Descriptor: id and flags stand before its children
            at += 3
        elif tag == 4:  # DecoderConfigDescriptor
            kind, at = esds[at], at + 13
        elif tag == 5:  # DecoderSpecificInfo
            channels = esds[at + 1] >> 3 & 0xF
            return f"mp4a.{kind:x}.{esds[at] >> 3}", 8 if channels == 7 else channels
        else:
            at += size
    raise ValueError("its sound does not say how it is decoded")


def _ac3(box: bytes) -> tuple[str, int]:
    """Return codec name and channels of AC-3 from its dac3 box (ETSI TS 102 366, F.4)."""
    return "ac-3", _AC3_CHANNELS[box[1] >> 3 & 7] + (box[1] >> 2 & 1)


def _eac3(box: bytes) -> tuple[str, int]:
    """Return codec name and channels of E-AC-3 from its dec3 box (ETSI TS 102 366, F.6)."""
    return "ec-3", _AC3_CHANNELS[box[3] >> 1 & 7] + (box[3] & 1)


_AC3_CHANNELS = (2, 1, 2, 3, 3, 4, 4, 5)
"""Channels of AC-3 by its mode (acmod), without the low-frequency channel."""
_SOUNDS = {b"mp4a": (b"esds", _aac), b"ac-3": (b"dac3", _ac3), b"ec-3": (b"dec3", _eac3)}
"""Sample entries of sounds: the box with the decoder's configuration, and its reader."""


def _fragments(file: BinaryIO, boxes: list[Box], index: _FragmentIndex) -> Iterator[Fragment]:
    for box, media in pairwise(boxes):
        if box.kind == b"moof":
            if media.kind != b"mdat":
                raise ValueError("a fragment has no media")
            yield _fragment(file, box, media, index)


def _fragment(file: BinaryIO, moof: Box, media: Box, index: _FragmentIndex) -> Fragment:
    part = _inside(file, moof, b"traf")
    header = _payload(file, _inside(file, part, b"tfhd"))
    time = _inside(file, part, b"tfdt")
    times = _payload(file, time)
    if times[0] != 1:
        raise ValueError("the time of a fragment has no 64 bits")
    decoded = struct.unpack_from(">Q", times, 4)[0]
    runs = [box for box in children(file, part.payload, part.end) if box.kind == b"trun"]
    if len(runs) != 1:
        raise ValueError(f"a fragment has {len(runs)} runs of samples, not one")
    run = _Run(_payload(file, runs[0]), _defaults(header, index))
    first_at = moof.start + run.offset
    if first_at != media.payload or first_at + run.bytes != media.end:
        raise ValueError("the samples of a fragment do not fill its media")
    return Fragment(
        start=moof.start,
        end=media.end,
        decoded=decoded,
        shown=decoded + run.first_delay - index.edit,
        last_shown=decoded + run.last_delay - index.edit,
        shown_end=decoded + run.last_delay + run.shortest - index.edit,
        duration=run.duration,
        samples=run.count,
        first_at=first_at,
        first_end=first_at + run.first_size,
        sync=not run.first_flags & _NOT_SYNC,
        time_at=time.payload + 4,
    )


def _defaults(header: bytes, index: _FragmentIndex) -> tuple[int, int, int]:
    flags = int.from_bytes(header[1:4], "big")
    at = 8 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0)
    values = list(index.defaults)
    for number, flag in enumerate((0x8, 0x10, 0x20)):
        if flags & flag:
            (values[number],) = struct.unpack_from(">I", header, at)
            at += 4
    return values[0], values[1], values[2]


class _Run:
    """The sums, and the first sample, of a fragment's run of samples."""

    def __init__(self, run: bytes, defaults: tuple[int, int, int]) -> None:
        flags = int.from_bytes(run[1:4], "big")
        (self.count,) = struct.unpack_from(">I", run, 4)
        if not self.count or not flags & 1:
            raise ValueError("a fragment has no samples, or does not say where they are")
        (self.offset,) = struct.unpack_from(">i", run, 8)
        at = 12
        first_flags = defaults[2]
        if flags & 4:
            (first_flags,) = struct.unpack_from(">I", run, at)
            at += 4
        given = [place for place in range(4) if flags & (0x100 << place)]
        layout = "".join("i" if place == 3 else "I" for place in given)
        sizes = defaults[1] * self.count
        rows = list(struct.iter_unpack(f">{layout}", run[at:])) if given else []
        if given and len(rows) != self.count:
            raise ValueError("a fragment lists fewer samples than it has")
        columns = dict(zip(given, zip(*rows, strict=True), strict=True)) if rows else {}
        lengths = columns[0] if 0 in columns else (defaults[0],) * self.count
        delays = columns[3] if 3 in columns else (0,) * self.count
        times = (0, *accumulate(lengths))
        self.last_delay = max(map(add, times, delays))
        self.shortest = min(lengths)
        self.duration = times[-1]
        self.bytes = sum(columns[1]) if 1 in columns else sizes
        self.first_size = columns[1][0] if 1 in columns else defaults[1]
        self.first_flags = columns[2][0] if 2 in columns else first_flags
        self.first_delay = columns[3][0] if 3 in columns else 0
