"""Compare the levels of an encoded sound with its source's, from the first second to the last.

Both are read in blocks of forty seconds. In each block the rendition is aligned with the source where
their loudness fits best, which must agree with their timestamps. Then every band of every channel must be
as loud as in the source. The limits lie between honest encodes and wrong sounds; docs/quality.md has the
figures.
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
from hevcq.ffmpeg.command.levels import BAND_EDGES_HZ, BANDS, PAIRED_BAND, RATE, SoundShape
from hevcq.util.text import lateness, timecode

ENCODED_OFFSET_S = 0.022
"""Seconds by which encoded sound may be early or late; honest encodes stay below 0.015."""
LATE_BY_CONTAINER_S = {AVI: 0.03}
"""Further seconds that are allowed because the container cannot store its encoder's delay (LAME: 1,105
samples)."""
BLOCK, STEP = 42 * RATE, 40 * RATE
"""Records of a block, and from the start of one block to the next."""
WINDOW = 4 * RATE
"""Records that are aligned at a time."""
MAX_LAG = 3 * RATE // 10
"""Largest lag, in records, at which a match is looked for: 0.3 s earlier and later."""
LIVELY, SURE = 0.15, 0.6
"""Relative spread of loudness from which a window must be found, and the correlation at which it is; honest
encodes have 0.9."""
FAINT, CERTAIN = 0.04, 0.8
"""The same for windows that need not be found. Those that are found still show a delay."""
CLEAR_MARGIN = 0.01
"""Correlation by which a lag that is not allowed must fit better than all that are."""
MIN_BEND = 0.003
"""Curvature of the correlation from which its peak is located to a fraction of a record."""
END_RECORDS = 5
"""Records at the end that are not aligned: encoders pad their last frame."""
QUIET_AMPLITUDE = 3e-4
"""Amplitude (of 1) below which a window is not aligned."""
POWER_FLOOR, MASK_SHARE = 1e-7, 1e-4
"""Power, and share of all bands' power, below which nothing is audible."""
SHORT = 5
"""Records in a window whose levels are compared: 50 ms."""
RUN, RUN_DB = 4, (6.0, 6.0, 6.0, 6.5)
"""So many neighbouring windows must not all be off by more than so many dB in a band."""
LONG, LONG_DB = 40, (5.0, 5.0, 5.0, 5.5)
"""The mean of so many windows must not be off by more than so many dB in a band."""
ALL_DB = 2.6
"""The same limit for the three lower bands together."""
MAX_DB = 12.0
"""Decibels that one window can add to a mean: a softened attack is no long difference."""
CORRELATED = RATE
"""Records over which two channels are correlated."""
MAX_CORRELATION_CHANGE = 0.6
"""Change of the correlation of two channels (-1 to 1) above which the sound is wrong."""
CORRELATION_FLOOR = 1e-6
SILENCE = 1e-6
"""Power below which a window is silent."""


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """An encoded sound: its channels and container, and how much later and louder than the source it must be."""

    shape: SoundShape
    muxer: str
    moved_s: float = 0.0
    gain_db: float = 0.0

    @property
    def offset_s(self) -> float:
        """The seconds by which it may be early or late."""
        return ENCODED_OFFSET_S + LATE_BY_CONTAINER_S.get(self.muxer, 0.0)


@dataclass(slots=True)
class Levels:
    """A level file that is read in blocks. Before its start and after its end it reads as silence."""

    path: Path
    shape: SoundShape
    records: int = field(init=False)

    def __post_init__(self) -> None:
        self.records = self.path.stat().st_size // self.shape.record_bytes

    def columns(self, first: int, count: int) -> list[array[float]]:
        """Return `count` records from `first` on, as one column for each value of a record."""
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
    """Return how a sound differs from its source, as a predicate with the time, or ""."""
    old, new = Levels(source, track.shape), Levels(made, track.shape)
    if not old.records or not new.records:
        return "" if old.records == new.records == 0 else "cannot be compared: it is empty"
    moved = track.moved_s * RATE
    shift = round(moved)
    end = max(old.records, new.records - shift)
    for first in range(0, max(1, end - (BLOCK - STEP)), STEP):
        count = min(BLOCK, end - first)
        before = old.columns(first, count)
        if track.gain_db:
            power = 10 ** (track.gain_db / 10)
            before = [array("f", (value * power for value in column)) for column in before]
        after = new.columns(first + shift - MAX_LAG, count + 2 * MAX_LAG)
        if not all(math.isfinite(sum(column)) for column in (*before, *after)):
            return f"cannot be compared at {_time_of(first)}"
        in_both = min(old.records, new.records - shift) - first - END_RECORDS
        if problem := _Block(before, after, track, first, shift - moved).problem(in_both):
            return problem
    return ""


def _time_of(record: float) -> str:
    return timecode(max(0.0, record / RATE))


@dataclass(slots=True)
class _Block:
    """A part of both sounds from the record `first` of the source on.

    `after`, of the rendition, begins MAX_LAG records earlier. `rounding` is what rounding added to its place.
    """

    before: list[array[float]]
    after: list[array[float]]
    track: SoundTrack
    first: int
    rounding: float

    def problem(self, in_both: int) -> str:
        """Return the problem, or "". Both files have the first `in_both` records of the block."""
        lags: list[float] = []
        lost: list[int] = []
        source, made = _loudness(self.before), _loudness(self.after)
        for begin in _window_starts(min(len(source), in_both)):
            part = source[begin : min(begin + WINDOW, in_both)]
            spread = _loudness_spread(part)
            if spread < FAINT:
                continue
            window_lag, correlation = self._find_lag(part, made, begin)
            if correlation >= (SURE if spread > LIVELY else CERTAIN):
                lags.append(window_lag)
            elif spread > LIVELY:
                lost.append(begin)
        if len(lost) > len(lags):
            return (
                self._level_clause(0) or f"is not the source's at {_time_of(self.first + lost[0])}"
            )
        lag = median(lags) if lags else 0.0
        late_s = (lag + self.rounding) / RATE
        if abs(late_s) > self.track.offset_s:
            return f"is {lateness(late_s, 3)} for the picture after {_time_of(self.first)}"
        return self._level_clause(round(lag))

    def _find_lag(
        self, part: Sequence[float], made: Sequence[float], begin: int
    ) -> tuple[float, float]:
        """Return by how many records a window is late in the rendition, and its correlation there.

        An allowed lag wins unless another one fits clearly better: some sounds repeat themselves.
        """
        most = int(self.track.offset_s * RATE)
        fits = _correlations(part, made, begin, range(-most - 1, most + 2))
        best = max(range(-most, most + 1), key=lambda lag: fits[lag])
        if abs(best) == most or fits[best] < 1 - CLEAR_MARGIN:
            wide = _correlations(part, made, begin, range(-MAX_LAG, MAX_LAG + 1))
            further = max(wide, key=lambda lag: wide[lag])
            if wide[further] > fits[best] + CLEAR_MARGIN:
                fits, best = wide, further
        left, right = (fits.get(lag, fits[best]) for lag in (best - 1, best + 1))
        bend = left - 2 * fits[best] + right
        off = (left - right) / (2 * bend) if bend < -MIN_BEND else 0.0
        return best + max(-0.5, min(0.5, off)), fits[best]

    def _level_clause(self, lag: int) -> str:
        """Compare the levels of the source with the rendition's `lag` records later."""
        count = len(self.before[0]) // SHORT * SHORT
        begin = MAX_LAG + lag
        before = [column[:count] for column in self.before]
        after = [column[begin : begin + count] for column in self.after]
        channels, bass = self.track.shape.channels, self.track.shape.bass
        for channel in range(channels):
            pair = [
                _window_means(c[channel : BANDS * channels : channels], SHORT)
                for c in (before, after)
            ]
            bands = range(1 if channel == bass else BANDS)
            problem = _level_problem(pair[0], pair[1], bands)
            if problem:
                words, window = problem
                where = f" (channel {channel + 1})" if channels > 1 else ""
                return f"{words} at {_time_of(self.first + window * SHORT)}{where}"
        return self._channel_clause(before, after) if channels > 1 else ""

    def _channel_clause(self, before: list[array[float]], after: list[array[float]]) -> str:
        """Compare the correlation of neighbouring channels: it shows wrong polarity, which levels do not."""
        channels, bass = self.track.shape.channels, self.track.shape.bass
        old, new = (_channel_correlations(columns, channels) for columns in (before, after))
        for channel in range(channels):
            neighbour = (channel + 1) % channels
            if bass in {channel, neighbour}:
                continue
            for second, (one, other) in enumerate(zip(old[channel], new[channel], strict=True)):
                if abs(one - other) > MAX_CORRELATION_CHANGE:
                    names = f"channels {channel + 1} and {neighbour + 1}"
                    at = _time_of(self.first + second * CORRELATED)
                    return f"differs at {at}: {names} do not go together as in the source"
        return ""


def _window_starts(count: int) -> Iterator[int]:
    """Yield where windows begin: one after the other, and the last one so that it ends at `count`."""
    yield from range(0, count - WINDOW + 1, WINDOW)
    if count > 0 and count % WINDOW:
        yield max(0, count - WINDOW)


def _loudness(columns: Sequence[array[float]]) -> list[float]:
    powers = columns[: len(columns) // (BANDS + 1) * BANDS] if len(columns) > BANDS else columns
    return [math.sqrt(max(0.0, power)) for power in map(sum, zip(*powers, strict=True))]


def _loudness_spread(part: Sequence[float]) -> float:
    """Return the standard deviation of loudness relative to its mean; 0.0 if the part is short or silent."""
    count = len(part)
    mean = sum(part) / max(1, count)
    if count < WINDOW // 4 or mean < QUIET_AMPLITUDE:
        return 0.0
    return math.sqrt(max(0.0, sum(map(mul, part, part)) / count - mean * mean)) / mean


def _correlations(
    part: Sequence[float], made: Sequence[float], begin: int, lags: range
) -> dict[int, float]:
    """Return the correlation of a window at each lag; `made` begins MAX_LAG records earlier."""
    count = len(part)
    mean = sum(part) / count
    spread = sum(map(mul, part, part)) / count - mean * mean
    correlations = {}
    for lag in lags:
        other = made[begin + MAX_LAG + lag : begin + MAX_LAG + lag + count]
        mean_other = sum(other) / count
        covariance = sum(map(mul, part, other)) / count - mean * mean_other
        product = spread * (sum(map(mul, other, other)) / count - mean_other * mean_other)
        correlations[lag] = covariance / math.sqrt(product) if product > 0 else 0.0
    return correlations


def _window_means(columns: Sequence[array[float]], length: int) -> list[list[float]]:
    """Return the mean power of each column in windows of `length` records."""
    means = []
    for column in columns:
        sums = list(accumulate(column, initial=0.0))[::length]
        means.append([max(0.0, total / length) for total in map(sub, sums[1:], sums)])
    return means


def _level_problem(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], bands: range
) -> tuple[str, int] | None:
    """Return how a channel's levels differ, and from which window on; None if they do not."""
    sides = [[sum(row) for row in zip(*side, strict=True)] for side in (before, after)]
    totals = list(map(max, *sides))
    near = map(max, totals, [*totals[1:], 0.0], [0.0, *totals], [0.0, 0.0, *totals])
    floors = [POWER_FLOOR + MASK_SHARE * total for total in near]
    off = [_decibels(before[band], after[band], floors) for band in bands]
    lower = range(min(len(bands), BANDS - 1))
    parts = [
        [sum(row) for row in zip(*(side[b] for b in lower), strict=True)]
        for side in (before, after)
    ]
    whole = _decibels(parts[0], parts[1], floors)
    checks = [
        (_run_minima(values), RUN_DB[band], band) for band, values in zip(bands, off, strict=True)
    ]
    checks += [
        (_running_means(values), LONG_DB[band], band)
        for band, values in zip(bands, off, strict=True)
    ]
    for values, most, band in (*checks, (_running_means(whole), ALL_DB, -1)):
        window = next((place for place, value in enumerate(values) if abs(value) > most), None)
        if window is None:
            continue
        within = slice(window + 1, window + RUN)
        if max(whole[within]) < -MAX_DB and max(sides[1][within]) < SILENCE:
            return "is silent", window
        level, *others = (
            10 * math.log10((sum(other[window:]) + POWER_FLOOR) / (sum(one[window:]) + POWER_FLOOR))
            for one, other in ((*parts,), *zip(before, after, strict=True))
        )
        if band < 0 or (abs(level) > ALL_DB and all(abs(each - level) < ALL_DB for each in others)):
            return f"is {abs(level):.0f} dB {'louder' if level > 0 else 'quieter'}", window
        low_hz, high_hz = BAND_EDGES_HZ[band : band + 2]
        return f"differs ({values[window]:+.0f} dB from {low_hz} to {high_hz} Hz)", window
    return None


def _run_minima(values: Sequence[float]) -> list[float]:
    """Return for each RUN neighbouring windows the smallest difference, or 0 if their signs differ."""
    rows = [values[place:] for place in range(RUN)]
    lowest, highest = (list(map(pick, *rows)) for pick in (min, max))
    return [low if low > 0 else min(0.0, high) for low, high in zip(lowest, highest, strict=True)]


def _running_means(values: Sequence[float]) -> list[float]:
    """Return the mean difference of each LONG neighbouring windows; of a short sound, of all windows."""
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


def _channel_correlations(columns: Sequence[array[float]], channels: int) -> list[list[float]]:
    """Return the correlation of each channel with the next one, for each second."""
    paired = (PAIRED_BAND - 1) * channels
    powers = _window_means(columns[paired : paired + channels], CORRELATED)
    correlations = []
    for channel in range(channels):
        product = columns[BANDS * channels + channel]
        sums = list(accumulate(product, initial=0.0))[::CORRELATED]
        one = [power + CORRELATION_FLOOR for power in powers[channel]]
        other = [power + CORRELATION_FLOOR for power in powers[(channel + 1) % channels]]
        rows = zip(map(sub, sums[1:], sums), one, other, strict=True)
        correlations.append([total / CORRELATED / math.sqrt(a * b) for total, a, b in rows])
    return correlations
