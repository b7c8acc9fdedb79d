"""How good the picture of a joined video is against that of the video in one piece."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

_FRAME = re.compile(r"^n:\d+ .*\bAll:([0-9.]+)", re.MULTILINE)
SAMPLES = 1000
"""Steps in which the area between two curves is summed up."""


def frame_ssim(source: Path, output: Path) -> list[float]:
    """Return each frame's likeness to the source's, 0 to 1."""
    graph = "[0:v:0]setpts=PTS-STARTPTS[a];[1:v:0]setpts=PTS-STARTPTS[b];[a][b]ssim=stats_file=-"
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-i", source, "-i", output, "-lavfi",
            graph, "-f", "null", "-"]  # fmt: skip
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in _FRAME.findall(said)]


def video_bytes(path: Path) -> int:
    """Return how many bytes the picture takes, without sound and container."""
    argv = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "packet=size",
            "-of", "csv=p=0", path]  # fmt: skip
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return sum(int(word.strip(",")) for word in said.split())


def decibel(ssim: float) -> float:
    """Return SSIM on the scale on which equal steps look equal."""
    return -10 * math.log10(1 - ssim)


def bd_rate(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """Return by how much more bytes `other` takes than `one` at equal quality, as a share.

    Each is (bytes, decibel) at rising quality. Bjontegaard's area between the curves of the
    logarithm of the bytes, over the qualities that both reach, with straight lines between points.
    """
    low = max(one[0][1], other[0][1])
    high = min(one[-1][1], other[-1][1])
    steps = [low + (high - low) * n / SAMPLES for n in range(SAMPLES + 1)]
    apart = [_log_bytes(other, at) - _log_bytes(one, at) for at in steps]
    return math.exp(sum(apart) / len(apart)) - 1


def _log_bytes(curve: Sequence[tuple[float, float]], at: float) -> float:
    """Return the logarithm of the bytes that a quality takes, by a line between two points."""
    place = next((n for n in range(1, len(curve) - 1) if curve[n][1] >= at), len(curve) - 1)
    (before, low), (after, high) = curve[place - 1], curve[place]
    inside = (at - low) / (high - low)
    return math.log(before) + inside * (math.log(after) - math.log(before))
