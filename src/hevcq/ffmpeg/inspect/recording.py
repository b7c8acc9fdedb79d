"""Trim a recording to whole pictures: receivers begin between key frames and end inside a picture.

What is before the first key frame, and after the last picture that is whole, decodes nowhere; it is
counted and left out (`policies.ragged_ends`). The copy that is trimmed is what is encoded and judged,
so damage anywhere else is found in it as in any other source.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.errors import DiskFull, Stopped, is_full
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, is_url, reading
from hevcq.ffmpeg.inspect.measure import LIMITS
from hevcq.ffmpeg.inspect.transport_stream import (
    SYNC,
    packet_layout,
    payload_begin,
    pid_of,
)
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.versions import KEYED_BY_KIND, keyed, whole
from hevcq.ports.encoder import COPIED_AS, TrimmedSource
from hevcq.util.text import counted

CLOCK_HZ = 90_000
HEAD_PACKETS = 6000
"""Demuxed packets among which the first key frame must be: a minute of video with sound."""
MAX_EARLY = 600
"""Pictures before the first key frame above which a recording is not ragged but odd: 12 s at 50 a second."""
TAIL_PACKETS = 65_536
"""Transport packets, 12 MB, in which the last picture must begin."""
BLOCK_BYTES = 1 << 22
ANSWER_S = 120.0
SHORTER = "the recording became shorter while it was read"
_ADAPTATION_SIZES = ((0x10, 6), (0x08, 6), (0x04, 1))
"""Flags of the adaptation field, and the bytes that PCR, OPCR and splice countdown take in it."""


@dataclass(frozen=True, slots=True)
class HeadPacket:
    """A demuxed packet: its place in the file in bytes, time in ticks, and key flag."""

    place: int | None
    pts: int | None
    key: bool


@dataclass(frozen=True, slots=True)
class Ends:
    """Where the whole pictures of a recording begin and end, in bytes of the file.

    `leading` are the places of pictures right after the first key frame that refer to what is
    before it. `unfinished` has the place of the last unit of each PID that is not whole. `early`
    counts the pictures before the first key frame, and `torn` the bytes of a packet cut off at the end.
    """

    begin: int
    leading: frozenset[int]
    unfinished: dict[int, int]
    end: int
    early: int
    late: int
    torn: int = 0


@contextmanager
def _copying(location: str, path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a recording and its copy.

    Raises DiskFull if the copy does not fit, and OSError.
    """
    try:
        with open(location, "rb") as source, path.open("wb") as target:
            yield source, target
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskFull("The disk filled up while a recording was trimmed.") from error


def trim_recording(
    tools: FfmpegTools, location: str, info: MediaInfo, folder: Path, stop: threading.Event
) -> TrimmedSource | None:
    """Write the whole pictures of a recording to `folder`; return None if both ends are whole.

    Raises Stopped once `stop` is set, DiskFull, and OSError.
    """
    if info.format_name != "mpegts" or is_url(location):
        return None
    videos, layout = info.of_kind(StreamKind.VIDEO), packet_layout(location)
    if not videos or layout is None:
        return None
    head, pid = _head(tools, location, videos[0], stop)
    ends = _ends(location, head, (*layout, pid))
    if ends is None:
        return None
    path = folder / f"{COPIED_AS}.ts"
    with _copying(location, path) as (source, target):
        _copy(source, target, ends, (*layout, pid), stop)
    return TrimmedSource(path=path, notices=tuple(_notices(videos[0], ends)))


def _notices(video: Stream, ends: Ends) -> Iterator[str]:
    early = ends.early + len(ends.leading)
    where = f"Stream {video.index}:"
    if early:
        yield (
            f"{where} {counted(early, 'picture')} before the first whole one, with the sound until then,"
            f" {'is' if early == 1 else 'are'} left out: the recording begins between key frames."
        )
    if ends.late:
        yield f"{where} the last picture is left out: the recording ends inside it."
    elif ends.unfinished:
        yield "The last piece of sound or data is left out: the recording ends inside it."
    elif ends.torn:
        yield f"The last {ends.torn} bytes are left out: the recording ends inside a packet."


def _ends(location: str, head: list[HeadPacket], layout: tuple[int, int, int]) -> Ends | None:
    """Return where the whole pictures begin and end; None if nothing must go."""
    first = next((number for number, packet in enumerate(head) if packet.key), None)
    if first is None or first > MAX_EARLY:
        return None
    offset, length, pid = layout
    begin, leading = 0, frozenset[int]()
    if first > 0:
        key = head[first]
        if key.place is None or key.pts is None:
            return None
        begin = key.place // length * length
        following = next(
            (n for n, packet in enumerate(head) if n > first and packet.key), len(head)
        )
        leading = frozenset(
            packet.place // length * length
            for packet in head[first + 1 : following]
            if packet.pts is not None and packet.place is not None and packet.pts < key.pts
        )
    size = os.stat(location).st_size  # noqa: PTH116 - any bytes a name can hold
    whole = size // length * length
    with open(location, "rb") as file:
        unfinished = _unfinished(file, whole, (offset, length))
    if not first and not leading and not unfinished and whole == size:
        return None
    late, torn = int(pid in unfinished), size - whole
    return Ends(begin, leading, unfinished, whole, first, late, torn)


def _head(
    tools: FfmpegTools, location: str, stream: Stream, stop: threading.Event
) -> tuple[list[HeadPacket], int]:
    """Return the first packets of a stream, and its PID."""
    argv = [
        tools.ffprobe, "-v", "quiet", "-select_streams", str(stream.index),
        "-read_intervals", f"%+#{HEAD_PACKETS}", "-show_entries", "packet=pts,pos,flags:stream=id",
        "-of", KEYED_BY_KIND, *input_options(location),
    ]  # fmt: skip
    found: list[HeadPacket] = []
    pids = [-1]

    def on_line(line: str) -> None:
        kind, _, rest = line.partition("|")
        fields = keyed(rest)
        if kind == "packet":
            place, pts = (whole(fields.get(name)) for name in ("pos", "pts"))
            found.append(HeadPacket(place, pts, "K" in fields.get("flags", "")))
        elif kind == "stream" and fields.get("id", "").startswith("0x"):
            pids[0] = int(fields["id"], 16)

    run_child(
        argv,
        stop=stop,
        limits=reading(LIMITS, tools, location),
        on_line=on_line,
        deadline_s=ANSWER_S,
    )
    return found, pids[0]


def _unfinished(file: BinaryIO, end: int, layout: tuple[int, int]) -> dict[int, int]:
    """Return the place of the last unit of each PID whose unit is cut off by the end.

    A unit with a length is compared with it. One without (video) ends with a packet that is stuffed;
    a packet full to its end is followed by more.
    """
    offset, length = layout
    start = max(0, end - TAIL_PACKETS * length)
    file.seek(start)
    data = file.read(end - start)
    units: dict[int, int] = {}
    held: Counter[int] = Counter()
    wanted: dict[int, int] = {}
    full: dict[int, bool] = {}
    for at in range(0, len(data) - length + 1, length):
        packet = data[at + offset : at + offset + 188]
        if packet[0] != SYNC or not packet[3] & 0x10:
            continue
        pid, payload = pid_of(packet), packet[payload_begin(packet) :]
        if packet[1] & 0x40:
            if payload[:3] != b"\x00\x00\x01":
                continue
            units[pid], held[pid] = start + at, 0
            announced = int.from_bytes(payload[4:6], "big")
            wanted[pid] = announced + 6 if announced else 0
        held[pid] += len(payload)
        full[pid] = not _is_stuffed(packet)
    return {
        pid: place
        for pid, place in units.items()
        if (held[pid] < wanted[pid] if wanted[pid] else full[pid])
    }


def _is_stuffed(packet: bytes) -> bool:
    """Whether a packet is filled up, as only the last one of a unit is; a clock in it is no filling."""
    if not packet[3] & 0x20:
        return False
    length, flags = packet[4], packet[5]
    used = 1 + sum(size for flag, size in _ADAPTATION_SIZES if flags & flag)
    for flag in (0x02, 0x01):
        used += 1 + packet[5 + used] if flags & flag and 5 + used < 188 else 0
    return length == 0 or flags == 0 or length > used


def _read_packet(source: BinaryIO, length: int) -> bytes:
    """Read one packet. Raises OSError where the file ends before it, which was longer before."""
    packet = source.read(length)
    if len(packet) < length:
        raise OSError(SHORTER)
    return packet


def _copy(
    source: BinaryIO,
    target: BinaryIO,
    ends: Ends,
    layout: tuple[int, int, int],
    stop: threading.Event,
) -> None:
    """Copy the whole pictures: packet by packet at both ends, and in blocks between them."""
    offset, length, pid = layout
    head_end = max(ends.leading, default=ends.begin)
    if ends.leading:
        head_end = _next_unit(source, head_end + length, (offset, length, pid), ends.end)
    tail_begin = max(head_end, min(ends.unfinished.values(), default=ends.end))
    _copy_head(source, target, (ends.begin, head_end), ends.leading, layout)
    source.seek(head_end)
    left = tail_begin - head_end
    while left > 0:
        if stop.is_set():
            raise Stopped
        block = source.read(min(BLOCK_BYTES, left))
        if not block:
            raise OSError(SHORTER)
        target.write(block)
        left -= len(block)
    for place in range(tail_begin, ends.end, length):
        packet = _read_packet(source, length)
        own = pid_of(packet[offset:])
        if place < ends.unfinished.get(own, ends.end):
            target.write(packet)


def _copy_head(
    source: BinaryIO,
    target: BinaryIO,
    span: tuple[int, int],
    leading: frozenset[int],
    layout: tuple[int, int, int],
) -> None:
    """Copy the first group of pictures without those that refer to what is before it."""
    offset, length, pid = layout
    source.seek(span[0])
    dropping = False
    for place in range(span[0], span[1], length):
        packet = _read_packet(source, length)
        if pid_of(packet[offset:]) == pid:
            was = dropping
            if packet[offset + 1] & 0x40:
                dropping = place in leading
            if was and not dropping:
                target.write(announcing_gap(packet, offset))
            if dropping:
                continue
        target.write(packet)
    following = source.read(length) if dropping else b""
    if len(following) == length:
        target.write(announcing_gap(following, offset))


def _next_unit(source: BinaryIO, place: int, layout: tuple[int, int, int], end: int) -> int:
    """Return the place of the first packet from `place` on that begins a unit of the PID."""
    offset, length, pid = layout
    source.seek(place)
    while place < end:
        packet = _read_packet(source, length)
        if pid_of(packet[offset:]) == pid and packet[offset + 1] & 0x40:
            return place
        place += length
    return end


def announcing_gap(following: bytes, offset: int) -> bytes:
    """Return a packet without payload that announces a gap in the counter before `following`.

    It has the discontinuity indicator (ISO/IEC 13818-1, 2.4.3.5), so that no packet counts as lost.
    """
    counter = (following[offset + 3] - 1) & 0x0F
    head = bytes([SYNC, following[offset + 1] & 0x1F, following[offset + 2], 0x20 | counter])
    return following[:offset] + head + b"\xb7\x80" + b"\xff" * 182 + following[offset + 188 :]
