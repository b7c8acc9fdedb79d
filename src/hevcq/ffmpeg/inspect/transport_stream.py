"""Find damage in a transport stream that its demuxer does not report.

A transport stream has no header with a duration. Four signs of damage are certain: it ends inside a
packet, its packets leave their places, a payload unit of video or audio does not begin with a start code,
or the packets inside one do not count on. The demuxer drops the incomplete packet, and appends a picture
without its beginning to the one before.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter

from hevcq.errors import MediaRefused, Stopped
from hevcq.ffmpeg.inputs import display_name, is_url

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
_SLIP_BYTES = 1 << 20
"""Bytes behind a packet without its sync byte among which packets at other places are looked for."""
_FEW_PICTURES = 10
"""Pictures up to which a stream of them is a remnant."""


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
    if torn := counters.torn():
        units = "a video or audio unit" if torn == 1 else f"{torn} video or audio units"
        return f"the beginning of {units} is broken"
    if counters.unsynced is not None and _slips(location, layout, counters.unsynced):
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
    """Return the PID of a packet, given from its sync byte on."""
    return (packet[1] & 0x1F) << 8 | packet[2]


def payload_begin(packet: bytes) -> int:
    """Return where the payload of a packet begins: behind the header and the adaptation field."""
    return 5 + packet[4] if packet[3] & 0x20 else 4


def _slips(location: str, layout: tuple[int, int], place: int) -> bool:
    """Whether packets follow a place, in bytes, of which none lies where the first ones would go on."""
    offset, length = layout
    with open(location, "rb") as file:
        file.seek(place)
        data = file.read(_SLIP_BYTES)
    run = re.compile(rb"(?:\x47.{%d}){%d}" % (length - 1, _SYNCS_CHECKED), re.DOTALL)
    return any((hit.start() - offset) % length for hit in run.finditer(data))


class _Counters:
    """Follows the packets of each PID: their counters, and whether units begin with a start code.

    The counter of a packet with payload must go on from the one before it (2.4.3.3) inside a unit; between
    two whole ones, or where it begins at 0, may be where recordings were joined. Units of video and audio
    begin with a start code, and tables do not: a PID with more units without one has changed its use.
    """

    def __init__(self, offset: int, length: int) -> None:
        self._offset, self._length = offset, length
        self._counters = dict[int, int]()
        self._gaps, self._packets = Counter[int](), Counter[int]()
        self._shown = set[int]()
        """The PIDs of pictures and sound."""
        self._pictures = Counter[int]()
        self._good, self._bad = Counter[int](), Counter[int]()
        self.unsynced: int | None = None
        """The place in bytes of the first packet without its sync byte."""
        self._place = 0

    def videos(self) -> int:
        """Return the number of streams of pictures."""
        return sum(count > _FEW_PICTURES for count in self._pictures.values())

    def torn(self) -> int:
        """Return the number of units that lost their beginning."""
        return sum(count for pid, count in self._bad.items() if count <= self._good[pid])

    def lost(self) -> int:
        """Return the number of places in which packets are missing."""
        usual = {pid: max(1, count // _MANNER) for pid, count in self._packets.items()}
        return sum(n for pid, n in self._gaps.items() if pid in self._shown and n <= usual[pid])

    def read(self, block: bytes) -> None:
        """Follow the packets of a block that begins with a whole one."""
        latest, counters = dict[int, int](), self._counters
        fields = (block[self._offset + byte :: self._length] for byte in range(4))
        for number, (sync, high, low, flags) in enumerate(zip(*fields, strict=False)):
            if sync != SYNC or high & 0x80:
                if sync != SYNC and self.unsynced is None:
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
        """Note how a unit begins; scrambled ones show nothing."""
        head = packet[payload_begin(packet) :][:4] if len(packet) > 5 else b""
        if not packet[3] & 0xC0 and head:
            (self._good if START_CODE.startswith(head[:3]) else self._bad)[pid] += 1
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
