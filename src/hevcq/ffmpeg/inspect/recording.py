"""Find damage in a transport stream that its demuxer does not report, and trim its ends to whole pictures.

Three signs of damage are certain: a stream ends inside a packet, its packets leave their places, or the
packets inside a unit of video or audio do not count on. The demuxer drops what is incomplete.

Receivers begin between key frames and end inside a picture. What is before the first key frame, and after
the last whole picture, decodes nowhere; it is counted and left out. The trimmed copy is what is encoded and
judged, so damage anywhere else is found in it as in any other source.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.errors import DiskFull, MediaRefused, Stopped, is_full
from hevcq.ffmpeg.inputs import (
    KEYED_BY_KIND,
    FfmpegTools,
    display_name,
    input_options,
    int_or_none,
    is_url,
    parse_fields,
    with_read_access,
)
from hevcq.ffmpeg.inspect.measure import LIMITS
from hevcq.ffmpeg.process.child import run_child
from hevcq.ports.encoder import COPIED_AS, TrimmedSource
from hevcq.util.text import counted

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
PACKETS_READ = 32_768
SYNC = 0x47
START_CODE = b"\x00\x00\x01"
_SYNCS_CHECKED = 16
_PACKET_BYTES = ((0, 188), (4, 192), (0, 204))
"""A transport stream's sync byte and packet length: plain, with a time in front (M2TS), with parity
behind (ISO/IEC 13818-1, 2.4.3.2; Blu-ray and AVCHD; ETSI EN 300 429)."""
_SOUND_OR_PICTURE, _PICTURE = range(0xC0, 0xF0), range(0xE0, 0xF0)
"""Stream ids of sound and pictures, and of pictures alone (ISO/IEC 13818-1, table 2-22)."""
_MANNER = 50
"""Of more than one packet in so many the counter is wrong by the manner of the multiplexer."""
_FEW_PICTURES = 10
"""Pictures up to which a stream of them is a remnant."""
HeadPacket = tuple[int | None, int | None, bool]
"""A demuxed packet: its place in the file in bytes, time in ticks, and key flag."""


def transport_damage(location: str, videos: int, stop: threading.Event) -> str:
    """Return the damage found in a transport stream, as a clause, or "".

    Skips a file that does not begin with whole packets, and a URL. Raises MediaRefused if it has pictures
    in more streams than the `videos` that ffmpeg reads, Stopped once `stop` is set.
    """
    layout = None if is_url(location) else packet_layout(location)
    if layout is None:
        return ""
    if os.stat(location).st_size % layout[1]:  # noqa: PTH116 - any bytes a name can hold
        return "it ends inside a packet, so it was truncated"
    counters = _Counters(*layout)
    with open(location, "rb") as file:
        while block := file.read(PACKETS_READ * layout[1]):
            if stop.is_set():
                raise Stopped
            counters.read(block)
    if counters.unsynced is not None:
        return (
            f"at byte {counters.unsynced:,} a transport packet does not begin where the one before it"
            " ends, so bytes are missing or too many there"
        )
    if counters.videos() > videos:
        raise MediaRefused(
            f"{display_name(location)}: on the way its pictures begin to come in another stream, as where"
            " the channel was changed, and ffmpeg would leave those out.",
            remedy="Split it there, and encode each part by itself.",
        )
    lost = counters.lost()
    places = "1 place" if lost == 1 else f"{lost} places"
    return f"packets of its picture or sound are missing in {places}" if lost else ""


def packet_layout(location: str) -> tuple[int, int] | None:
    """Return the place of the sync byte in each packet and the packets' length; None for other files."""
    with open(location, "rb") as file:
        head = file.read((_SYNCS_CHECKED + 1) * max(length for _, length in _PACKET_BYTES))
    for first, length in _PACKET_BYTES:
        if head[first::length][:_SYNCS_CHECKED] == bytes([SYNC]) * _SYNCS_CHECKED:
            return first, length
    return None


def pid_of(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def payload_begin(packet: bytes) -> int:
    return 5 + packet[4] if packet[3] & 0x20 else 4


class _Counters:
    """Follows the packets of each PID by their counters, and which of them are of pictures and sound.

    The counter of a packet with payload must go on from the one before it (2.4.3.3) inside a unit; between
    two whole ones, or where it begins at 0, may be where recordings were joined. Units of video and audio
    begin with a start code, and tables do not.
    """

    def __init__(self, offset: int, length: int) -> None:
        self._offset, self._length = offset, length
        self._counters = dict[int, int]()
        self._gaps, self._packets = Counter[int](), Counter[int]()
        self._shown = set[int]()
        """The PIDs of pictures and sound."""
        self._pictures = Counter[int]()
        self.unsynced: int | None = None
        """The place in bytes of the first packet without its sync byte; zeros fill up a file."""
        self._place = 0

    def videos(self) -> int:
        return sum(count > _FEW_PICTURES for count in self._pictures.values())

    def lost(self) -> int:
        usual = {pid: max(1, count // _MANNER) for pid, count in self._packets.items()}
        return sum(n for pid, n in self._gaps.items() if pid in self._shown and n <= usual[pid])

    def read(self, block: bytes) -> None:
        """Follow the packets of a block that begins with a whole one."""
        latest, counters = dict[int, int](), self._counters
        fields = (block[self._offset + byte :: self._length] for byte in range(4))
        for number, (sync, high, low, flags) in enumerate(zip(*fields, strict=False)):
            if sync != SYNC or high & 0x80:
                if sync not in {SYNC, 0} and self.unsynced is None:
                    self.unsynced = self._place + number * self._length
                continue
            pid, counter = (high & 0x1F) << 8 | low, flags & 0x0F
            if not flags & 0x10:  # without payload it does not count
                if _announces(self._packet(block, number)):
                    counters[pid] = counter
                continue
            begins = high & 0x40
            if (counter - counters.get(pid, counter)) & 0x0F > 1:
                before = self._packet(block, latest[pid]) if pid in latest else b""
                unfinished = not begins or (counter and before and not before[3] & 0x20)
                self._gaps[pid] += bool(unfinished and not _announces(self._packet(block, number)))
            if begins:
                self._begin(pid, self._packet(block, number))
            counters[pid], latest[pid] = counter, number
            self._packets[pid] += 1
        self._place += len(block)

    def _begin(self, pid: int, packet: bytes) -> None:
        """Note what a unit is of; scrambled ones show nothing."""
        head = packet[payload_begin(packet) :][:4] if len(packet) > 5 else b""
        kind = head[3] if len(head) == 4 and head[:3] == START_CODE else 0
        if kind in _SOUND_OR_PICTURE:
            self._shown.add(pid)
            self._pictures[pid] += kind in _PICTURE

    def _packet(self, block: bytes, number: int) -> bytes:
        at = number * self._length + self._offset
        return block[at : at + 188]


def _announces(packet: bytes) -> bool:
    """Whether a packet says itself that its counter does not go on."""
    return len(packet) > 5 and bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x80)


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
    try:
        with open(location, "rb") as source, path.open("wb") as target:
            _copy(source, target, ends, (*layout, pid), stop)
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskFull("The disk filled up while a recording was trimmed.") from error
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
    keys = [number for number, (_, _, key) in enumerate(head) if key]
    if not keys or keys[0] > MAX_EARLY:
        return None
    first, following = keys[0], keys[1] if len(keys) > 1 else len(head)
    offset, length, pid = layout
    begin, leading = 0, frozenset[int]()
    if first > 0:
        place, shown, _ = head[first]
        if place is None or shown is None:
            return None
        begin = place // length * length
        leading = frozenset(
            place // length * length
            for place, pts, _ in head[first + 1 : following]
            if pts is not None and place is not None and pts < shown
        )
    size = os.stat(location).st_size  # noqa: PTH116 - any bytes a name can hold
    whole_bytes = size // length * length
    with open(location, "rb") as file:
        unfinished = _unfinished(file, whole_bytes, (offset, length))
    if not first and not leading and not unfinished and whole_bytes == size:
        return None
    late, torn = int(pid in unfinished), size - whole_bytes
    return Ends(begin, leading, unfinished, whole_bytes, first, late, torn)


def _head(
    tools: FfmpegTools, location: str, stream: Stream, stop: threading.Event
) -> tuple[list[HeadPacket], int]:
    argv = [
        tools.ffprobe, "-v", "quiet", "-select_streams", str(stream.index),
        "-read_intervals", f"%+#{HEAD_PACKETS}", "-show_entries", "packet=pts,pos,flags:stream=id",
        "-of", KEYED_BY_KIND, *input_options(location),
    ]  # fmt: skip
    found: list[HeadPacket] = []
    pids = [-1]

    def on_line(line: str) -> None:
        kind, _, rest = line.partition("|")
        fields = parse_fields(rest)
        if kind == "packet":
            place, pts = (int_or_none(fields.get(name)) for name in ("pos", "pts"))
            found.append((place, pts, "K" in fields.get("flags", "")))
        elif kind == "stream" and fields.get("id", "").startswith("0x"):
            pids[0] = int(fields["id"], 16)

    run_child(
        argv,
        stop=stop,
        limits=with_read_access(LIMITS, tools, location),
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
