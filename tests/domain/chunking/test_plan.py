"""Where a video is cut: every frame in one chunk, within the bounds, equally long."""

import random

import pytest

from domain.chunking.indexes import chunky, clip, every, index, planned
from hevcq.domain.chunking import ChunkPlan, chunks_at, costliest_first, plan_chunks, times_sum

MASK = (1 << 64) - 1


def plan(keys_at, length_s, *, weights=None, workers=0, **chunking) -> ChunkPlan:
    recipe, info = chunky(chunking=chunking), clip()
    found = plan_chunks(
        recipe,
        info,
        planned(recipe, info),
        index(keys_at, length_s, weights=weights),
        workers_hint=workers,
    )
    assert isinstance(found, ChunkPlan), found
    return found


def lengths(found: ChunkPlan) -> list[float]:
    return [found.seconds(chunk) for chunk in found.chunks]


@pytest.mark.parametrize("seed", range(12))
def test_the_chunks_of_any_clip_hold_every_frame_once_and_keep_to_their_bounds(seed):
    choose = random.Random(seed)
    at, keys_at = 0.0, []
    length = choose.uniform(60, 4000)
    while at < length - 1:
        keys_at.append(at)
        at = round((at + choose.uniform(0.4, 10)) * 25) / 25
    held = index(keys_at, length, weights=lambda _at: choose.randint(10, 90_000))
    recipe, info = chunky(), clip()
    decided = planned(recipe, info)

    found = plan_chunks(recipe, info, decided, held, workers_hint=choose.choice([0, 0, 2, 7, 64]))

    assert isinstance(found, ChunkPlan)
    chunks = found.chunks
    keys = {key.pts for key in held.keys}
    assert [c.index for c in chunks] == list(range(len(chunks)))
    assert chunks[0].start_pts == held.keys[0].pts
    assert chunks[0].seek_s is None
    assert chunks[-1].end_pts is None
    assert all(c.start_pts in keys for c in chunks)
    assert [c.end_pts for c in chunks[:-1]] == [c.start_pts for c in chunks[1:]]
    assert sum(c.frames for c in chunks) == found.frames == held.frames
    assert [c.first_frame for c in chunks] == [
        sum(c.frames for c in chunks[:place]) for place in range(len(chunks))
    ]
    assert sum(c.times for c in chunks) & MASK == sum(k.times for k in held.keys) & MASK
    assert sum(c.cost for c in chunks) == pytest.approx(1.0)
    # Two key frames are up to 10 s apart here, so a border may miss its place by so much.
    assert min(lengths(found)) >= recipe.chunking.min_s - 1e-6
    assert max(lengths(found)) <= recipe.chunking.max_s + 10


@pytest.mark.parametrize(
    ("workers", "chunks"), [(2, 120), (16, 112), (32, 128), (64, 256), (100, 300), (500, 360)]
)
def test_every_worker_gets_equally_many_chunks_if_the_video_is_long_enough(workers, chunks):
    found = plan(every(2, 7200), 7200, workers=workers)

    assert len(found.chunks) == pytest.approx(chunks, rel=0.03)
    assert min(lengths(found)) >= 20


def test_costliest_chunk_goes_first_and_equal_ones_in_the_order_of_the_video():
    found = plan(every(2, 300), 300, weights=lambda at: 90_000 if 120 <= at < 180 else 1000)

    assert costliest_first(found) == [2, 0, 1, 3, 4]


@pytest.mark.parametrize(
    ("recipe", "places"),
    [
        (chunky(), (0, 3)),
        (chunky(bounds={"threads": 2}), (0, 2)),
        (chunky(video={"crf": 30}), (0, 2)),
    ],
    ids=["other borders", "other threads", "another recipe"],
)
def test_parts_that_cannot_stand_for_one_another_have_other_digests(recipe, places):
    info, held = clip(), index(every(10, 100), 100)
    base = chunks_at(chunky(), planned(chunky(), info), held, (0, 2))

    other = chunks_at(recipe, planned(recipe, info), held, places)

    assert other.digest != base.digest


@pytest.mark.parametrize("places", [(), (1, 2), (0, 2, 2), (0, 3, 1)])
def test_places_that_are_no_plan_are_refused(places):
    recipe, info = chunky(), clip()
    with pytest.raises(ValueError, match="begin at 0 and rise"):
        chunks_at(recipe, planned(recipe, info), index(every(10, 100), 100), places)


def test_a_seek_lands_late_enough_but_never_past_the_next_key_frame():
    held = index([0, 10, 10.08, 20], 30, seek_early_s=3 / 23)
    recipe, info = chunky(), clip()

    found = chunks_at(recipe, planned(recipe, info), held, (0, 1, 3))

    assert [chunk.seek_s for chunk in found.chunks] == [
        None,
        pytest.approx(10.04),
        pytest.approx(20 + 3 / 23),
    ]


def test_a_demuxer_without_an_index_is_sent_to_the_decoding_time():
    held = index([0, 10], 30, seek_early_s=0.0, seek_by_dts=True)
    late = held.keys[1].model_copy(update={"dts": 9_900})
    held = held.model_copy(update={"keys": (held.keys[0], late)})
    recipe, info = chunky(), clip()

    found = chunks_at(recipe, planned(recipe, info), held, (0, 1))

    assert found.chunks[1].seek_s == pytest.approx(9.9)


def test_the_sum_of_times_adds_up_and_tells_what_is_off():
    times = [0, 40, 80, 120, 160]

    assert times_sum(times) == times_sum(reversed(times))
    assert (times_sum(times[:2]) + times_sum(times[2:])) & MASK == times_sum(times)
    assert times_sum([0, 41, 79, 120, 160]) != times_sum(times)
    assert times_sum([0, 40, 80, 120, 120]) != times_sum(times)
    assert times_sum([-1024]) != times_sum([1024])
