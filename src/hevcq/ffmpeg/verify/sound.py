"""Compare the levels of a sound that was encoded anew with its source's, from the first second to the last.

Both are read in blocks of forty seconds. In each the rendition is laid over the source where their
loudness fits best, which must be where their times say, and then every band of every channel must be as
loud. Thresholds lie between honest encodes and wrong sounds; docs/quality.md has the figures.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add, mul, sub, truediv
from pathlib import Path
from statistics import median

from hevcq.domain.media.containers import AVI
from hevcq.ffmpeg.command.levels import BANDS, EDGES, PAIRED, RATE, SoundShape
from hevcq.util.text import lateness, timecode

ENCODED_OFFSET_S = 0.022
"""Seconds by which encoded sound may lie off; honest encodes stay below 0.015."""
LATE_BY_CONTAINER_S = {AVI: 0.03}
"""Seconds by which encoded sound may lie later still, because a container cannot say what its encoder put
in front (LAME: 1,105 samples)."""
BLOCK, STEP = 42 * RATE, 40 * RATE
"""Records compared at a time, and from one block to the next."""
WINDOW = 4 * RATE
"""Records in which a place in time is looked for."""
MAX_LAG = 3 * RATE // 10
"""Records by which sound is looked for earlier and later: 0.3 s."""
LIVELY, SURE = 0.15, 0.6
"""Spread of loudness, as a share of its mean, from which a window must be found again, and the correlation
that finds it; honest encodes have 0.9."""
FAINT, CERTAIN = 0.04, 0.8
"""The same of windows that need not be found; where they are they tell of a sound that is late."""
CLEARLY = 0.01
"""Correlation by which another place must fit better than those that are allowed."""
SHARP = 0.003
"""Bend of the correlation from which its peak is told to a part of a record."""
EDGE = 5
"""Records at the end that tell nothing of time: encoders fill their last frame."""
QUIET = 3e-4
"""Amplitude (of 1) below which a window says nothing of time."""
FLOOR, MASK = 1e-7, 1e-4
"""Power, and the share of the power of all bands, below which nothing is heard."""
SHORT = 5
"""Records in a window whose levels are compared: 50 ms."""
RUN, RUN_DB = 4, (6.0, 6.0, 6.0, 6.5)
"""Neighbouring windows that must all be off, and by how many dB in each band."""
LONG, LONG_DB = 40, (5.0, 5.0, 5.0, 5.5)
"""Windows whose mean must not be off, and by how many dB in each band."""
ALL_DB = 2.6
"""Decibels by which the three lower bands together may be off in the mean of LONG windows."""
MAX_DB = 12.0
"""Decibels that one window counts at most in a mean: a soft attack is no long difference."""
TOGETHER = RATE
"""Records over which it is compared what two channels have in common."""
UNLIKE = 0.6
"""Change of the correlation of two channels, from -1 to 1, that is no encode's."""
TOGETHER_FLOOR = 1e-6
SILENCE = 1e-6
"""Power below which a window is silent."""


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """A sound that was encoded anew: its channels, container, and how much later and louder it should be."""

    shape: SoundShape
    muxer: str
    moved_s: float = 0.0
    gain_db: float = 0.0

    @property
    def offset_s(self) -> float:
        """By how many seconds it may lie off."""
        return ENCODED_OFFSET_S + LATE_BY_CONTAINER_S.get(self.muxer, 0.0)


@dataclass(slots=True)
class Levels:
    """A file of levels, read in blocks; silence is around it."""

    path: Path
    shape: SoundShape
    records: int = field(init=False)

    def __post_init__(self) -> None:
        self.records = self.path.stat().st_size // self.shape.record_bytes

    def columns(self, first: int, count: int) -> list[array[float]]:
        """Return so many records from `first` on, a column for each value of a record."""
        size = self.shape.record_bytes
        begin, end = max(0, first), max(0, min(self.records, first + count))
        data = b""
        if end > begin:
            with self.path.open("rb") as file:
                file.seek(begin * size)
                data = file.read((end - begin) * size)
        before = min(count, begin - first) * size
        values = array("f", (bytes(before) + data).ljust(count * size, b"\0"))
        return [values[place :: size // 4] for place in range(size // 4)]


def sound_problem(source: Path, made: Path, track: SoundTrack) -> str:
    """Return how a sound differs from its source's, as a predicate that names the time, or ""."""
    there, here = Levels(source, track.shape), Levels(made, track.shape)
    if not there.records or not here.records:
        return "" if there.records == here.records == 0 else "cannot be compared: it is empty"
    moved = track.moved_s * RATE
    shift = round(moved)
    end = max(there.records, here.records - shift)
    for first in range(0, max(1, end - (BLOCK - STEP)), STEP):
        count = min(BLOCK, end - first)
        before = there.columns(first, count)
        if track.gain_db:
            power = 10 ** (track.gain_db / 10)
            before = [array("f", (value * power for value in column)) for column in before]
        after = here.columns(first + shift - MAX_LAG, count + 2 * MAX_LAG)
        if not all(math.isfinite(sum(column)) for column in (*before, *after)):
            return f"cannot be compared at {_at(first)}"
        both = min(there.records, here.records - shift) - first - EDGE
        problem = _Block(before, after, track, first, shift - moved).problem(both)
        if problem:
            return problem
    return ""


def _at(record: float) -> str:
    return timecode(max(0.0, record / RATE))


@dataclass(slots=True)
class _Block:
    """A stretch of both sounds; `after` begins MAX_LAG records earlier, and `rest` was rounded off its place."""

    before: list[array[float]]
    after: list[array[float]]
    track: SoundTrack
    first: int
    rest: float

    def problem(self, both: int) -> str:
        """Return what is wrong, or ""; so many records of the block are in both files."""
        lags: list[float] = []
        lost: list[int] = []
        source, made = _loudness(self.before), _loudness(self.after)
        for begin in _windows(min(len(source), both)):
            part = source[begin : min(begin + WINDOW, both)]
            spread = _spread(part)
            if spread < FAINT:
                continue
            found, likeness = self._lag(part, made, begin)
            if likeness >= (SURE if spread > LIVELY else CERTAIN):
                lags.append(found)
            elif spread > LIVELY:
                lost.append(begin)
        if len(lost) > len(lags):
            return self._levels(0) or f"is not the source's at {_at(self.first + lost[0])}"
        lag = median(lags) if lags else 0.0
        late_s = (lag + self.rest) / RATE
        if abs(late_s) > self.track.offset_s:
            return f"is {lateness(late_s, 3)} for the picture after {_at(self.first)}"
        return self._levels(round(lag))

    def _lag(self, part: Sequence[float], made: Sequence[float], begin: int) -> tuple[float, float]:
        """Return by how many records a window lies later, and how like it is there.

        A sound that is much the same a little later or earlier is where it should be.
        """
        most = int(self.track.offset_s * RATE)
        fits = _correlations(part, made, begin, range(-most - 1, most + 2))
        best = max(range(-most, most + 1), key=lambda lag: fits[lag])
        if abs(best) == most or fits[best] < 1 - CLEARLY:
            wide = _correlations(part, made, begin, range(-MAX_LAG, MAX_LAG + 1))
            further = max(wide, key=lambda lag: wide[lag])
            if wide[further] > fits[best] + CLEARLY:
                fits, best = wide, further
        left, right = (fits.get(lag, fits[best]) for lag in (best - 1, best + 1))
        bend = left - 2 * fits[best] + right
        off = (left - right) / (2 * bend) if bend < -SHARP else 0.0
        return best + max(-0.5, min(0.5, off)), fits[best]

    def _levels(self, lag: int) -> str:
        """Compare the levels, the rendition laid over the source `lag` records later."""
        count = len(self.before[0]) // SHORT * SHORT
        begin = MAX_LAG + lag
        before = [column[:count] for column in self.before]
        after = [column[begin : begin + count] for column in self.after]
        channels, bass = self.track.shape.channels, self.track.shape.bass
        for channel in range(channels):
            pair = [
                _means(c[channel : BANDS * channels : channels], SHORT) for c in (before, after)
            ]
            bands = range(1 if channel == bass else BANDS)
            problem = _level_problem(pair[0], pair[1], bands)
            if problem:
                words, window = problem
                where = f" (channel {channel + 1})" if channels > 1 else ""
                return f"{words} at {_at(self.first + window * SHORT)}{where}"
        return self._together(before, after) if channels > 1 else ""

    def _together(self, before: list[array[float]], after: list[array[float]]) -> str:
        """Compare what neighbouring channels have in common: opposite polarity is heard, and no level tells."""
        channels, bass = self.track.shape.channels, self.track.shape.bass
        ones, others = _in_common(before, channels), _in_common(after, channels)
        for channel in range(channels):
            after_it = (channel + 1) % channels
            if bass in {channel, after_it}:
                continue
            for second, (one, other) in enumerate(zip(ones[channel], others[channel], strict=True)):
                if abs(one - other) > UNLIKE:
                    names = f"channels {channel + 1} and {after_it + 1}"
                    at = _at(self.first + second * TOGETHER)
                    return f"differs at {at}: {names} do not go together as in the source"
        return ""


def _windows(count: int) -> Iterator[int]:
    """Yield where windows begin: side by side, and the last one at the end."""
    yield from range(0, count - WINDOW + 1, WINDOW)
    if count > 0 and count % WINDOW:
        yield max(0, count - WINDOW)


def _loudness(columns: Sequence[array[float]]) -> list[float]:
    powers = columns[: len(columns) // (BANDS + 1) * BANDS] if len(columns) > BANDS else columns
    return [math.sqrt(max(0.0, power)) for power in map(sum, zip(*powers, strict=True))]


def _spread(part: Sequence[float]) -> float:
    """Return how much the loudness changes, as a share of its mean; 0 of what is short or silent."""
    count = len(part)
    mean = sum(part) / max(1, count)
    if count < WINDOW // 4 or mean < QUIET:
        return 0.0
    return math.sqrt(max(0.0, sum(map(mul, part, part)) / count - mean * mean)) / mean


def _correlations(
    part: Sequence[float], made: Sequence[float], begin: int, lags: range
) -> dict[int, float]:
    """Return how well a window fits at each lag; `made` begins MAX_LAG records earlier."""
    count = len(part)
    mean = sum(part) / count
    spread = sum(map(mul, part, part)) / count - mean * mean
    found = {}
    for lag in lags:
        other = made[begin + MAX_LAG + lag : begin + MAX_LAG + lag + count]
        mean_other = sum(other) / count
        both = sum(map(mul, part, other)) / count - mean * mean_other
        product = spread * (sum(map(mul, other, other)) / count - mean_other * mean_other)
        found[lag] = both / math.sqrt(product) if product > 0 else 0.0
    return found


def _means(columns: Sequence[array[float]], length: int) -> list[list[float]]:
    """Return the mean power of each column in windows of so many records."""
    found = []
    for column in columns:
        sums = list(accumulate(column, initial=0.0))[::length]
        found.append([max(0.0, total / length) for total in map(sub, sums[1:], sums)])
    return found


def _level_problem(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], bands: range
) -> tuple[str, int] | None:
    """Return how the levels of a channel differ, and from which window on, or None if they do not."""
    sides = [[sum(row) for row in zip(*side, strict=True)] for side in (before, after)]
    totals = list(map(max, *sides))
    near = map(max, totals, [*totals[1:], 0.0], [0.0, *totals], [0.0, 0.0, *totals])
    floors = [FLOOR + MASK * total for total in near]
    off = [_decibels(before[band], after[band], floors) for band in bands]
    lower = range(min(len(bands), BANDS - 1))
    parts = [
        [sum(row) for row in zip(*(side[b] for b in lower), strict=True)]
        for side in (before, after)
    ]
    whole = _decibels(parts[0], parts[1], floors)
    checks = [(_runs(values), RUN_DB[band], band) for band, values in zip(bands, off, strict=True)]
    checks += [
        (_means_of(values), LONG_DB[band], band) for band, values in zip(bands, off, strict=True)
    ]
    for values, most, band in (*checks, (_means_of(whole), ALL_DB, -1)):
        window = next((place for place, value in enumerate(values) if abs(value) > most), None)
        if window is None:
            continue
        within = slice(window + 1, window + RUN)
        if max(whole[within]) < -MAX_DB and max(sides[1][within]) < SILENCE:
            return "is silent", window
        level, *others = (
            _level(one[window:], other[window:])
            for one, other in ((*parts,), *zip(before, after, strict=True))
        )
        if band < 0 or (abs(level) > ALL_DB and all(abs(each - level) < ALL_DB for each in others)):
            return f"is {abs(level):.0f} dB {'louder' if level > 0 else 'quieter'}", window
        found = f"{values[window]:+.0f} dB from {EDGES[band]} to {EDGES[band + 1]} Hz"
        return f"differs ({found})", window
    return None


def _level(before: Sequence[float], after: Sequence[float]) -> float:
    """Return by how many dB one sound is louder than another over a whole stretch."""
    return 10 * math.log10((sum(after) + FLOOR) / (sum(before) + FLOOR))


def _runs(values: Sequence[float]) -> list[float]:
    """Return, for each RUN neighbouring windows, the smallest difference if all have the same sign."""
    rows = [values[place:] for place in range(RUN)]
    lowest, highest = (list(map(pick, *rows)) for pick in (min, max))
    return [low if low > 0 else min(0.0, high) for low, high in zip(lowest, highest, strict=True)]


def _means_of(values: Sequence[float]) -> list[float]:
    """Return the mean difference of each LONG neighbouring windows, or of all of a short sound."""
    length = min(LONG, len(values))
    if length < RUN:
        return []
    capped = (max(-MAX_DB, min(MAX_DB, value)) for value in values)
    sums = list(accumulate(capped, initial=0.0))
    return [total / length for total in map(sub, sums[length:], sums)]


def _decibels(
    before: Sequence[float], after: Sequence[float], floors: Sequence[float]
) -> list[float]:
    ratios = map(truediv, map(add, after, floors), map(add, before, floors))
    return [10 * value for value in map(math.log10, ratios)]


def _in_common(columns: Sequence[array[float]], channels: int) -> list[list[float]]:
    """Return the correlation of each channel with the next one, a second at a time."""
    paired = (PAIRED - 1) * channels
    powers = _means(columns[paired : paired + channels], TOGETHER)
    found = []
    for channel in range(channels):
        product = columns[BANDS * channels + channel]
        sums = list(accumulate(product, initial=0.0))[::TOGETHER]
        one, other = powers[channel], powers[(channel + 1) % channels]
        rows = zip(map(sub, sums[1:], sums), one, other, strict=True)
        found.append(
            [
                total / TOGETHER / math.sqrt((a + TOGETHER_FLOOR) * (b + TOGETHER_FLOOR))
                for total, a, b in rows
            ]
        )
    return found
