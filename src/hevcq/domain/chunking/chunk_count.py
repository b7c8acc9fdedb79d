"""Choose the number and sizes of chunks with which a number of workers finish soonest. Pure.

The longest chunk is scheduled first (`longest_first`), so that little work remains when the first
workers run out of chunks. Each candidate cut is simulated on the modelled work with an error of
`DOUBT` on each chunk, since a plan that is best only for an exact model is not the best plan.

Equal chunks without this search miss the bounds 1.05 and 1.10 of the makespan: at best 1.057
against 1.05 (64 workers, 2 h) and 1.118 against 1.10 (256 workers, 6 h), for 4 to 12 rounds of
chunks. With the search they are 1.043 and 1.067.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import accumulate

from hevcq.domain.chunk_settings import Chunking

DOUBT = 0.18
"""Relative error of a chunk's modelled work, either way. Measured: the model's error is 0.18
(standard deviation) for one group of pictures, and less for chunks of several groups
(docs/performance.md)."""
TRIES = 6
"""Simulations of each candidate cut, each with other errors of its chunks."""
ROUNDS = 8
"""Rounds of chunks tried beyond the necessary ones; more do not finish a video any sooner."""
OVERHEAD_S = 0.3
"""Fixed cost of a chunk, in seconds of video: the start of a process and of an encoder."""
MUCH_THE_SAME = 1.01
"""Of the cuts that finish within this factor of the best, the one with the fewest chunks wins."""
MIXES = ((0.3, 0.4), (0.6, 0.5))
"""Share of the video in long chunks, and the length of these as a share of a worker's part."""
_GOLDEN = 0.6180339887498949

Goals = list[float]
"""Shares of the work at which chunks should begin, without the first."""


def longest_first(costs: Sequence[float]) -> list[int]:
    """Return the indices of the costs, highest cost first; equal costs keep their order."""
    return sorted(range(len(costs)), key=lambda place: (-costs[place], place))


def ways_to_cut(chunking: Chunking, length_s: float, workers: int) -> list[Goals]:
    """Return the candidate cuts for a video of `length_s` seconds."""
    most = max(1, int(length_s / chunking.min_s))
    wanted = max(2, -(-length_s // chunking.target_s))
    fewest = int(max(1, -(-wanted // workers)))
    counts = {min(most, rounds * workers) for rounds in range(fewest, fewest + ROUNDS)}
    ways = [goals_of([1.0] * count) for count in sorted(counts)]
    part_s = length_s / workers
    short = min(chunking.target_s, max(chunking.min_s, part_s / ROUNDS))
    for share, size in MIXES:
        long = min(chunking.target_s, part_s * size)
        if long > short:
            many = round(length_s * (1 - share) / short)
            ways.append(goals_of([long] * max(1, round(length_s * share / long)) + [short] * many))
    return ways


def goals_of(weights: Sequence[float]) -> Goals:
    """Return the goals of chunks whose shares of the work are proportional to these weights."""
    total = sum(weights)
    return [done / total for done in accumulate(weights)][:-1]


def best_cut(
    cuts: Sequence[tuple[int, ...]],
    costs: Sequence[Sequence[float]],
    length_s: float,
    workers: int,
) -> tuple[int, ...]:
    """Return the cut that the workers finish soonest, given each chunk's share of the work."""
    extra = OVERHEAD_S / length_s
    times = [expected_time([cost + extra for cost in each], workers) for each in costs]
    enough = min(times) * MUCH_THE_SAME
    good = [cut for cut, time in zip(cuts, times, strict=True) if time <= enough]
    return min(good, key=len)


def expected_time(costs: Sequence[float], workers: int) -> float:
    """Return the workers' mean time for chunks of these costs, longest first, in the unit of `costs`."""
    order = longest_first(costs)
    return sum(_time(costs, order, workers, throw) for throw in range(TRIES)) / TRIES


def _time(costs: Sequence[float], order: Sequence[int], workers: int, throw: int) -> float:
    free = [0.0] * workers
    for place in order:
        # Evenly spread for any number of chunks, and the same on every machine.
        doubt = ((place + 1) * _GOLDEN + (throw + 1) * _GOLDEN**2 * (place % 7 + 1)) % 1.0
        took = costs[place] * (1 + DOUBT * (2 * doubt - 1) * 3**0.5)
        heapq.heapreplace(free, free[0] + took)
    return max(free)
