"""What is encoded whole, and the word for why."""

import pytest

from domain.chunking.indexes import chunky, clip, every, index, planned
from hevcq.domain.chunking import plan_chunks
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Chunking, ChunkMode
from support.media_facts import MKV, audio, media, video

CONVERT = {"dynamic_hdr": "drop"}


def reason(recipe: Profile, info: MediaInfo, length_s: float = 1200, **facts: object) -> str:
    """Return the word for why it stays whole, or "" where it is cut."""
    held = index(every(2, length_s), length_s, **facts)
    found = plan_chunks(recipe, info, planned(recipe, info), held)
    return found if isinstance(found, str) else ""


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({}, ""),
        ({"dolby_vision": True, "dolby_base": "hlg"}, ""),
        ({"hdr10_plus": True}, ""),
        ({"field_order": "tt"}, "interlaced"),
        ({"codec": "mpeg2video"}, "repeated_fields"),
        ({"codec": "vc1"}, "repeated_fields"),
        ({"becomes": "544x576 1:1 yuv420p"}, "size_changes"),
        ({"recoloured": True}, "colours_change"),
        ({"rotation": 90}, ""),
        ({"pixel_format": "yuv420p10le", "bit_depth": 10}, ""),
    ],
)
def test_a_picture_that_cannot_be_cut_exactly_stays_whole(facts, word):
    assert reason(chunky(policies=CONVERT), clip(**facts)) == word


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"problem": "broken_times"}, "broken_times"),
        ({"time_base": "1/10000000", "end_pts": 12_000_000_000}, "fine_time_base"),
        ({"keys": (), "frames": 0}, "no_frames"),
        ({"stream_index": 1}, "no_video"),
    ],
)
def test_times_that_cannot_be_trusted_keep_it_whole(facts, word):
    held = index(every(2, 1200), 1200).model_copy(update=facts)
    recipe, info = chunky(), clip()

    assert plan_chunks(recipe, info, planned(recipe, info), held) == word


@pytest.mark.parametrize(
    ("form", "word"),
    [(MKV, ""), ("mpegts", "container"), ("avi", "container"), ("asf", "container")],
)
def test_a_container_that_cannot_be_entered_at_a_time_stays_whole(form, word):
    assert reason(chunky(), media(video(), audio(), form=form)) == word


def test_a_second_picture_that_is_encoded_keeps_it_whole():
    assert reason(chunky(), media(video(), audio(), video(640, 360))) == "more_videos"


@pytest.mark.parametrize(
    ("mode", "length_s", "word"),
    [
        (ChunkMode.OFF, 7200, "mode_off"),
        (ChunkMode.AUTO, 599, "too_short"),
        (ChunkMode.AUTO, 600, ""),
        (ChunkMode.ALWAYS, 599, ""),
        (ChunkMode.ALWAYS, 39, "too_short"),
        (ChunkMode.ALWAYS, 44, ""),
    ],
)
def test_the_mode_and_the_length_decide(mode, length_s, word):
    assert reason(chunky(mode), clip(), length_s) == word


@pytest.mark.parametrize("numbers", [{"target_s": 0}, {"mode": "sometimes"}])
def test_settings_that_contradict_themselves_are_refused(numbers):
    with pytest.raises(ValueError, match=r"chunking|validation error"):
        Chunking(**numbers)
