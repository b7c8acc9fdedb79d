"""Cut fragmented files into segments on a common grid, and measure their bit rates. Pure.

A segment begins at the first key frame at or after each step of the grid. Forced key frames lie at
the same times in every rung, so segments do as well, whatever other key frames a rung has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from hevcq.domain.planning.ladder import segment_starts
from hevcq.ffmpeg.containers.fragments import Fragment, FragmentedFile

SHORTEST, LONGEST = Fraction(1, 2), Fraction(3, 2)
"""A run of segments counts for the peak if it lasts this share of the target duration (RFC 8216, 4.3.4.2)."""
REST = Fraction(1, 2)
"""Seconds of a last segment at least: hls.js 1.7 never ends a video whose last one lasts 0.1 s."""
_ROUNDED = 0.0004
"""How far a measured frame rate may be off a usual one that is meant: 24 and 23.976 differ by 0.001."""
_UNEVEN = 0.01
"""How much the frame rates of segments may differ for the video to have one rate."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A byte range [start, end) of a file and its length in seconds; `shown` is its first time in ticks."""

    start: int
    end: int
    seconds: Fraction
    samples: int
    shown: int

    @property
    def bits(self) -> int:
        """Its size in bits."""
        return 8 * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Rates:
    """Bits per second: the peak, as players must expect it, and the average."""

    peak: int
    average: int

    def plus(self, other: Rates) -> Rates:
        """Return the rates of both played together."""
        return Rates(self.peak + other.peak, self.average + other.average)


NO_RATES = Rates(0, 0)


def video_segments(file: FragmentedFile, segment_s: float) -> tuple[Segment, ...]:
    """Group the fragments of a video, each of which begins with a key frame, on the grid."""
    step = Fraction(segment_s) * file.timescale
    starts = segment_starts([fragment.shown for fragment in file.fragments], step)
    borders = pairwise([*starts, len(file.fragments)])
    groups = [list(file.fragments[begin:end]) for begin, end in borders]
    return timed(_without_rest(groups, file), file)


def timed(groups: Sequence[Sequence[Fragment]], file: FragmentedFile) -> tuple[Segment, ...]:
    """Return groups of fragments as segments: a picture is shown until the next one begins.

    Decoding times add up to less than that where pictures are reordered at uneven times.
    """
    if file.channels:
        return tuple(
            _segment(group, Fraction(sum(f.duration for f in group), file.timescale))
            for group in groups
        )
    ends = [group[0].shown for group in groups[1:]]
    ends.append(max((f.shown_end for group in groups for f in group), default=0))
    return tuple(
        _segment(group, Fraction(end - group[0].shown, file.timescale))
        for group, end in zip(groups, ends, strict=True)
    )


def sound_segments(file: FragmentedFile) -> tuple[Segment, ...]:
    """Return each fragment of a sound as a segment: the encoder already cut it to their length."""
    return timed(_without_rest([[fragment] for fragment in file.fragments], file), file)


def _without_rest(groups: list[list[Fragment]], file: FragmentedFile) -> list[list[Fragment]]:
    """Return the groups with a last one that is shorter than REST in the one before it.

    By the times of pictures, which are the same in all rungs; their lengths are not.
    """
    rest = groups[-1][-1].last_shown - groups[-1][0].shown
    if len(groups) > 1 and rest < REST * file.timescale:
        return [*groups[:-2], [*groups[-2], *groups[-1]]]
    return groups


def key_frames(file: FragmentedFile) -> tuple[Segment, ...]:
    """Return the ranges of an I-frame playlist: each from a moof to the end of its first sample."""
    lengths = timed([[fragment] for fragment in file.fragments], file)
    return tuple(
        replace(segment, end=fragment.first_end, samples=1)
        for segment, fragment in zip(lengths, file.fragments, strict=True)
    )


def _segment(group: Sequence[Fragment], seconds: Fraction) -> Segment:
    return Segment(
        start=group[0].start,
        end=group[-1].end,
        seconds=seconds,
        samples=sum(f.samples for f in group),
        shown=group[0].shown,
    )


def target_duration(segments: Sequence[Segment]) -> int:
    """Return the longest segment's length, rounded to whole seconds."""
    return max(1, *(int(s.seconds + SHORTEST) for s in segments))


def rates(segments: Sequence[Segment]) -> Rates:
    """Measure the bit rates: the peak is over runs of segments of about the target duration."""
    target = target_duration(segments)
    peak = Fraction(0)
    for first in range(len(segments)):
        bits, seconds = 0, Fraction(0)
        for segment in segments[first:]:
            bits, seconds = bits + segment.bits, seconds + segment.seconds
            if seconds > LONGEST * target:
                break
            if seconds >= SHORTEST * target and bits > peak * seconds:
                peak = bits / seconds
    whole = sum((s.seconds for s in segments), Fraction(0)) or Fraction(1)
    average = sum(s.bits for s in segments) / whole
    return Rates(peak=_up(max(peak, average)), average=_up(average))


def _up(rate: Fraction) -> int:
    return int(-(-rate // 1))


def frame_rate(segments: Sequence[Segment]) -> float:
    """Return the frames per second, to three decimals; of a varying rate the largest of a segment."""
    seconds = sum((s.seconds for s in segments), Fraction(0))
    mean = sum(s.samples for s in segments) / (seconds or 1)
    whole = [s.samples / s.seconds for s in segments[:-1] or segments if s.seconds]
    largest = max(whole, default=mean)
    varies = largest - min(whole, default=mean) > _UNEVEN * mean
    return round(_usual(float(largest if varies else mean)), 3)


def _usual(rate: float) -> float:
    """Return the whole rate, or the one of NTSC, that times in milliseconds were rounded from."""
    known = (float(round(rate)), round(rate) * 1000 / 1001)
    nearest = min(known, key=lambda each: abs(each - rate))
    return nearest if abs(nearest - rate) <= _ROUNDED * nearest else rate
