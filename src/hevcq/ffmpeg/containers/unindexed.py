"""Find what is missing of files that have no index to show it: transport streams, raw DV and Ogg."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from hevcq.errors import Stopped

_PACKETS_READ = 32_768
_SYNC = 0x47
_SYNCS_CHECKED = 16
_PACKET_BYTES = ((0, 188), (4, 192), (0, 204))
"""A transport stream's sync byte and packet length: plain, with a time in front (M2TS), with parity
behind (ISO/IEC 13818-1, 2.4.3.2; Blu-ray and AVCHD; ETSI EN 300 429)."""
_SOUND_OR_PICTURE = range(0xC0, 0xF0)
"""Stream ids of sound and pictures (ISO/IEC 13818-1, table 2-22)."""
_MANNER = 50
"""Of more than one packet in so many the counter is wrong by the manner of the multiplexer."""

_DV_FRAME_BYTES = {0x00: 120_000, 0x80: 144_000}
"""Bytes of a frame of 525 and of 625 lines, by a bit of its first block; DVCPRO has multiples of them
(IEC 61834-2)."""
_OGG_HEAD_BYTES = 27 + 255
"""Bytes of the longest head of a page (RFC 3533)."""


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


def packet_layouts(location: str) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield where packets may begin, in the first one's length, and their layout."""
    with open(location, "rb") as file:
        head = file.read((_SYNCS_CHECKED + 1) * max(length for _, length in _PACKET_BYTES))
    for first, length in _PACKET_BYTES:
        for begin in range(length):
            syncs = head[begin + first :: length][:_SYNCS_CHECKED]
            if syncs == bytes([_SYNC]) * _SYNCS_CHECKED:
                yield begin, (first, length)


def lost_packets(location: str, layout: tuple[int, int], stop: threading.Event) -> str:
    """Return in how many places packets of pictures or sound are missing, as a clause, or "".

    `layout` is the place of the sync byte in each packet, and their length. The counter of a packet
    with payload must go on from the one before it (2.4.3.3) inside a unit; between two whole ones, or
    where it begins at 0, may be where recordings were joined. Raises Stopped once `stop` is set.
    """
    counters = _Counters(*layout)
    with open(location, "rb") as file:
        while block := file.read(_PACKETS_READ * layout[1]):
            if stop.is_set():
                raise Stopped
            counters.read(block)
    lost = counters.lost()
    places = "1 place" if lost == 1 else f"{lost} places"
    return f"packets of its picture or sound are missing in {places}" if lost else ""


class _Counters:
    """Follows the counters of the packets of each PID."""

    def __init__(self, offset: int, length: int) -> None:
        self._offset, self._length = offset, length
        self._counters = dict[int, int]()
        self._gaps, self._packets = Counter[int](), Counter[int]()
        self._shown = set[int]()
        """The PIDs of pictures and sound."""

    def lost(self) -> int:
        """Return the number of places in which packets are missing."""
        usual = {pid: max(1, count // _MANNER) for pid, count in self._packets.items()}
        return sum(n for pid, n in self._gaps.items() if pid in self._shown and n <= usual[pid])

    def read(self, block: bytes) -> None:
        """Follow the packets of a block that begins with a whole one."""
        latest, counters = dict[int, int](), self._counters
        fields = (block[self._offset + byte :: self._length] for byte in range(4))
        for number, (sync, high, low, flags) in enumerate(zip(*fields, strict=False)):
            if sync != _SYNC or high & 0x80:
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
            if begins and pid not in self._shown and _shows(self._packet(block, number)):
                self._shown.add(pid)
            counters[pid], latest[pid] = counter, number
            self._packets[pid] += 1

    def _packet(self, block: bytes, number: int) -> bytes:
        at = number * self._length + self._offset
        return block[at : at + 188]


def _announces(packet: bytes) -> bool:
    """Whether a packet says itself that its counter does not go on."""
    return len(packet) > 5 and bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x80)


def _shows(packet: bytes) -> bool:
    """Whether a packet begins a unit of pictures or sound."""
    at = 5 + packet[4] if packet[3] & 0x20 else 4
    head = packet[at : at + 4]
    return len(head) == 4 and head[:3] == b"\x00\x00\x01" and head[3] in _SOUND_OR_PICTURE
