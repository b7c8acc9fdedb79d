"""Read a transport stream's packets: damage that its demuxer does not report, and its clocks.

A transport stream has no header with a duration. Three signs of damage are certain: it ends inside a
packet, a payload unit of video or audio does not begin with a start code, or the packets inside one do
not count on. The demuxer drops the
incomplete packet, and appends a picture without its beginning to the one before.

Recordings that were joined (`cat one.ts two.ts`), and those of a receiver that changed its channel or
lost its signal, have a clock that jumps in the middle. A clock has 33 bits of 1/90000 s and begins
anew after 26.5 hours, which is no jump (ISO/IEC 13818-1, 2.4.2.2 and 2.4.3.7).
"""

from __future__ import annotations

import os
import re
import threading
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, starmap
from statistics import median
from typing import BinaryIO

from hevcq.errors import Stopped
from hevcq.ffmpeg.containers.unindexed import lost_packets, packet_layouts
from hevcq.ffmpeg.inputs import is_url

PACKETS_READ = 32_768
SYNC = 0x47
_BEGINS = re.compile(rb"[\x40-\x7f]")
"""The second byte of a packet that starts a payload unit and has no transport error indicator."""
START_CODE = b"\x00\x00\x01"

CLOCK_HZ = 90_000
WRAP = 1 << 33
FORWARD_S = 10
"""Seconds forward from which a step is a jump, as ffmpeg and players take it (dts_delta_threshold): a
shorter one is a gap in reception, whose length is true."""
REORDERED = CLOCK_HZ // 2
"""Ticks by which pictures without decoding times may go backwards."""
SPIKE_UNITS = 8
"""Units above which a run of other times is a part, and no broken time stamp."""
WHOLE_BYTES = 16 << 20
"""Bytes up to which a file is read whole for its length."""
PLACES = 32
PLACE_BYTES = 512 << 10
"""Places, and bytes at each, at which a larger one is looked at: a unit of a picture begins there."""
UNEVEN = 6
"""Times the usual step between two places above which one is looked at more closely."""
Look = Callable[[BinaryIO, int, int, tuple[int, int]], "dict[int, Units]"]
VIDEO_TYPES = frozenset({0x01, 0x02, 0x10, 0x1B, 0x24, 0x42, 0xD1, 0xEA})
_AUDIO_TYPES = frozenset({0x03, 0x04, 0x0F, 0x11, 0x81, 0x82, 0x84, 0x85, 0x86, 0x87})
_PRIVATE = 0x06
_PRIVATE_AUDIO = {0x6A: "ac3", 0x7A: "eac3", 0x7B: "dts", 0x7C: "aac"}
"""Descriptors that name the sound in a private stream (ETSI EN 300 468, table 12)."""
_LANGUAGE = 0x0A
_NEAR = 16
"""Packets after a table among which the first unit of a joined file begins."""
_TABLE_PACKETS = 4096
"""Packets after the first one of a table among which the rest of it is looked for."""


def transport_damage(location: str, stop: threading.Event) -> str:
    """Return the damage found in a transport stream, as a clause, or "".

    Skips a file that does not begin with whole packets, and a URL. Raises Stopped once `stop` is set.
    """
    if is_url(location):
        return ""
    layout = packet_layout(location)
    if layout is None:
        return ""
    first, length = layout
    if os.stat(location).st_size % length:  # noqa: PTH116 - any bytes a name can hold
        return "it ends inside a packet, so it was truncated"
    lost = _lost_start(_packets(location, first, length, stop))
    return lost or lost_packets(location, layout, stop)


def packet_layout(location: str) -> tuple[int, int] | None:
    """Return the place of the sync byte in each packet and the packets' length; None for other files."""
    return next((layout for begin, layout in packet_layouts(location) if not begin), None)


def pid_of(packet: bytes) -> int:
    """Return the PID of a packet, given from its sync byte on."""
    return (packet[1] & 0x1F) << 8 | packet[2]


def payload_begin(packet: bytes) -> int:
    """Return where the payload of a packet begins: behind the header and the adaptation field."""
    return 5 + packet[4] if packet[3] & 0x20 else 4


def _packets(location: str, first: int, length: int, stop: threading.Event) -> Iterator[bytes]:
    """Yield the packets that start a payload unit, each from its sync byte on."""
    with open(location, "rb") as file:
        while block := file.read(PACKETS_READ * length):
            if stop.is_set():
                raise Stopped
            for found in _BEGINS.finditer(block[first + 1 :: length]):
                begin = found.start() * length + first
                yield block[begin : begin + 188]


def _lost_start(packets: Iterator[bytes]) -> str:
    """Return how many payload units lost their beginning, as a clause, or "".

    Units on the PID of a video or audio stream begin with a start code; tables on other PIDs do not.
    A PID with more units without a start code than with one has changed its use and is skipped.
    """
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()
    for packet in packets:
        begins = _begins_with_start_code(packet)
        if begins is not None:
            (good if begins else bad)[pid_of(packet)] += 1
    lost = sum(count for pid, count in bad.items() if count <= good[pid])
    if not lost:
        return ""
    units = "a video or audio unit" if lost == 1 else f"{lost} video or audio units"
    return f"the beginning of {units} is broken"


def _begins_with_start_code(packet: bytes) -> bool | None:
    """Whether the unit begins with a start code; None if out of sync, scrambled or without payload."""
    if len(packet) < 188 or packet[0] != SYNC or packet[3] & 0xC0 or not packet[3] & 0x10:
        return None
    begin = payload_begin(packet)
    head = packet[begin : begin + len(START_CODE)]
    return START_CODE.startswith(head) if head else None


@dataclass(slots=True)
class Units:
    """The payload units of one PID, in file order: places in bytes, and clock times in ticks.

    The clock time is the decoding time, or the presentation time of a unit without one.
    """

    places: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    decoding: bool = False


@dataclass(frozen=True, slots=True)
class Elementary:
    """A stream as a programme's table names it: PID, kind of coding, and language."""

    pid: int
    coding: str
    language: str
    video: bool
    audio: bool


Programme = tuple[Elementary, ...]


@dataclass(slots=True)
class Clocks:
    """What one reading of a transport stream found: units by PID, and each table when it first came.

    `breaks` are places of tables at which the counters of packets begin anew, `unsynced` is that of
    the first packet without its sync byte.
    """

    units: dict[int, Units] = field(default_factory=dict)
    tables: list[tuple[int, Programme]] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    unsynced: int | None = None

    @property
    def videos(self) -> set[int]:
        """The PIDs that some table calls video, and that have units."""
        named = {e.pid for _, table in self.tables for e in table if e.video}
        return named & self.units.keys()

    @property
    def sounds(self) -> set[int]:
        """The PIDs that some table calls sound, and that have units."""
        return {e.pid for _, table in self.tables for e in table if e.audio} & self.units.keys()

    def coding(self, pid: int) -> str:
        """Return how a stream is coded, by the tables; "" if none names it."""
        return next((e.coding for _, table in self.tables for e in table if e.pid == pid), "")

    def programme(self, pid: int, begin: int, end: int) -> Programme:
        """Return the last programme with the PID that was announced before `end`, in bytes.

        Of those announced from `begin` on the first is taken: a table may come after its streams.
        """
        known = [(place, table) for place, table in self.tables if pid in {e.pid for e in table}]
        own = [table for place, table in known if begin <= place < end]
        before = [table for place, table in known if place < begin]
        return own[0] if own else before[-1] if before else ()


@dataclass(frozen=True, slots=True)
class Run:
    """Units of a video PID with a clock that runs on: the first one's number, and that after the last."""

    pid: int
    first: int
    after: int


def read_clocks(location: str, layout: tuple[int, int], stop: threading.Event) -> Clocks:
    """Read the units and tables of a transport stream. Raises Stopped once `stop` is set."""
    offset, length = layout
    found, seen = Clocks(), dict[int, bytes]()
    with open(location, "rb") as file:
        begin = 0
        while block := file.read(PACKETS_READ * length):
            if stop.is_set():
                raise Stopped
            heads = block[offset::length]
            if found.unsynced is None and (rest := heads.lstrip(b"\x47")):
                found.unsynced = begin + (len(heads) - len(rest)) * length
            for hit in _BEGINS.finditer(block[offset + 1 :: length]):
                at = hit.start() * length
                packet = block[at + offset : at + offset + 188]
                if len(packet) < 188 or packet[0] != SYNC or packet[3] & 0xC0:
                    continue
                times = unit_times(packet)
                if times is not None:
                    _count(found, pid_of(packet), begin + at, times)
                elif _is_map(packet):
                    if _begins_anew(block, at, layout, found.units.keys()):
                        found.breaks.append(begin + at)
                    if seen.get(pid_of(packet)) != packet[4:]:
                        seen[pid_of(packet)] = packet[4:]
                        section = _section(block, at, layout)
                        found.tables.append((begin + at, _programme(section)))
            begin += len(block)
    return found


def _begins_anew(block: bytes, at: int, layout: tuple[int, int], pids: Collection[int]) -> bool:
    """Whether units begin right after a table with counters that do not go on, as where files are joined."""
    offset, length = layout
    begun: dict[int, int] = {}
    for place in range(at + length, min(at + _NEAR * length, len(block) - length + 1), length):
        packet = block[place + offset : place + offset + 188]
        pid = pid_of(packet)
        if pid in pids and pid not in begun:
            if not packet[1] & 0x40 or (packet[3] & 0x20 and packet[4] and packet[5] & 0x80):
                return False
            begun[pid] = packet[3] & 0x0F
    anew, zeros = False, not any(begun.values())
    for place in range(at - length, max(-1, at - _TABLE_PACKETS * length), -length):
        header = block[place + offset : place + offset + 4]
        if not begun:
            break
        if header[3] & 0x10 and pid_of(header) in begun:
            on = (begun.pop(pid_of(header)) - header[3]) % 16 == 1
            # A unit that is not filled up goes on: packets are missing, unless all is counted from 0.
            if on or not (zeros or header[3] & 0x20):
                return False
            anew = True
    return anew


def _count(found: Clocks, pid: int, place: int, times: tuple[int, int | None]) -> None:
    units = found.units.setdefault(pid, Units())
    shown, decoded = times
    units.places.append(place)
    units.times.append(shown if decoded is None else decoded)
    units.decoding = units.decoding or decoded is not None


def unit_times(packet: bytes) -> tuple[int, int | None] | None:
    """Return presentation and decoding time of the unit that a packet begins, in ticks; None if it has none."""
    at = payload_begin(packet)
    if not packet[3] & 0x10 or packet[at : at + 3] != START_CODE or at + 14 > len(packet):
        return None
    flags = packet[at + 7]
    if packet[at + 6] & 0xC0 != 0x80 or not flags & 0x80:
        return None
    both = flags & 0x40
    if both and at + 19 > len(packet):
        return None
    return read_time(packet, at + 9), read_time(packet, at + 14) if both else None


def read_time(data: bytes, at: int) -> int:
    """Return the time of 33 bits that is stored in five bytes with marker bits."""
    return (
        (data[at] & 0x0E) << 29
        | data[at + 1] << 22
        | (data[at + 2] & 0xFE) << 14
        | data[at + 3] << 7
        | data[at + 4] >> 1
    )


def write_time(data: bytearray, at: int, time: int) -> None:
    """Store a time of 33 bits in five bytes; the marker bits, and the four above, stay as they are."""
    data[at] = data[at] & 0xF1 | time >> 29 & 0x0E
    data[at + 1] = time >> 22 & 0xFF
    data[at + 2] = data[at + 2] & 0x01 | time >> 14 & 0xFE
    data[at + 3] = time >> 7 & 0xFF
    data[at + 4] = data[at + 4] & 0x01 | time << 1 & 0xFE


def step(before: int, after: int) -> int:
    """Return the ticks from one time to another, the nearer way round the clock."""
    return (after - before + WRAP // 2) % WRAP - WRAP // 2


def _is_map(packet: bytes) -> bool:
    """Whether a packet begins a programme map: a section of table 2."""
    at = payload_begin(packet)
    return bool(packet[3] & 0x10) and at < 188 and packet[at + 1 + packet[at] :][:1] == b"\x02"


def _section(block: bytes, at: int, layout: tuple[int, int]) -> bytes:
    """Return the section that the packet at `at` begins, joined from the packets it is spread over."""
    offset, length = layout
    first = block[at + offset : at + offset + 188]
    begin = payload_begin(first)
    data = first[begin + 1 + first[begin] :]
    wanted = 3 + int.from_bytes(data[1:3], "big") % 4096
    for place in range(at + length, at + _TABLE_PACKETS * length, length):
        packet = block[place + offset : place + offset + 188]
        if len(data) >= wanted or len(packet) < 188:
            break
        if pid_of(packet) == pid_of(first) and not packet[1] & 0x40:
            data += packet[payload_begin(packet) :]
    return data[: wanted - 4]


def _programme(section: bytes) -> Programme:
    """Return the streams of a programme map (ISO/IEC 13818-1, 2.4.4.8)."""
    if len(section) < 12:
        return ()
    at, found = 12 + int.from_bytes(section[10:12], "big") % 4096, []
    while at + 5 <= len(section):
        kind, pid = section[at], int.from_bytes(section[at + 1 : at + 3], "big") & 0x1FFF
        end = at + 5 + int.from_bytes(section[at + 3 : at + 5], "big") % 4096
        descriptors = dict(_descriptors(section[at + 5 : end]))
        private = next((name for tag, name in _PRIVATE_AUDIO.items() if tag in descriptors), "")
        audio = kind in _AUDIO_TYPES or (kind == _PRIVATE and bool(private))
        language = descriptors.get(_LANGUAGE, b"")[:3].decode("latin-1")
        found.append(Elementary(pid, f"{kind:#x} {private}", language, kind in VIDEO_TYPES, audio))
        at = end
    return tuple(found)


def _descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 2 <= len(data):
        yield data[at], data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]


def jumps(units: Units, *, reorders: bool = False) -> list[int]:
    """Return the numbers of the units before which the clock jumps: backwards, or far forward."""
    back = -REORDERED if reorders and not units.decoding else 0
    return [
        number
        for number, (one, other) in enumerate(pairwise(units.times), 1)
        if not back <= step(one, other) < FORWARD_S * CLOCK_HZ
    ]


def runs_of(pid: int, units: Units, breaks: Collection[int] = ()) -> list[Run]:
    """Return the runs of a video's units between jumps and breaks; a broken time stamp begins none."""
    borders = [0, *jumps(units, reorders=True), len(units.times)]
    place = 1
    while place + 1 < len(borders) - 1:
        one, other = borders[place], borders[place + 1]
        past = step(units.times[one - 1], units.times[other])
        if other - one < SPIKE_UNITS and 0 <= past < FORWARD_S * CLOCK_HZ:
            del borders[place : place + 2]
        else:
            place += 1
    borders += [bisect_left(units.places, place) for place in breaks]
    return [Run(pid, one, other) for one, other in pairwise(sorted(set(borders))) if other > one]


def chain(clocks: Clocks, main: int) -> list[Run]:
    """Return the runs of the video that is shown, one after the other; its PID may change on the way."""
    runs = [run for pid in clocks.videos for run in runs_of(pid, clocks.units[pid], clocks.breaks)]

    def begin(run: Run) -> int:
        return clocks.units[run.pid].places[run.first]

    def end(run: Run) -> int:
        return clocks.units[run.pid].places[run.after - 1]

    runs.sort(key=begin)
    found = [run for run in runs if run.pid == main][:1]
    while found:
        later = [run for run in runs if begin(run) > end(found[-1])]
        own = next((run for run in later if run.pid == found[-1].pid), None)
        # Another video counts where this one is absent: programmes beside each other overlap.
        other = next((run for run in later if own is None or end(run) < begin(own)), None)
        following = other or own
        if following is None:
            break
        found.append(following)
    return found


def follows(clocks: Clocks, one: Run, other: Run) -> bool:
    """Return whether the clock of one run goes on in the other, at once or after a gap of seconds."""
    if one.pid != other.pid:
        return False
    times = clocks.units[one.pid].times
    return 0 <= step(times[one.after - 1], times[other.first]) < FORWARD_S * CLOCK_HZ


def length_over_jumps(location: str) -> float | None:
    """Return about how many seconds a transport stream lasts whose clock jumps; None if it does not, or for a URL.

    A large one is looked at in some places first.
    """
    layout = None if is_url(location) else packet_layout(location)
    if layout is None:
        return None
    size = os.stat(location).st_size  # noqa: PTH116 - any bytes a name can hold
    if size > WHOLE_BYTES:
        return sampled_length(location, layout, size, _units_at)
    found = read_clocks(location, layout, threading.Event())
    main = max(found.videos, key=lambda pid: len(found.units[pid].times), default=None)
    runs = chain(found, main) if main is not None else []
    if all(follows(found, one, other) for one, other in pairwise(runs)):
        return None
    times = [found.units[run.pid].times[run.first : run.after] for run in runs]
    ticks = sum(step(one, other) for part in times for one, other in pairwise(part))
    return ticks / CLOCK_HZ


def sampled_length(location: str, layout: tuple[int, int], size: int, look: Look) -> float | None:
    """Return the length by the times at places spread over the file; None if no jump is between them.

    `look` returns the units that begin in so many bytes from a place on. Where a step is odd for its
    bytes, more places are looked at, down to each unit.
    """
    length, total, jumped, far = layout[1], 0, False, FORWARD_S * CLOCK_HZ
    places = [size * number // PLACES // length * length for number in range(PLACES)]
    with open(location, "rb") as file:
        seen = [(place, look(file, place, PLACE_BYTES, layout)) for place in places]
        left = list(pairwise([*seen, (size, look(file, size - PLACE_BYTES, PLACE_BYTES, layout))]))
        steps = [_shared_step(one, other) for (_, one), (_, other) in left]
        usual = median([each for each in steps if each is not None and each > 0] or [0])
        while left:
            (begin, one), (end, other) = left.pop()
            ticks = _shared_step(one, other)
            if ticks is not None and 0 <= ticks * size <= UNEVEN * usual * PLACES * (end - begin):
                total += ticks
            elif end - begin > PLACE_BYTES:
                middle = (begin + end) // 2 // length * length
                between = middle, look(file, middle, PLACE_BYTES, layout)
                left += [((begin, one), between), (between, (end, other))]
            else:
                units = look(file, begin, end - begin, layout)
                main = max(units, key=lambda pid: len(units[pid].times), default=-1)
                times = [*units.get(main, Units()).times, *other.get(main, Units()).times[:1]]
                good = [each for each in starmap(step, pairwise(times)) if -REORDERED <= each < far]
                jumped = jumped or len(good) < len(times) - 1 or main not in other
                total += sum(good)
    return total / CLOCK_HZ if jumped else None


def _units_at(file: BinaryIO, place: int, count: int, layout: tuple[int, int]) -> dict[int, Units]:
    """Return the units of pictures that begin in so many bytes from a place on, by PID."""
    offset, length = layout
    place = place // length * length
    file.seek(place)
    data, found = file.read(count // length * length), Clocks()
    for hit in _BEGINS.finditer(data[offset + 1 :: length]):
        at = hit.start() * length
        packet = data[at + offset : at + offset + 188]
        times = unit_times(packet) if len(packet) == 188 and packet[0] == SYNC else None
        # 1110 xxxx are pictures (ISO/IEC 13818-1, table 2-22).
        if times is not None and packet[payload_begin(packet) + 3] & 0xF0 == 0xE0:
            _count(found, pid_of(packet), place + at, times)
    return found.units


def _shared_step(one: dict[int, Units], other: dict[int, Units]) -> int | None:
    """Return the step of a stream that is at both places; None if there is none."""
    pid = next(iter(one.keys() & other.keys()), None)
    return None if pid is None else step(one[pid].times[0], other[pid].times[0])
