"""Gate G5: how late sound may be against the picture, and how late sound is that was encoded anew.

First and last times of an encoded track vary by encoder delay and padding. So both tracks are
decoded to their envelope, and the loudest changes are looked for in the other one.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Sequence
from operator import mul
from statistics import median

from hevcq.domain.media.containers import AVI
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, looking_far, reading
from hevcq.ffmpeg.process.child import stream_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ffmpeg.verify.decode import require_success
from hevcq.ports.encoder import VerifyRequest

SAMPLE_RATE = 8000
BIN_SAMPLES = 40
BIN_S = BIN_SAMPLES / SAMPLE_RATE
"""Seconds that one value of an envelope stands for: 5 ms."""
WINDOW, WINDOWS = 800, 5
"""Values compared at a time (4 s), and how many such windows; those that change most are taken."""
MAX_LAG = 60
"""Values by which sound is looked for earlier and later: 0.3 s."""
SURE = 0.7
"""Correlation from which a window was found again."""
COPIED_OFFSET_S = 0.012
"""Seconds by which copying may move a track against the picture: roundings to milliseconds, and Opus's
pre-skip of 6.5 ms, which containers count differently."""
ENCODED_OFFSET_S = 0.022
"""Seconds by which encoded sound may lie off; honest encodes stay below 0.01."""
LATE_BY_CONTAINER_S = {AVI: 0.03}
"""Seconds by which encoded sound may lie later still, because a container cannot say what its encoder put
in front (LAME: 1,105 samples)."""


class Envelope:
    """Adds up the loudness of 8 kHz mono samples of 16 bits as they arrive."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        data = self._rest + chunk
        step = 2 * BIN_SAMPLES
        whole = len(data) - len(data) % step
        self._rest = data[whole:]
        samples = array("h", data[:whole])
        for begin in range(0, len(samples), BIN_SAMPLES):
            self.values.append(sum(map(abs, samples[begin : begin + BIN_SAMPLES])))


def envelope(
    tools: FfmpegTools, request: VerifyRequest, place: tuple[str, int], stop: threading.Event
) -> list[int]:
    """Decode a track, `place` being file and stream, to its envelope from the file's start on.

    Raises what a failed decode means; a decoder's complaints alone are none.
    """
    location, stream = place
    found = Envelope()
    far = looking_far(request.info.late_s if location == request.location else 0.0)
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", "-nostats", *far, *input_options(location),
        "-map", f"0:{stream}",
        "-af", f"aresample={SAMPLE_RATE}:async=1:min_hard_comp=0.005:first_pts=0,aformat=channel_layouts=mono",
        "-f", "s16le", "pipe:1",
    ]  # fmt: skip
    done = stream_child(
        argv,
        stop=stop,
        limits=reading(limits_of(request.profile.bounds), tools, location),
        on_chunk=found.feed,
        deadline_s=request.max_seconds,
    )
    require_success(argv, done, request, location)
    return found.values


def lead_s(request: VerifyRequest, index: int) -> float:
    """Return by how many seconds the envelope of a source's track begins later than the source's file."""
    info = request.info
    return info.origin_s({index}) - info.origin_s(request.plan.mapped)


def offset_s(source: Sequence[int], made: Sequence[int], expected_s: float = 0.0) -> float | None:
    """Return by how many seconds sound is late against `expected_s`, or None if that is unknown.

    A steady tone and silence have no place in time.
    """
    shift = round(expected_s / BIN_S)
    lags = [
        lag
        for begin in _lively(source)
        if (lag := _found(source[begin : begin + WINDOW], made, begin + shift)) is not None
    ]
    if not lags:
        return None
    return median(lags) * BIN_S + shift * BIN_S - expected_s


def _lively(source: Sequence[int]) -> list[int]:
    """Return where the windows begin in which the loudness changes most."""
    length = min(WINDOW, len(source))
    if length < WINDOW // 4:
        return []
    ranked = []
    for begin in range(0, len(source) - length + 1, length):
        part = source[begin : begin + length]
        mean = sum(part) / length
        spread = math.sqrt(max(0.0, sum(map(mul, part, part)) / length - mean * mean))
        if mean and spread > 0.15 * mean:
            ranked.append((spread, begin))
    return [begin for _, begin in sorted(ranked, reverse=True)[:WINDOWS]]


def _found(part: Sequence[int], made: Sequence[int], begin: int) -> int | None:
    """Return the lag, in values, at which a window correlates best, or None if nowhere well."""
    best, place = SURE, None
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        first = begin + lag
        if first < 0:
            continue
        other = made[first : first + len(part)]
        if len(other) < len(part) * 0.9:
            continue
        likeness = _correlation(part[: len(other)], other)
        if likeness > best:
            best, place = likeness, lag
    return place


def _correlation(one: Sequence[int], other: Sequence[int]) -> float:
    count = len(one)
    mean, mean_other = sum(one) / count, sum(other) / count
    both = sum(map(mul, one, other)) / count - mean * mean_other
    spread = sum(map(mul, one, one)) / count - mean * mean
    spread_other = sum(map(mul, other, other)) / count - mean_other * mean_other
    product = spread * spread_other
    return both / math.sqrt(product) if product > 0 else 0.0
