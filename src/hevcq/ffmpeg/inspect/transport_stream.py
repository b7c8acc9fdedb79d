"""What the packets of a transport stream say of its wholeness, where its demuxer says nothing.

A transport stream has no header that could claim a length. Two signs are sure: it ends inside a
packet, or a packet that begins a picture or a sound does not begin with a start code. The demuxer
drops what is left over, and adds a picture without its beginning to the one before.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator

from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import Stopped
from hevcq.ffmpeg.inputs import is_url

PACKET_BYTES = ((0, 188), (4, 192), (0, 204))
"""A transport stream's sync byte and packet length: plain, with a time in front (M2TS), with parity
behind (ISO/IEC 13818-1, 2.4.3.2; Blu-ray and AVCHD; ETSI EN 300 429)."""
PACKETS_READ = 32_768
_SYNCS_CHECKED = 16
_SYNC = 0x47
_BEGINS = re.compile(rb"[\x40-\x7f]")
"""The second byte of a packet that begins a unit, and is not marked as broken by its receiver."""
_START_CODE = b"\x00\x00\x01"


def transport_damage(location: str, info: MediaInfo, stop: threading.Event) -> str:
    """Return what is broken in a transport stream, as half a sentence; empty if nothing is.

    One whose beginning is no row of whole packets is not judged, and neither is one behind a URL.
    Raises Stopped once `stop` is set.
    """
    if info.format_name != "mpegts" or is_url(location):
        return ""
    with open(location, "rb") as file:
        head = file.read(_SYNCS_CHECKED * max(length for _, length in PACKET_BYTES))
        size = file.seek(0, 2)
    for first, length in PACKET_BYTES:
        syncs = head[first::length]
        if len(syncs) >= _SYNCS_CHECKED and set(syncs[:_SYNCS_CHECKED]) == {_SYNC}:
            if size % length:
                return "it ends inside a packet, so its end was cut"
            return _lost_start(_packets(location, first, length, stop))
    return ""


def _packets(location: str, first: int, length: int, stop: threading.Event) -> Iterator[bytes]:
    """Yield the packets that begin a unit, each from its sync byte on."""
    with open(location, "rb") as file:
        while block := file.read(PACKETS_READ * length):
            if stop.is_set():
                raise Stopped
            for found in _BEGINS.finditer(block[first + 1 :: length]):
                begin = found.start() * length + first
                yield block[begin : begin + 188]


def _lost_start(packets: Iterator[bytes]) -> str:
    """Look at each unit's beginning: on the address of a picture or sound it is a start code.

    Other addresses carry tables, none of which begin so. An address that changed its use is not
    judged: it has more beginnings without a start code than with one.
    """
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()
    for packet in packets:
        begins = _begins_with_start_code(packet)
        if begins is not None:
            address = (packet[1] & 0x1F) << 8 | packet[2]
            (good if begins else bad)[address] += 1
    lost = sum(count for address, count in bad.items() if count <= good[address])
    if not lost:
        return ""
    units = "a picture or sound" if lost == 1 else f"{lost} pictures or sounds"
    return f"the beginning of {units} is broken"


def _begins_with_start_code(packet: bytes) -> bool | None:
    """None where it cannot be told: out of step, scrambled, or without bytes of the unit."""
    if len(packet) < 188 or packet[0] != _SYNC or packet[3] & 0xC0 or not packet[3] & 0x10:
        return None
    begin = 5 + packet[4] if packet[3] & 0x20 else 4
    head = packet[begin : begin + len(_START_CODE)]
    return _START_CODE.startswith(head) if head else None
