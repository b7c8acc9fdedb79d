"""Take one picture of a video, for lists and players to show."""

from __future__ import annotations

import threading

from hevcq.errors import LimitExceeded, TransientError
from hevcq.ffmpeg.inputs import PROBE_LIMITS, FfmpegTools, input_options, reading
from hevcq.ffmpeg.process.child import run_child

TIMES_S = (5.0, 0.0)
"""Where a picture is looked for: videos often begin black; shorter ones have their first picture."""
DEADLINE_S = 30.0
JPEG = b"\xff\xd8"
LARGEST = 4 << 20
"""Bytes; a picture of this size is far smaller."""


def still(tools: FfmpegTools, location: str, width: int, stop: threading.Event) -> bytes:
    """Return the picture near one of TIMES_S as JPEG, or b"" if none can be read.

    What ffmpeg says of the video does not matter here: the worker's gates judge it. Raises Stopped.
    """
    box = f"scale={width}:{width}:force_original_aspect_ratio=decrease:force_divisible_by=2"
    filters = f"scale=iw*sar:ih,setsar=1,{box},format=yuvj420p"
    for at_s in TIMES_S:
        command = [tools.ffmpeg, "-nostdin", "-v", "error", "-threads", "1", "-noaccurate_seek"]
        command += ["-ss", str(at_s), *input_options(location), "-map", "0:v:0", "-frames:v", "1"]
        command += ["-vf", filters, "-c:v", "mjpeg", "-q:v", "4", "-f", "image2pipe", "-"]
        limits = reading(PROBE_LIMITS, tools, location)
        try:
            ended = run_child(command, stop=stop, limits=limits, deadline_s=DEADLINE_S)
        except (LimitExceeded, TransientError):
            return b""
        if ended.stdout.startswith(JPEG) and len(ended.stdout) <= LARGEST:
            return ended.stdout
    return b""
