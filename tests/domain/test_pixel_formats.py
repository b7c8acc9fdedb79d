"""Which pixel format holds a source's samples, per encoder."""

import pytest

from hevcq.domain.formats import video as formats
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import VideoCodec
from support.media_facts import MKV, audio, data, media, profile, video


@pytest.mark.parametrize(
    ("source", "hevc", "h264"),
    [
        ("yuv420p", "yuv420p", "yuv420p"),
        ("yuvj420p", "yuv420p", "yuv420p"),
        ("yuv444p10le", "yuv444p10le", "yuv444p10le"),
        ("yuv420p12le", "yuv420p12le", None),
        ("gbrp", "gbrp", None),
        ("bayer_rggb8", None, None),
    ],
)
def test_samples_are_kept_where_the_encoder_takes_them(source, hevc, h264):
    held = [formats.kept(source, codec) for codec in (VideoCodec.HEVC, VideoCodec.H264)]

    assert [found.name if found else None for found in held] == [hevc, h264]


def test_a_picture_that_is_made_smaller_may_keep_the_shape_of_its_pixels():
    recipe = profile("720p", video={"square_pixels": False})
    made = make_plan(recipe, media(video(1440, 1080, sample_aspect="4:3"), audio()))

    assert isinstance(made, EncodePlan), made
    assert (made.video.width, made.video.height) == (960, 720)
    assert made.video.sample_aspect == "4:3"


def test_a_chapter_track_is_dropped_where_the_container_keeps_chapters_itself():
    found = media(video(), data("text"), chapters=2, form=MKV)
    made = make_plan(profile(container="mkv", policies={"data_streams": "refuse"}), found)

    assert isinstance(made, EncodePlan), made
    assert made.streams[1].action == "drop"
    assert "kept as chapters" in made.streams[1].notice
