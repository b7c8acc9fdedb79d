"""How many chunks of which sizes let a number of workers end a video soonest. Pure.

The longest chunk goes first (`longest_first`): what is still to be done when the first workers
run dry is then short. How a way to cut would come out is tried here on the modelled work, with
`DOUBT` on each chunk, since a plan that is best only if the model is exact is not best.

Equal chunks without this search miss the bounds of benchmarks/makespan_bench.py: 1.057 at best of
1.05 (64 workers, 2 h) and 1.118 of 1.10 (256 workers, 6 h), for 4 to 12 rounds of chunks; with it
1.043 and 1.067.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import accumulate
from statistics import median

from hevcq.domain.chunk_settings import Chunking

DOUBT = 0.18
"""How far the modelled work of a chunk may be off either way. Measured: for a group of pictures
the model's error is 0.18 (standard deviation), for chunks of several groups less
(docs/performance.md)."""
TRIES = 6
"""How many throws of doubt a way to cut is judged by."""
ROUNDS = 8
"""So many more rounds of chunks than needed are tried; more do not end a video any sooner."""
OVERHEAD_S = 0.3
"""What each chunk costs besides its video, in seconds of video: a process and an encoder's start."""
MUCH_THE_SAME = 1.01
"""Of ways that end within this factor of the best, the one with the fewest chunks is taken."""
MIXES = ((0.3, 0.4), (0.6, 0.5))
"""Share of the video in long chunks, and how long these are as a share of a worker's part."""
_GOLDEN = 0.6180339887498949

Goals = list[float]
"""The shares of the work at which chunks should begin, without the first."""


def longest_first(costs: Sequence[float]) -> list[int]:
    """Return the places of the costs, the highest first and equal ones as they come."""
    return sorted(range(len(costs)), key=lambda place: (-costs[place], place))


def ways_to_cut(chunking: Chunking, length_s: float, workers: int) -> list[Goals]:
    """Return the ways worth trying for a video of that length."""
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
    """Return where chunks begin whose shares of the work are as these weights."""
    total = sum(weights)
    return [done / total for done in accumulate(weights)][:-1]


def best_cut(
    cuts: Sequence[tuple[int, ...]],
    costs: Sequence[Sequence[float]],
    length_s: float,
    workers: int,
) -> tuple[int, ...]:
    """Return the cut whose chunks, of these shares of the work, the workers end soonest."""
    extra = OVERHEAD_S / length_s
    times = [expected_time([cost + extra for cost in each], workers) for each in costs]
    enough = min(times) * MUCH_THE_SAME
    good = [cut for cut, time in zip(cuts, times, strict=True) if time <= enough]
    return min(good, key=len)


def expected_time(costs: Sequence[float], workers: int) -> float:
    """Return how long the workers take for chunks of these costs on average, longest first."""
    order = longest_first(costs)
    return sum(_time(costs, order, workers, throw) for throw in range(TRIES)) / TRIES


def _time(costs: Sequence[float], order: Sequence[int], workers: int, throw: int) -> float:
    free = [0.0] * workers
    for place in order:
        # Evenly spread over its range whatever the number of chunks, and the same on any machine.
        doubt = ((place + 1) * _GOLDEN + (throw + 1) * _GOLDEN**2 * (place % 7 + 1)) % 1.0
        took = costs[place] * (1 + DOUBT * (2 * doubt - 1) * 3**0.5)
        heapq.heapreplace(free, free[0] + took)
    return max(free)


SLOWER = 3.0
"""So many times longer than expected: the model of the work is off by a fifth, not by two thirds."""
LEAST_DONE = 3
"""So many chunks must be done before one is measured by them."""
WORTH = 1.5
"""What is left must take so many times longer here than the whole chunk elsewhere."""
LOOK_S = 10.0
"""How often a chunk that is encoded is looked at; each look reads the records of the parts."""


def is_straggler(
    cost: float, share: float, elapsed_s: float, done: Sequence[tuple[float, float]]
) -> bool:
    """Return whether a chunk of this modelled cost, of which a share is encoded, trails far behind.

    `done` holds the cost and the seconds of each chunk of the video that is done.
    """
    known = [seconds / each for each, seconds in done if each > 0 and seconds > 0]
    if len(known) < LEAST_DONE or cost <= 0:
        return False
    expected = median(known) * cost
    if share <= 0:
        # Encoders look far ahead before their first frame: its absence says nothing of their speed.
        return elapsed_s > expected
    whole = elapsed_s / share
    return whole > SLOWER * expected and whole - elapsed_s > WORTH * expected
