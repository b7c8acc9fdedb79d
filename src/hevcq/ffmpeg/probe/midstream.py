"""Probe what ffprobe does not show: H.264's HDR10 SEI, frames midstream, where an MP4's index lies.

ffmpeg 5.1 does not report HDR10's static metadata of H.264, so it is read from the SEI.

ITU-T H.264 annex D: payload 137 is the mastering display colour volume, 144 the content light
level. Primaries come as green, blue, red in units of 1/50000, luminance in 1/10000 cd/m².
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from hevcq.domain.media.facts import LightLevel, MasteringDisplay, MediaInfo, Stream
from hevcq.errors import Unavailable
from hevcq.ffmpeg.inputs import (
    NETWORK,
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    FfmpegTools,
    display_name,
    input_options,
    is_url,
    reading,
)
from hevcq.ffmpeg.process.child import run_child

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


PLACES = 5
"""Number of places probed, spread evenly; each costs 20 to 40 ms at 1080p."""
FROM_S = 2.0
"""Seconds below which a video is not probed midstream: its first pictures are most of it."""
LANDING_PACKETS = 8
"""Packets read per place: in most containers a seek leads to a key frame."""
SEEKING_PACKETS = 300
"""The same for a transport stream, where a whole group of pictures may come first (x264: up to 250)."""
FRAME_ENTRIES = (
    "frame=media_type,stream_index,interlaced_frame,top_field_first,width,height,pix_fmt,"
    "sample_aspect_ratio:frame_side_data"
)
"""The ffprobe entries read of each frame."""
_SEEKING = frozenset({"mpegts", "mpeg"})


def midstream_frames(
    tools: FfmpegTools, location: str, info: MediaInfo, video: Stream, stop: threading.Event
) -> list[Mapping[str, Any]]:
    """Return ffprobe's facts of key frames at places spread over the video; none if it is short.

    A place that cannot be read is skipped: damage is left to the pre-flight. Raises Unavailable if a
    connection broke, since any number of places may then be missing.
    """
    length = info.duration_s or 0.0
    if length < FROM_S:
        return []
    seeking = _SEEKING.intersection(info.format_name.split(","))
    packets = SEEKING_PACKETS if seeking else LANDING_PACKETS
    start, share = max(0.0, info.start_s or 0.0), length / PLACES
    places = [f"{start + (place + 0.5) * share:.3f}%+#{packets}" for place in range(PLACES)]
    argv = [
        tools.ffprobe, "-v", "error", "-threads", "1", "-skip_frame", "nokey", "-of", "json",
        "-select_streams", str(video.index), "-read_intervals", ",".join(places),
        "-show_entries", FRAME_ENTRIES, *input_options(location),
    ]  # fmt: skip
    probed_child = run_child(
        argv, stop=stop, limits=reading(PROBE_LIMITS, tools, location), deadline_s=PROBE_DEADLINE_S
    )
    if is_url(location) and any(line.startswith(NETWORK) for line in probed_child.stderr):
        raise Unavailable(
            f"{display_name(location)} could not be probed completely: the connection broke."
        )
    try:
        found = json.loads(probed_child.stdout.decode("utf-8", "replace"))
    except ValueError:
        return []
    frames = found.get("frames") if isinstance(found, dict) else None
    return [frame for frame in frames or () if isinstance(frame, dict)]
