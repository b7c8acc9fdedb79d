"""However a video is cut: every frame once, in order, at its own time."""

import random

import pytest

from ffmpeg.chunking.numbered import (
    BASE,
    KINDS,
    PROFILE,
    X264,
    Clip,
    ffmpeg,
    make_clip,
    numbers,
    times,
)
from hevcq.domain.chunking import chunks_at


@pytest.fixture(scope="module", params=KINDS)
def video(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    return Clip(make_clip(request.param, folder), folder)


@pytest.mark.media
def test_a_random_plan_keeps_every_frame_once_in_order_and_on_time(video):
    # Given what a plain decode of the source shows
    shown, at = numbers(video.source), times(video.source)
    assert len(shown) == len(set(shown)) == video.index.frames > 200
    assert video.index.problem == ""
    # When it is cut at any of its key frames, in any number of parts
    choose = random.Random(len(shown))
    cuts = choose.sample(range(1, len(video.index.keys)), choose.randint(2, 4))
    plan = chunks_at(PROFILE, video.plan, video.index, (0, *sorted(cuts)))
    report = video.join(plan, video.chunk_files(plan))
    # Then the joined video is the source
    assert report.frames == video.index.frames
    assert numbers(video.output()) == shown
    assert times(video.output()) == at, cuts


@pytest.mark.media
def test_a_video_that_slows_down_at_a_cut_is_joined(tmp_path):
    """Long pictures after short ones: the second part's decoding would begin within the first."""
    slowing = f"{BASE},trim=end_frame=72,settb=1/1000,setpts='if(lt(N,48),N*17,816+(N-48)*150)'"
    options = ("-fps_mode", "passthrough", *X264, "-bf", "3", "-enc_time_base", "1/1000")
    ffmpeg("-f", "lavfi", "-i", slowing, *options, tmp_path / "slowing.mkv")
    clip = Clip(tmp_path / "slowing.mkv", tmp_path)
    plan = chunks_at(PROFILE, clip.plan, clip.index, (0, 4))
    assert plan.chunks[0].frames == 48

    clip.join(plan, clip.chunk_files(plan))

    assert times(clip.output()) == times(clip.source)
    assert numbers(clip.output()) == list(range(72))
