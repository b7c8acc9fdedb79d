"""Join the parts of a program stream (VOB, MPG) whose clock begins anew, as in titles that were joined.

A copy of the same packets is written in which the times of each part are moved by one number, the
same for the clock, picture, sound and text (ISO/IEC 13818-1, 2.5.3; 11172-1, 2.4.3). A part must begin
with a picture that needs none before it. It is the copy that is encoded and judged.
"""

from __future__ import annotations

import os
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.profile import Policies
from hevcq.errors import MediaRefused, Stopped
from hevcq.ffmpeg.inputs import FfmpegTools, display_name, is_url
from hevcq.ffmpeg.inspect.joined import (
    Recording,
    last_time,
    packets_from,
)
from hevcq.ffmpeg.inspect.parts import EACH_BY_ITSELF, joints_words, out_of_step, refuse_jumps
from hevcq.ffmpeg.inspect.recording import HEAD_PACKETS, copying
from hevcq.ffmpeg.inspect.transport_stream import (
    CLOCK_HZ,
    FORWARD_S,
    START_CODE,
    WHOLE_BYTES,
    WRAP,
    Run,
    Units,
    jumps,
    read_time,
    runs_of,
    sampled_length,
    step,
    write_time,
)
from hevcq.ports.encoder import COPIED_AS, TrimmedSource

PACK, END, PRIVATE = 0xBA, 0xB9, 0xBD
TAIL_BYTES = 4 << 20
"""Bytes at the end of a part in which the last picture and sound are."""
HEAD_BYTES = 1 << 20
_GROUP, _PICTURE = b"\x00\x00\x01\xb8", b"\x00\x00\x01\x00"
_PACK = re.compile(rb"\x00\x00\x01\xba(?:[\x44-\x7f]|[\x21-\x2f]).{9}", re.DOTALL)
_VIDEOS = range(0x1E0, 0x1F0)
HEAD_UNITS = 300
"""Demuxed packets of a stream among which its first time is."""
_SUBPICTURES = range(0x20, 0x40)


@dataclass(slots=True)
class Packs:
    """The timed packets of a program stream by stream, at the places of their packs in bytes.

    Streams have the numbers that ffprobe shows. `anew` are the packs before which the clock jumps.
    """

    units: dict[int, Units] = field(default_factory=dict)
    anew: list[int] = field(default_factory=list)

    @property
    def shown(self) -> set[int]:
        """The streams of picture and sound."""
        return {number for number in self.units if number not in _SUBPICTURES}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part: where it begins in bytes, and when its streams begin and end, in ticks."""

    begin: int
    starts: dict[int, int]
    stops: dict[int, int]
    move: int = 0


def joined_program_stream(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    policies: Policies,
    folder: Path,
    stop: threading.Event,
) -> TrimmedSource | None:
    """Write a program stream with one clock to `folder`; None if it has one, or cannot be followed.

    Raises MediaRefused if its parts do not fit together or the policy refuses them, Stopped once
    `stop` is set, DiskFull, and OSError.
    """
    if is_url(location) or info.format_name != "mpeg":
        return None
    found = read_packs(location, stop)
    video = min((number for number in found.units if number in _VIDEOS), default=-1)
    runs = runs_of(video, found.units.get(video, Units()))
    if len(runs) < 2:
        return None
    size = os.stat(location).st_size  # noqa: PTH116 - any bytes a name can hold
    borders = [0, *(_border(found, one, other) for one, other in pairwise(runs)), size]
    recording = Recording(tools, location, (0, 0), folder, stop, trims=False)
    pieces = _one_after_another(
        [_piece(recording, found, span) for span in pairwise(borders)], location
    )
    shown = [(each.starts[video] + each.move) % WRAP for each in pieces]
    times = [step(shown[0], begin) / CLOCK_HZ for begin in shown[1:]]
    refuse_jumps(location, policies, times)
    for each in pieces[1:]:
        _require_closed(location, each.begin, video)
    path = folder / f"{COPIED_AS}.mpg"
    with copying(location, path, "joined") as (source, target):
        _write(source, target, pieces, stop)
    _prove(recording, path, found, pieces)
    ends = [(each.stops[video] + each.move) % WRAP for each in pieces]
    held = max(step(end, begin) for end, begin in zip(ends[:-1], shown[1:], strict=True))
    return TrimmedSource(path=path, notices=(joints_words(times, held / CLOCK_HZ),))


def joint_times(location: str, stop: threading.Event) -> list[float]:
    """Return about when the clock of a program stream jumps, in seconds. Raises Stopped, and OSError."""
    return _lengths(location, stop)[:-1]


def _lengths(location: str, stop: threading.Event) -> list[float]:
    """Return about when each part of a program stream ends, in seconds from the beginning."""
    units = read_packs(location, stop).units
    video = units.get(min((number for number in units if number in _VIDEOS), default=-1), Units())
    lasting = (step(video.times[r.first], video.times[r.after - 1]) for r in runs_of(-1, video))
    return [ticks / CLOCK_HZ for ticks in accumulate(lasting)]


def length_over_jumps(location: str) -> float | None:
    """Return about how many seconds a program stream lasts whose clock jumps; None if it does not, or for a URL.

    A large one is looked at in some places.
    """
    size = 0 if is_url(location) else os.stat(location).st_size  # noqa: PTH116 - any bytes
    if size > WHOLE_BYTES:
        return sampled_length(location, (0, 1), size, _clocks_at)
    ends = _lengths(location, threading.Event()) if size else []
    return ends[-1] if len(ends) > 1 else None


def _clocks_at(
    file: BinaryIO, place: int, count: int, _layout: tuple[int, int]
) -> dict[int, Units]:
    """Return the clocks of the packs that begin in so many bytes from a place on, as of one stream."""
    file.seek(place)
    data, units = file.read(count), Units()
    for hit in _PACK.finditer(data):
        units.places.append(place + hit.start())
        units.times.append(_clock(hit.group()))
    return {0: units} if units.times else {}


def read_packs(location: str, stop: threading.Event) -> Packs:
    """Read all times of a program stream; nothing of one whose packets do not follow each other."""
    found, pack, clock = Packs(), 0, -1
    with open(location, "rb") as file:
        for place, data in _pieces(file, stop):
            if data is None:
                return Packs()
            if data[3] == PACK:
                own = _clock(data)
                if clock >= 0 and not 0 <= step(clock, own) < FORWARD_S * CLOCK_HZ:
                    found.anew.append(place)
                pack, clock = place, own
                continue
            number, at = _times_at(data)
            if not at:
                continue
            units = found.units.setdefault(number, Units())
            units.places.append(pack)
            units.times.append(read_time(data, at[-1]))
            units.decoding = units.decoding or len(at) > 1
    return found


def _pieces(file: BinaryIO, stop: threading.Event) -> Iterator[tuple[int, bytes | None]]:
    """Yield each pack's header and each packet with its place; None where no packet begins."""
    place = 0
    while head := file.read(6):
        if stop.is_set():
            raise Stopped
        if head[:3] != START_CODE or len(head) < 6 or head[3] < END:
            # The end code may be the last four bytes.
            yield place, head if head[:4] == START_CODE + bytes([END]) else None
            return
        if head[3] == END:
            file.seek(-2, os.SEEK_CUR)
            data = head[:4]
        elif head[3] == PACK and head[4] >> 6 == 1:
            data = head + file.read(8)
            data += file.read(data[13] & 7 if len(data) == 14 else 0)
        elif head[3] == PACK:
            data = head + file.read(6)
        else:
            data = head + file.read(int.from_bytes(head[4:], "big"))
        yield place, data
        place += len(data)


def _clock(pack: bytes) -> int:
    """Return the clock of a pack's header, in ticks."""
    if pack[4] >> 6 != 1:
        return read_time(pack, 4)
    bits = int.from_bytes(pack[4:10], "big")
    return (bits >> 43 & 7) << 30 | (bits >> 27 & 0x7FFF) << 15 | bits >> 11 & 0x7FFF


def _times_at(data: bytes) -> tuple[int, tuple[int, ...]]:
    """Return the stream of a packet, and where in it presentation and decoding time are, if they are."""
    code, at = data[3], 6
    if not (0xC0 <= code <= 0xEF or code == PRIVATE) or len(data) < 20:
        return 0, ()
    if data[6] >> 6 == 2:
        inner = 9 + data[8]
        number = data[inner] if code == PRIVATE and inner < len(data) else 0x100 | code
        return number, {2: (9,), 3: (9, 14)}.get(data[7] >> 6, ())
    while at < 15 and data[at] == 0xFF:
        at += 1
    at += 2 if data[at] >> 6 == 1 else 0
    return 0x100 | code, {2: (at,), 3: (at, at + 5)}.get(data[at] >> 4, ())


def _border(found: Packs, one: Run, other: Run) -> int:
    """Return the pack with which the next part begins: the first with the new clock."""
    places = found.units[one.pid].places
    old, new = places[one.after - 1], places[other.first]
    return max((place for place in found.anew if old < place <= new), default=new)


def _piece(recording: Recording, found: Packs, span: tuple[int, int]) -> _Piece:
    """Return a part with the first and the last time of each stream, as ffprobe computes them."""
    begin, end = span
    heads = packets_from(recording, recording.location, begin, HEAD_PACKETS)
    tail = recording.folder / "tail.mpg"
    packs = max((units.places for units in found.units.values()), key=len)
    start = packs[min(bisect_left(packs, max(begin, end - TAIL_BYTES)), len(packs) - 1)]
    with open(recording.location, "rb") as source, tail.open("wb") as target:
        source.seek(start)
        target.write(source.read(end - start))
    tails = packets_from(recording, str(tail), 0, 0)
    tail.unlink()
    starts, stops = dict[int, int](), dict[int, int]()
    for number in found.shown:
        times = [
            packet.pts
            for packet in heads.get(number, [])[:HEAD_UNITS]
            if packet.pts is not None and (packet.place is None or packet.place < end)
        ]
        last = last_time(tails.get(number, []), number in _VIDEOS)
        if times and last is not None:
            starts[number], stops[number] = min(times) % WRAP, last % WRAP
    return _Piece(begin, starts, stops)


def _one_after_another(pieces: list[_Piece], location: str) -> list[_Piece]:
    """Return the parts with their moves: none begins before the one before it has ended in all streams."""
    moved = pieces[:1]
    for piece in pieces[1:]:
        before = moved[-1]
        if piece.starts.keys() != before.starts.keys() or not piece.starts:
            raise MediaRefused(
                f"{display_name(location)}: it was joined from parts with different tracks, which one "
                "video cannot hold.",
                remedy=EACH_BY_ITSELF,
            )
        later = max(step(piece.starts[each], before.stops[each]) for each in piece.starts)
        moved.append(replace(piece, move=(before.move + later) % WRAP))
    return moved


def _require_closed(location: str, begin: int, video: int) -> None:
    """Raise MediaRefused if the first pictures of a part may need some before it."""
    unit = b""
    with open(location, "rb") as file:
        file.seek(begin)
        for place, data in _pieces(file, threading.Event()):
            if data is None or place > HEAD_BYTES:
                break
            if 0x100 | data[3] == video:
                unit += data[6:]
    group, picture = unit.find(_GROUP), unit.find(_PICTURE)
    if 0 <= group < picture < len(unit) - 6:
        # Its number in the order of display is 0, or the group says that it is closed.
        first = unit[picture + 4] == 0 and unit[picture + 5] >> 6 == 0
        if (unit[group + 7] & 0x40 or first) and unit[picture + 5] >> 3 & 7 == 1:
            return
    raise MediaRefused(
        f"{display_name(location)}: its clock begins anew inside a group of pictures, of which some"
        " cannot be decoded.",
        remedy=EACH_BY_ITSELF,
    )


def _write(source: BinaryIO, target: BinaryIO, pieces: list[_Piece], stop: threading.Event) -> None:
    """Copy all packets, each with its times moved as its part is."""
    begins = [each.begin for each in pieces]
    for place, data in _pieces(source, stop):
        if data is None:
            raise OSError("the recording changed while it was read")
        move = pieces[bisect_right(begins, place) - 1].move
        target.write(_with_times(data, move) if move else data)


def _with_times(data: bytes, move: int) -> bytes:
    """Return a pack's header or a packet with its times moved."""
    made = bytearray(data)
    if data[3] != PACK:
        for at in _times_at(data)[1]:
            write_time(made, at, (read_time(data, at) + move) % WRAP)
    elif data[4] >> 6 != 1:
        write_time(made, 4, (_clock(data) + move) % WRAP)
    else:
        clock, bits = (_clock(data) + move) % WRAP, int.from_bytes(data[4:10], "big")
        bits &= ~(7 << 43 | 0x7FFF << 27 | 0x7FFF << 11)
        bits |= (clock >> 30) << 43 | (clock >> 15 & 0x7FFF) << 27 | (clock & 0x7FFF) << 11
        made[4:10] = bits.to_bytes(6, "big")
    return bytes(made)


def _prove(recording: Recording, path: Path, found: Packs, pieces: list[_Piece]) -> None:
    """Read the copy again: each time must be the computed one, and the clock of no stream may jump."""
    made, begins = read_packs(str(path), recording.stop), [each.begin for each in pieces]
    for number, units in found.units.items():
        expected = [
            (time + pieces[bisect_right(begins, place) - 1].move) % WRAP
            for place, time in zip(units.places, units.times, strict=True)
        ]
        own = made.units.get(number, Units())
        # The first pictures of a part are decoded while the last ones before it are shown.
        own.decoding = False
        odd = number in made.shown and jumps(own, reorders=True)
        if list(own.times) != expected or odd:
            raise out_of_step(recording.location)
