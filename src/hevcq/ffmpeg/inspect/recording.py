"""Find damage in a transport stream that ffmpeg's demuxer does not report, and trim its ends to whole pictures.

Three signs of damage are certain: the stream ends inside a packet, a packet does not begin where the one before
it ends, or the counter of the packets inside a unit of video or audio jumps. The demuxer drops incomplete units.

Receivers begin to record between key frames and stop inside a picture. No decoder can decode what comes before
the first key frame or after the last whole picture; it is counted and left out. The trimmed copy is encoded and
verified, so any other damage is found in it as in every source.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.errors import DiskFull, MediaRefused, Stopped, is_full
from hevcq.ffmpeg.inputs import display_name, is_url
from hevcq.ffmpeg.inspect.measure import NO_TIME, Packets
from hevcq.ports.encoder import COPIED_AS, TrimmedSource
from hevcq.util.text import counted

MAX_SKIPPED = 600
"""Most pictures before the first key frame; a recording with more is not trimmed. 12 s at 50 a second."""
TAIL_PACKETS = 65_536
"""Transport packets (12 MB) at the end in which the last picture must begin."""
BLOCK_BYTES = 1 << 22
_ADAPTATION_SIZES = ((0x10, 6), (0x08, 6), (0x04, 1))
"""Flags of the adaptation field, and the bytes that PCR, OPCR and splice countdown take in it."""
PACKETS_READ = 32_768
SYNC = 0x47
START_CODE = b"\x00\x00\x01"
_SYNCS_CHECKED = 16
_PACKET_BYTES = ((0, 188), (4, 192), (0, 204))
"""Offset of the sync byte, and length, of a transport packet: plain, with a timestamp in front (M2TS), with
parity behind (ISO/IEC 13818-1, 2.4.3.2; Blu-ray and AVCHD; ETSI EN 300 429)."""
_SOUND_OR_PICTURE, _PICTURE = range(0xC0, 0xF0), range(0xE0, 0xF0)
"""Stream ids of sound and pictures, and of pictures alone (ISO/IEC 13818-1, table 2-22)."""
_PACKETS_PER_GAP = 50
"""If the counter jumps more often than once in so many packets, the multiplexer counts wrongly: no packet is lost."""
_FEW_PICTURES = 10
"""A stream with at most so many pictures is a remnant of another programme."""


def transport_damage(location: str, videos: int, stop: threading.Event) -> str:
    """Return the damage of a transport stream, as a clause, or "".

    A file that does not begin with whole packets, or a URL, is not read. Raises MediaRefused if more streams
    have pictures than the `videos` that ffmpeg reads, and Stopped.
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
    """Return offset of the sync byte and length of the packets; None if it is no transport stream."""
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
    """Counts the gaps in the packet counters of each PID with pictures or sound.

    Inside a unit the counter of a packet with payload must continue (2.4.3.3). Between two whole units, or where
    it starts again at 0, recordings may have been joined. Units of video and audio begin with a start code;
    tables do not.
    """

    def __init__(self, offset: int, length: int) -> None:
        self._offset, self._length = offset, length
        self._counters = dict[int, int]()
        self._gaps, self._packets = Counter[int](), Counter[int]()
        self._media = set[int]()
        """The PIDs of pictures and sound."""
        self._pictures = Counter[int]()
        self.unsynced: int | None = None
        """The byte where the first packet lacks its sync byte; zero bytes are padding."""
        self._place = 0

    def videos(self) -> int:
        return sum(count > _FEW_PICTURES for count in self._pictures.values())

    def lost(self) -> int:
        most = {pid: max(1, count // _PACKETS_PER_GAP) for pid, count in self._packets.items()}
        return sum(n for pid, n in self._gaps.items() if pid in self._media and n <= most[pid])

    def read(self, block: bytes) -> None:
        """Count the gaps of a block that begins with a whole packet."""
        latest, counters = dict[int, int](), self._counters
        fields = (block[self._offset + byte :: self._length] for byte in range(4))
        for number, (sync, high, low, flags) in enumerate(zip(*fields, strict=False)):
            if sync != SYNC or high & 0x80:
                if sync not in {SYNC, 0} and self.unsynced is None:
                    self.unsynced = self._place + number * self._length
                continue
            pid, counter = (high & 0x1F) << 8 | low, flags & 0x0F
            if not flags & 0x10:  # a packet without payload does not increase the counter
                if _announces_gap(self._packet(block, number)):
                    counters[pid] = counter
                continue
            begins = high & 0x40
            if (counter - counters.get(pid, counter)) & 0x0F > 1:
                before = self._packet(block, latest[pid]) if pid in latest else b""
                unfinished = not begins or (counter and before and not before[3] & 0x20)
                packet = self._packet(block, number)
                self._gaps[pid] += bool(unfinished and not _announces_gap(packet))
            if begins:
                self._note_unit(pid, self._packet(block, number))
            counters[pid], latest[pid] = counter, number
            self._packets[pid] += 1
        self._place += len(block)

    def _note_unit(self, pid: int, packet: bytes) -> None:
        """Note whether a unit has pictures or sound; scrambled units have no start code."""
        head = packet[payload_begin(packet) :][:4] if len(packet) > 5 else b""
        kind = head[3] if len(head) == 4 and head[:3] == START_CODE else 0
        if kind in _SOUND_OR_PICTURE:
            self._media.add(pid)
            self._pictures[pid] += kind in _PICTURE

    def _packet(self, block: bytes, number: int) -> bytes:
        at = number * self._length + self._offset
        return block[at : at + 188]


def _announces_gap(packet: bytes) -> bool:
    """Whether a packet's discontinuity indicator announces that its counter jumps."""
    return len(packet) > 5 and bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x80)


@dataclass(frozen=True, slots=True)
class WholePictures:
    """Where the whole pictures of a recording are. Places are bytes of the file where a packet begins.

    The first key frame is at `begin`, and `skipped` pictures come before it. The pictures at `leading` follow
    it in the file, but refer to pictures before it. `head_end` is behind the first packet of the picture after
    them, or `begin` if there are none. `unfinished` has the place of the last unit of each PID that the end
    cuts off. `end` is behind the last whole packet, and `torn` bytes follow.
    """

    pid: int
    begin: int
    skipped: int
    leading: frozenset[int]
    head_end: int
    unfinished: dict[int, int]
    end: int
    torn: int


def trim_recording(
    location: str,
    info: MediaInfo,
    tracks: Mapping[int, Packets],
    folder: Path,
    stop: threading.Event,
) -> TrimmedSource | None:
    """Write the whole pictures of a recording to `folder`; return None if both ends are whole.

    `tracks` are the packets of its streams with their places. Raises Stopped, DiskFull and OSError.
    """
    if info.format_name != "mpegts" or is_url(location):
        return None
    videos, layout = info.of_kind(StreamKind.VIDEO), packet_layout(location)
    packets = tracks.get(videos[0].index) if videos else None
    if packets is None or layout is None:
        return None
    with open(location, "rb") as source:
        pictures = _find_whole_pictures(source, packets, layout)
        if pictures is None:
            return None
        path = folder / f"{COPIED_AS}.ts"
        try:
            with path.open("wb") as target:
                _copy(source, target, pictures, layout, stop)
        except OSError as error:
            if not is_full(error):
                raise
            raise DiskFull("The disk filled up while a recording was trimmed.") from error
    return TrimmedSource(path=path, notices=tuple(_notices(videos[0], pictures)))


def _notices(video: Stream, pictures: WholePictures) -> Iterator[str]:
    count = pictures.skipped + len(pictures.leading)
    where = f"Stream {video.index}:"
    if count:
        yield (
            f"{where} {counted(count, 'picture')} before the first whole one, with the sound until then,"
            f" {'is' if count == 1 else 'are'} left out: the recording begins between key frames."
        )
    if pictures.pid in pictures.unfinished:
        yield f"{where} the last picture is left out: the recording ends inside it."
    elif pictures.unfinished:
        yield "The last piece of sound or data is left out: the recording ends inside it."
    elif pictures.torn:
        yield f"The last {pictures.torn} bytes are left out: the recording ends inside a packet."


def _find_whole_pictures(
    file: BinaryIO, packets: Packets, layout: tuple[int, int]
) -> WholePictures | None:
    """Return where the whole pictures are; None if all are whole, or if no key frame can be found."""
    offset, length = layout
    # ffprobe places a packet of 204 bytes 16 bytes before its start: round up.
    places = [NO_TIME if at == NO_TIME else -(-at // length) * length for at in packets.places]
    place = next((place for place in places if place != NO_TIME), None)
    if not packets.keys or packets.keys[0] > MAX_SKIPPED or place is None:
        return None
    file.seek(place + offset)
    pid = pid_of(file.read(4))
    size = file.seek(0, os.SEEK_END)
    end = size // length * length
    first, begin, head_end, leading = packets.keys[0], 0, 0, frozenset[int]()
    if first > 0:
        begin = head_end = places[first]
        if NO_TIME in {begin, packets.pts[first]}:
            return None
        following = packets.keys[1] if len(packets.keys) > 1 else len(places)
        numbers = [
            number
            for number in range(first + 1, following)
            if places[number] != NO_TIME and NO_TIME < packets.pts[number] < packets.pts[first]
        ]
        if numbers:
            leading = frozenset(places[number] for number in numbers)
            after = (place for place in places[numbers[-1] + 1 :] if place > max(leading))
            head_end = min(end, next(after, end) + length)
    unfinished = _find_unfinished(file, end, layout)
    if not first and not unfinished and end == size:
        return None
    return WholePictures(pid, begin, first, leading, head_end, unfinished, end, size - end)


def _find_unfinished(file: BinaryIO, end: int, layout: tuple[int, int]) -> dict[int, int]:
    """Return the place of the last unit of each PID whose unit the end cuts off.

    A unit that states its length is compared with it. Any other unit (video) ends with a stuffed packet; after
    a full packet more must follow.
    """
    offset, length = layout
    start = max(0, end - TAIL_PACKETS * length)
    file.seek(start)
    data = file.read(end - start)
    units: dict[int, int] = {}
    sizes: Counter[int] = Counter()
    stated: dict[int, int] = {}
    full: dict[int, bool] = {}
    for at in range(0, len(data) - length + 1, length):
        packet = data[at + offset : at + offset + 188]
        if packet[0] != SYNC or not packet[3] & 0x10:
            continue
        pid, payload = pid_of(packet), packet[payload_begin(packet) :]
        if packet[1] & 0x40:
            if payload[:3] != START_CODE:
                continue
            units[pid], sizes[pid] = start + at, 0
            rest = int.from_bytes(payload[4:6], "big")
            stated[pid] = rest + 6 if rest else 0
        sizes[pid] += len(payload)
        full[pid] = not _is_stuffed(packet)
    return {
        pid: place
        for pid, place in units.items()
        if (sizes[pid] < stated[pid] if stated[pid] else full[pid])
    }


def _is_stuffed(packet: bytes) -> bool:
    """Whether a packet has stuffing, as only the last packet of a unit has; a clock reference is not stuffing."""
    if not packet[3] & 0x20:
        return False
    length, flags = packet[4], packet[5]
    used = 1 + sum(size for flag, size in _ADAPTATION_SIZES if flags & flag)
    for flag in (0x02, 0x01):
        used += 1 + packet[5 + used] if flags & flag and 5 + used < 188 else 0
    return length == 0 or flags == 0 or length > used


def _copy(
    source: BinaryIO,
    target: BinaryIO,
    pictures: WholePictures,
    layout: tuple[int, int],
    stop: threading.Event,
) -> None:
    """Copy the whole pictures: packet by packet at both ends, and in blocks between them."""
    offset, length = layout
    source.seek(pictures.begin)
    _copy_head(source, target, pictures, layout)
    tail = max(pictures.head_end, min(pictures.unfinished.values(), default=pictures.end))
    left = tail - pictures.head_end
    while left > 0:
        if stop.is_set():
            raise Stopped
        block = _read(source, min(BLOCK_BYTES, left))
        target.write(block)
        left -= len(block)
    for place in range(tail, pictures.end, length):
        packet = _read(source, length)
        if place < pictures.unfinished.get(pid_of(packet[offset:]), pictures.end):
            target.write(packet)


def _copy_head(
    source: BinaryIO, target: BinaryIO, pictures: WholePictures, layout: tuple[int, int]
) -> None:
    """Copy the packets before `head_end` without the leading pictures."""
    offset, length = layout
    is_dropping = False
    for place in range(pictures.begin, pictures.head_end, length):
        packet = _read(source, length)
        if pid_of(packet[offset:]) == pictures.pid:
            was_dropping = is_dropping
            if packet[offset + 1] & 0x40:
                is_dropping = place in pictures.leading
            if was_dropping and not is_dropping:
                target.write(_gap_packet(packet, offset))
            if is_dropping:
                continue
        target.write(packet)


def _read(source: BinaryIO, size: int) -> bytes:
    """Read `size` bytes. Raises OSError if the file became shorter."""
    data = source.read(size)
    if len(data) < size:
        raise OSError("the recording became shorter while it was read")
    return data


def _gap_packet(following: bytes, offset: int) -> bytes:
    """Return a packet without payload that announces a gap in the counter before the packet `following`.

    Its discontinuity indicator (ISO/IEC 13818-1, 2.4.3.5) keeps a reader from counting packets as lost.
    """
    counter = (following[offset + 3] - 1) & 0x0F
    head = bytes([SYNC, following[offset + 1] & 0x1F, following[offset + 2], 0x20 | counter])
    return following[:offset] + head + b"\xb7\x80" + b"\xff" * 182 + following[offset + 188 :]
