"""Cut fragmented files into segments on a common grid, and measure their bit rates. Pure.

A segment begins at the first key frame at or after each step of the grid. Forced key frames have the
same times in every rung, and so have segments, whatever other key frames a rung has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from hevcq.domain.planning.ladder import segment_starts
from hevcq.ffmpeg.containers.fragments import Fragment, FragmentedFile

MIN_RUN, MAX_RUN = Fraction(1, 2), Fraction(3, 2)
"""Shares of the target duration between which a run of segments counts for the peak (RFC 8216, 4.3.4.2)."""
MIN_LAST_S = Fraction(1, 2)
"""Shortest last segment in seconds: hls.js 1.7 never ends a video whose last segment lasts 0.1 s."""
_MAX_ROUNDING = 0.0004
"""Largest relative error of a measured frame rate; 24 and 23.976 differ by 0.001."""
_MAX_SPREAD = 0.01
"""Largest relative difference of the segments' frame rates in a video with one rate."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A byte range [start, end) of a file. `shown` is its first presentation time in ticks."""

    start: int
    end: int
    seconds: Fraction
    samples: int
    shown: int

    @property
    def bits(self) -> int:
        return 8 * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Rates:
    """Bits per second: the peak that players must expect, and the average."""

    peak: int
    average: int

    def plus(self, other: Rates) -> Rates:
        """Return the rates when both are played together."""
        return Rates(self.peak + other.peak, self.average + other.average)


NO_RATES = Rates(0, 0)


def video_segments(file: FragmentedFile, segment_s: float) -> tuple[Segment, ...]:
    """Group a video's fragments by the grid; each fragment begins with a key frame."""
    step = Fraction(segment_s) * file.timescale
    starts = segment_starts([fragment.shown for fragment in file.fragments], step)
    borders = pairwise([*starts, len(file.fragments)])
    groups = [list(file.fragments[begin:end]) for begin, end in borders]
    return to_segments(_merge_short_end(groups, file), file)


def to_segments(groups: Sequence[Sequence[Fragment]], file: FragmentedFile) -> tuple[Segment, ...]:
    """Return groups of fragments as segments; a segment of video lasts until the next one is shown.

    The sum of the frames' durations is less than that where frames are reordered at uneven times.
    """
    starts = [group[0].shown for group in groups]
    if file.channels:
        lengths = [sum(f.duration for f in group) for group in groups]
    else:
        ends = [*starts[1:], max((f.shown_end for group in groups for f in group), default=0)]
        lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    return tuple(
        Segment(
            start=group[0].start,
            end=group[-1].end,
            seconds=Fraction(length, file.timescale),
            samples=sum(f.samples for f in group),
            shown=group[0].shown,
        )
        for group, length in zip(groups, lengths, strict=True)
    )


def sound_segments(file: FragmentedFile) -> tuple[Segment, ...]:
    """Return each fragment of a sound as a segment: the muxer has already cut them to length."""
    return to_segments(_merge_short_end([[fragment] for fragment in file.fragments], file), file)


def _merge_short_end(groups: list[list[Fragment]], file: FragmentedFile) -> list[list[Fragment]]:
    """Merge a last group that is shorter than MIN_LAST_S into the one before it.

    Measured to the last frame's time, which is the same in all rungs; its duration is not.
    """
    length = groups[-1][-1].last_shown - groups[-1][0].shown
    if len(groups) > 1 and length < MIN_LAST_S * file.timescale:
        return [*groups[:-2], [*groups[-2], *groups[-1]]]
    return groups


def key_frames(file: FragmentedFile) -> tuple[Segment, ...]:
    """Return the ranges of an I-frame playlist: each from a `moof` box to the end of its first sample."""
    lengths = to_segments([[fragment] for fragment in file.fragments], file)
    return tuple(
        replace(segment, end=fragment.first_end, samples=1)
        for segment, fragment in zip(lengths, file.fragments, strict=True)
    )


def target_duration(segments: Sequence[Segment]) -> int:
    """Return the longest segment's length in whole seconds, rounded."""
    return max(1, *(int(s.seconds + MIN_RUN) for s in segments))


def rates(segments: Sequence[Segment]) -> Rates:
    """Measure the bit rates. The peak is over runs of segments of about the target duration."""
    target = target_duration(segments)
    peak = Fraction(0)
    for first in range(len(segments)):
        bits, seconds = 0, Fraction(0)
        for segment in segments[first:]:
            bits, seconds = bits + segment.bits, seconds + segment.seconds
            if seconds > MAX_RUN * target:
                break
            if seconds >= MIN_RUN * target and bits > peak * seconds:
                peak = bits / seconds
    whole = sum((s.seconds for s in segments), Fraction(0)) or Fraction(1)
    average = sum(s.bits for s in segments) / whole
    return Rates(peak=math.ceil(max(peak, average)), average=math.ceil(average))


def frame_rate(segments: Sequence[Segment]) -> float:
    """Return the frames per second to three decimals; where the rate varies, that of the fastest segment."""
    seconds = sum((s.seconds for s in segments), Fraction(0))
    mean = sum(s.samples for s in segments) / (seconds or 1)
    whole = [s.samples / s.seconds for s in segments[:-1] or segments if s.seconds]
    largest = max(whole, default=mean)
    varies = largest - min(whole, default=mean) > _MAX_SPREAD * mean
    return round(_nominal_rate(float(largest if varies else mean)), 3)


def _nominal_rate(rate: float) -> float:
    """Return the nearest whole or NTSC rate, if rounded timestamps may explain the difference."""
    nominal = (float(round(rate)), round(rate) * 1000 / 1001)
    nearest = min(nominal, key=lambda each: abs(each - rate))
    return nearest if abs(nearest - rate) <= _MAX_ROUNDING * nearest else rate
