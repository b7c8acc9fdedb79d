"""Detect damage in a transport stream that its demuxer does not report.

A transport stream has no header with a duration. Two signs of damage are certain: it ends inside a
packet, or a payload unit of video or audio does not begin with a start code. The demuxer drops the
incomplete packet, and appends a picture without its beginning to the one before.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator

from hevcq.errors import Stopped
from hevcq.ffmpeg.inputs import is_url

PACKET_BYTES = ((0, 188), (4, 192), (0, 204))
"""A transport stream's sync byte and packet length: plain, with a time in front (M2TS), with parity
behind (ISO/IEC 13818-1, 2.4.3.2; Blu-ray and AVCHD; ETSI EN 300 429)."""
PACKETS_READ = 32_768
_SYNCS_CHECKED = 16
SYNC = 0x47
_BEGINS = re.compile(rb"[\x40-\x7f]")
"""The second byte of a packet that starts a payload unit and has no transport error indicator."""
_START_CODE = b"\x00\x00\x01"


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
    return _lost_start(_packets(location, first, length, stop))


def packet_layout(location: str) -> tuple[int, int] | None:
    """Return the place of the sync byte in each packet and the packets' length; None for other files."""
    with open(location, "rb") as file:
        head = file.read(_SYNCS_CHECKED * max(length for _, length in PACKET_BYTES))
    for first, length in PACKET_BYTES:
        syncs = head[first::length]
        if len(syncs) >= _SYNCS_CHECKED and set(syncs[:_SYNCS_CHECKED]) == {SYNC}:
            return first, length
    return None


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
    head = packet[begin : begin + len(_START_CODE)]
    return _START_CODE.startswith(head) if head else None
