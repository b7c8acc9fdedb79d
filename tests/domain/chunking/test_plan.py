"""Where a video is cut: every frame in one chunk, within the bounds, equally long.

Where a ladder may be cut: at the segments that a whole encode would begin, whatever the rate.
"""

import random
from fractions import Fraction
from itertools import pairwise

import pytest

from domain.chunking.indexes import chunky, clip, every, index, planned
from hevcq.domain.chunking import (
    ChunkPlan,
    KeyFrame,
    KeyIndex,
    chunks_at,
    costliest_first,
    forced_key_frames,
    index_by_grid,
    plan_chunks,
    times_sum,
)
from hevcq.domain.planning.encode_plan import Ladder
from hevcq.domain.profile_sections import Chunking, ChunkMode
from support.fakes.backend import HLS
from support.fakes.encoder import INFO, fake_plan

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
    assert sum(c.times for c in chunks) & MASK == sum(k.times for k in held.keys) & MASK
    assert sum(c.cost for c in chunks) == pytest.approx(1.0)
    # Two key frames are up to 10 s apart here, so a border may miss its place by so much.
    assert min(lengths(found)) >= recipe.chunking.min_s - 1e-6
    assert max(lengths(found)) <= 2 * recipe.chunking.target_s + 10


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


def test_the_sum_of_times_adds_up_and_tells_what_is_off():
    times = [0, 40, 80, 120, 160]

    assert times_sum(times) == times_sum(reversed(times))
    assert (times_sum(times[:2]) + times_sum(times[2:])) & MASK == times_sum(times)
    assert times_sum([0, 41, 79, 120, 160]) != times_sum(times)
    assert times_sum([0, 40, 80, 120, 120]) != times_sum(times)
    assert times_sum([-1024]) != times_sum([1024])


LADDER = Ladder(rungs=(), segment_s=4.0, keyframe_s=2.0)
NTSC_FILM, MILLISECONDS = Fraction(1001, 24_000), Fraction(1, 1000)


def index_of(shown: list[int], tick: Fraction, keys: tuple[int, ...] = (0,)) -> KeyIndex:
    """Return the index of a video whose key frames are these of its pictures."""
    found = []
    for begin, end in pairwise([*keys, len(shown)]):
        held = shown[begin:end]
        found.append(
            KeyFrame(
                pts=held[0],
                seek_s=float(held[0] * tick),
                bytes_until_next=10 * len(held),
                frames_until_next=len(held),
                last_pts=held[-1],
                times=times_sum(held),
            )
        )
    return KeyIndex(
        stream_index=0,
        time_base=f"{tick.numerator}/{tick.denominator}",
        keys=tuple(found),
        end_pts=2 * shown[-1] - shown[-2],
        frames=len(shown),
    )


def grid_of(shown: list[int], tick: Fraction, keys: tuple[int, ...] = (0,)) -> KeyIndex:
    return index_by_grid(index_of(shown, tick, keys), shown, dict.fromkeys(shown, 10), LADDER)


@pytest.mark.parametrize(
    ("tick", "step", "frames"),
    [
        (NTSC_FILM, 1, [0, 96, 192, 288, 384, 480, 576, 672, 768, 864, 960, 1055]),
        (Fraction(1001, 30_000), 1, [0, 120, 240, 360, 480, 600, 720, 840, 960, 1079]),
        (Fraction(1, 12_800), 512, [0, 100, 200, 300]),
        (Fraction(1, 90_000), 1800, [0, 200, 400]),
        (Fraction(1, 60_000), 1001, [0, 240, 480]),
    ],
)
def test_segments_begin_with_the_first_picture_at_each_step_from_the_start(tick, step, frames):
    """At 23.976 the grid moves against the pictures: the tenth step comes one picture early."""
    count = frames[-1] + 5
    shown = [900 + step * n for n in range(count)]

    keys = grid_of(shown, tick).keys

    assert [shown.index(key.pts) for key in keys] == frames
    assert sum(key.frames_until_next for key in keys) == count
    assert sum(key.times for key in keys) % 2**64 == times_sum(shown)


def test_key_frames_of_a_chunk_are_those_of_the_whole_not_counted_from_its_start():
    """At 23.976 the 22nd is one picture early; counted from a chunk's own start it would be on time."""
    shown = list(range(1100))
    whole = forced_key_frames(shown, NTSC_FILM, 2.0)
    assert whole[20:23] == [960, 1007, 1055]

    at_960 = next(key for key in grid_of(shown, NTSC_FILM).keys if key.pts == 960)

    assert at_960.forced == (960, 1007)
    assert forced_key_frames(shown[960:], NTSC_FILM, 2.0)[1] == 48


def test_a_place_between_key_frames_is_decoded_from_the_one_before_it():
    shown = [40 * n for n in range(600)]
    index = grid_of(shown, MILLISECONDS, keys=(0, 90, 180, 210, 500))

    seeks = {key.pts: key.seek_s for key in index.keys}

    assert seeks[0] is None
    assert seeks[4000] == 3.6, "from picture 90"
    assert seeks[8000] == 7.2, "not from 210, which comes after it"
    assert seeks[20_000] == 20.0, "a key frame lies on the grid by chance"


def test_chunks_of_a_ladder_begin_at_segments_and_hold_every_picture_once():
    shown = [7 + n for n in range(2400)]
    index = grid_of(shown, NTSC_FILM, keys=tuple(range(0, 2400, 130)))
    chunking = Chunking(mode=ChunkMode.ALWAYS, target_s=20)
    profile = HLS.model_copy(update={"chunking": chunking})

    plan = plan_chunks(profile, INFO, fake_plan(profile, INFO), index, workers_hint=2)

    assert isinstance(plan, ChunkPlan), plan
    assert len(plan.chunks) > 2
    assert {chunk.start_pts for chunk in plan.chunks} <= {key.pts for key in index.keys}
    forced = [pts for chunk in plan.chunks for pts in chunk.forced]
    assert forced == [shown[at] for at in forced_key_frames(shown, NTSC_FILM, 2.0)]
    assert all(chunk.forced[0] == chunk.start_pts for chunk in plan.chunks)
    assert sum(chunk.frames for chunk in plan.chunks) == len(shown)
