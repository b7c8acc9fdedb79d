"""How soon many workers end a video: the planner's chunks, in its order, in virtual time."""

import heapq
import random
import statistics

import pytest

from domain.chunking.indexes import every
from domain.chunking.test_plan import lengths, plan
from hevcq.domain.chunk_settings import Chunking
from hevcq.domain.chunking.chunk_count import best_cut, expected_time, longest_first, ways_to_cut

pytestmark = pytest.mark.repeats


def listed(costs: list[float], workers: int, order: list[int]) -> float:
    """Return when workers end these chunks, who take the next in order as they get free."""
    free = [0.0] * workers
    for place in order:
        heapq.heapreplace(free, free[0] + costs[place])
    return max(free)


@pytest.mark.parametrize(("workers", "limit"), [(2, 1.05), (8, 1.05), (64, 1.08), (256, 1.15)])
def test_two_hours_of_uneven_scenes_end_close_to_the_soonest_that_is_possible(workers, limit):
    """The planner sees frames and bytes; what a scene takes to encode is up to a fifth off either way."""
    ratios = []
    for seed in range(5):
        draw = random.Random(seed)
        scenes = [draw.lognormvariate(0, 0.5) for _ in range(720)]
        model = plan(
            every(2, 7200),
            7200,
            workers=workers,
            weights=lambda at, of=scenes: int(1000 * of[int(at / 10)]),
        )
        costs = [chunk.cost * draw.uniform(0.8, 1.2) for chunk in model.chunks]
        soonest = max(sum(costs) / workers, *costs)
        order = longest_first([chunk.cost for chunk in model.chunks])
        ratios.append(listed(costs, workers, order) / soonest)

    assert statistics.median(ratios) <= limit


def test_the_longest_chunk_goes_first_and_equal_ones_go_as_the_video_runs():
    assert longest_first([2.0, 5.0, 2.0, 9.0]) == [3, 1, 0, 2]


def test_chunks_of_a_known_fleet_are_short_enough_for_each_worker_to_get_several():
    found = plan(every(2, 7200), 7200, workers=32)

    assert len(found.chunks) >= 4 * 32
    assert min(lengths(found)) >= 20


def test_chunks_are_no_shorter_than_they_need_to_be():
    """A process's start and a key frame are the price of each."""
    assert len(plan(every(2, 7200), 7200, workers=2).chunks) <= 124


def test_a_fleet_larger_than_the_video_gets_one_chunk_each_at_most():
    found = plan(every(2, 1200), 1200, workers=500)

    assert len(found.chunks) <= 60
    assert min(lengths(found)) >= 20


def test_of_ways_that_end_as_soon_the_one_with_fewer_chunks_is_taken():
    few, many = tuple(range(64)), tuple(range(128))

    assert best_cut([many, few], [[1 / 128] * 128, [1 / 64] * 64], 1e6, 1) == few


def test_a_way_whose_last_chunk_trails_is_not_taken():
    even, trailing = (0, 1, 2, 3), (0, 1, 2)

    assert best_cut([trailing, even], [[0.3, 0.3, 0.4], [0.25] * 4], 1e6, 2) == even


def test_doubt_makes_one_round_of_equal_chunks_take_longer_than_its_share():
    assert expected_time([1.0] * 8, 8) > 1.05
    assert expected_time([0.125] * 64, 8) < expected_time([1.0] * 8, 8)


@pytest.mark.parametrize("workers", [1, 3, 40, 5000])
def test_every_way_to_cut_rises_within_the_video(workers):
    for goals in ways_to_cut(Chunking(), 3600.0, workers):
        assert goals == sorted(set(goals))
        assert all(0 < goal < 1 for goal in goals)
