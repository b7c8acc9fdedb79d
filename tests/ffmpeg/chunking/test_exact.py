"""However a video is cut: every frame once, in order, at its own time."""

from __future__ import annotations

import random

import pytest

from ffmpeg.chunking.numbered import KINDS, PROFILE, Clip, make_clip, numbers, times
from hevcq.domain.chunking.planner import chunks_at

FEW, MANY = 2, 15
"""Random plans for each of the seven kinds of clip: 21 always, 105 in the long form."""


@pytest.fixture(scope="module", params=KINDS)
def video(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    return Clip(make_clip(request.param, folder), folder)


@pytest.mark.media
@pytest.mark.parametrize(
    "plans", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "hundred"]
)
def test_random_plans_keep_every_frame_once_in_order_and_on_time(video, plans):
    # Given what a plain decode of the source shows
    shown, at = numbers(video.source), times(video.source)
    assert len(shown) == len(set(shown)) == video.index.frames > 200
    assert video.index.monotonic
    assert video.index.starts_with_key
    # When it is cut at any of its key frames, in any number of parts
    choose = random.Random(len(shown) + plans)
    for _ in range(plans):
        cuts = choose.sample(range(1, len(video.index.keys)), choose.randint(1, 4))
        plan = chunks_at(PROFILE, video.plan, video.index, (0, *sorted(cuts)))
        report = video.join(plan, video.chunk_files(plan))
        # Then the joined video is the source
        assert report.frames == video.index.frames
        assert numbers(video.output()) == shown
        assert times(video.output()) == at, cuts


@pytest.mark.media
def test_each_part_says_where_it_begins_and_ends(video):
    plan = chunks_at(PROFILE, video.plan, video.index, (0, 5, 9))

    reports = [video.part(plan, c) and video.reports[c.start_pts, c.end_pts] for c in plan.chunks]

    assert [r.frames for r in reports] == [c.frames for c in plan.chunks]
    assert [r.first_pts for r in reports] == [c.start_pts for c in plan.chunks]
    assert [r.last_pts for r in reports] == [c.last_pts for c in plan.chunks]
    assert len({r.headers for r in reports}) == 1
    assert all(r.size > 0 for r in reports)
