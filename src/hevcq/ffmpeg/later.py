"""Look at key frames all over a film: what its first pictures do not have may come later.

A recording may begin with another programme: of another shape, without fields, or without captions.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from hevcq.domain.media import MediaInfo, Stream
from hevcq.errors import Unavailable
from hevcq.ffmpeg.process import run_child
from hevcq.ffmpeg.tools import (
    NETWORK,
    PROBE_DEADLINE_S,
    PROBE_LIMITS,
    Tools,
    input_options,
    is_url,
    name_of,
)

PLACES = 5
"""So many places are looked at, spread evenly: a scan pays for each, 20 to 40 ms of 1080p."""
FROM_S = 2.0
"""A shorter film is not looked at again: its first pictures are most of it."""
LANDING_PACKETS = 8
"""Most containers are entered at a key frame."""
SEEKING_PACKETS = 300
"""A transport stream anywhere, so that a group of pictures may pass first: x264's longest is 250."""
FRAME_ENTRIES = (
    "frame=media_type,stream_index,interlaced_frame,top_field_first,width,height,pix_fmt,"
    "sample_aspect_ratio:frame_side_data"
)
"""What is asked of each picture that is looked at."""
_SEEKING = frozenset({"mpegts", "mpeg"})


def later_frames(
    tools: Tools, location: str, info: MediaInfo, film: Stream, stop: threading.Event
) -> list[Mapping[str, Any]]:
    """Return ffprobe's facts of key frames at places spread over the film; none if it is short.

    Where a place cannot be entered nothing comes of it: damage is the pre-flight's matter. Raises
    Unavailable if a connection broke, for nobody knows then what was not seen.
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
        "-select_streams", str(film.index), "-read_intervals", ",".join(places),
        "-show_entries", FRAME_ENTRIES, *input_options(location),
    ]  # fmt: skip
    looked = run_child(argv, stop=stop, limits=PROBE_LIMITS, deadline_s=PROBE_DEADLINE_S)
    if is_url(location) and any(line.startswith(NETWORK) for line in looked.stderr):
        raise Unavailable(f"{name_of(location)} could not be read all over: the connection broke.")
    try:
        found = json.loads(looked.stdout.decode("utf-8", "replace"))
    except ValueError:
        return []
    frames = found.get("frames") if isinstance(found, dict) else None
    return [frame for frame in frames or () if isinstance(frame, dict)]
