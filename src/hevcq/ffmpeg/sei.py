"""Read HDR10's static metadata from the SEI of an H.264 stream, which ffmpeg 5.1 overlooks.

ITU-T H.264 annex D: payload 137 is the mastering display colour volume, 144 the content light
level. Primaries come as green, blue, red in units of 1/50000, luminance in 1/10000 cd/m².
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hevcq.domain.media import LightLevel, MasteringDisplay

_SEI_UNIT = 6
_MASTERING = 137
_LIGHT = 144


def static_hdr(annex_b: bytes) -> tuple[MasteringDisplay | None, LightLevel | None]:
    """Return the mastering display and light level of an Annex B byte stream, where present."""
    mastering: MasteringDisplay | None = None
    light: LightLevel | None = None
    for kind, payload in _messages(annex_b):
        if kind == _MASTERING and len(payload) >= 24:
            mastering = _mastering(payload)
        elif kind == _LIGHT and len(payload) >= 4:
            content, average = struct.unpack_from(">HH", payload)
            light = LightLevel(max_content=content, max_average=average)
    return mastering, light


def _messages(annex_b: bytes) -> Iterator[tuple[int, bytes]]:
    for unit in annex_b.split(b"\x00\x00\x01"):
        if unit and unit[0] & 0x1F == _SEI_UNIT:
            yield from _payloads(unit[1:].replace(b"\x00\x00\x03", b"\x00\x00"))


def _payloads(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 2 < len(body):
        kind, at = _number(body, at)
        size, at = _number(body, at)
        yield kind, body[at : at + size]
        at += size


def _number(body: bytes, at: int) -> tuple[int, int]:
    total = 0
    while at < len(body) and body[at] == 0xFF:
        total, at = total + 0xFF, at + 1
    return (total + body[at] if at < len(body) else total), at + 1


def _mastering(payload: bytes) -> MasteringDisplay:
    gx, gy, bx, by, rx, ry, wx, wy, top, bottom = struct.unpack_from(">8H2I", payload)
    return MasteringDisplay(
        red_x=f"{rx}/50000",
        red_y=f"{ry}/50000",
        green_x=f"{gx}/50000",
        green_y=f"{gy}/50000",
        blue_x=f"{bx}/50000",
        blue_y=f"{by}/50000",
        white_x=f"{wx}/50000",
        white_y=f"{wy}/50000",
        min_luminance=f"{bottom}/10000",
        max_luminance=f"{top}/10000",
    )
