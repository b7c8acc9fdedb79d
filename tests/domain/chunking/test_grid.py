"""Where a ladder may be cut: at the segments that a whole encode would begin, whatever the rate."""

from fractions import Fraction
from itertools import pairwise

import pytest

from hevcq.domain.chunking import (
    ChunkPlan,
    KeyFrame,
    KeyIndex,
    forced_key_frames,
    on_grid,
    plan_chunks,
    times_sum,
)
from hevcq.domain.planning.encode_plan import Ladder
from hevcq.domain.profile_sections import Chunking, ChunkMode
from support.fakes.backend import HLS
from support.fakes.encoder import INFO, fake_plan

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
                dts=held[0],
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
        monotonic=True,
    )


def grid_of(shown: list[int], tick: Fraction, keys: tuple[int, ...] = (0,)) -> KeyIndex:
    return on_grid(index_of(shown, tick, keys), shown, dict.fromkeys(shown, 10), LADDER)


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
