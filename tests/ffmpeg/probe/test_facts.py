"""Reading ffprobe's answer: whatever is missing or odd becomes a fact or nothing, never a crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hevcq.ffmpeg.inputs import with_aspect_support
from hevcq.ffmpeg.probe.parse import media_info
from support.media_facts import media, video


def video_of(*, frames=(), **stream):
    info = media_info(
        {"streams": [{"index": 0, "codec_type": "video", **stream}], "frames": frames}
    )
    assert info.streams[0].video is not None
    return info.streams[0].video


def rows(*numbers):
    return "\n" + "".join(
        f"{i:08}: {a:>12} {b:>11} {c:>11}\n" for i, (a, b, c) in enumerate(numbers)
    )


def matrix(text: str, rotation: int):
    return [{"side_data_type": "Display Matrix", "displaymatrix": text, "rotation": rotation}]


@pytest.mark.parametrize(("ticks", "known"), [(0xFFFF_FFFF, None), (51_200, 4.0)])
def test_a_length_of_all_ones_is_unknown(ticks, known):
    stream = {"index": 0, "codec_type": "video", "duration": "4.0", "duration_ts": ticks}

    info = media_info({"format": {"duration": "4.0"}, "streams": [stream]})

    assert (info.duration_s, info.streams[0].duration_s) == (known, known)


@pytest.mark.parametrize(
    ("pixel_format", "depth"),
    [
        ("yuv420p", 8), ("yuvj420p", 8), ("yuv420p10le", 10), ("yuv444p12be", 12), ("gray10le", 10),
        ("p010le", 10), ("p016le", 16), ("gray16le", 16), ("rgb48le", 16), ("rgba64be", 16),
        ("nv12", 8), ("gbrp14le", 14), ("bgr0", 8), ("", 8),
    ],
)  # fmt: skip
def test_the_depth_comes_from_the_pixel_format(pixel_format, depth):
    assert video_of(pix_fmt=pixel_format).bit_depth == depth


@pytest.mark.parametrize(("space", "changes"), [("bt709", False), ("smpte170m", True)])
def test_colours_that_change_are_seen_in_the_pictures(space, changes):
    pictures = [{"stream_index": 0, "color_space": each} for each in ("bt709", space)]

    assert video_of(frames=pictures).recoloured is changes


def test_a_picture_knows_its_colours_better_than_its_track():
    """Since ffmpeg 8 ffprobe says of a stream what the container says."""
    track = {"color_range": "pc", "color_space": "smpte170m", "color_primaries": "bt470bg"}
    picture = {"stream_index": 0, "color_range": "tv", "color_space": "bt709"}
    found = video_of(frames=[{**picture, "color_primaries": "unknown"}], **track).colour

    assert (found.range, found.space, found.primaries) == ("tv", "bt709", "bt470bg")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("2019-07-24;2019-07-24", "2019-07-24"),
        ("a;b", "a;b"),
        ("a;a;a", "a;a;a"),
        (";", ";"),
        ("", ""),
    ],
)
def test_a_tag_that_is_there_twice_is_said_once(value, said):
    """As ffmpeg 9 reads the time of creation of a MOV that ffmpeg wrote."""
    assert media_info({"format": {"tags": {"creation_time": value}}}).tags["creation_time"] == said


def test_a_mirrored_picture_is_told_from_a_turned_one():
    turned = rows((0, 65536, 0), (-65536, 0, 0), (70778880, 0, 1073741824))
    mirrored = rows((-65536, 0, 0), (0, 65536, 0), (70778880, 0, 1073741824))

    assert video_of(side_data_list=matrix(turned, -90)).rotation == 90
    assert not video_of(side_data_list=matrix(turned, -90)).mirrored
    assert video_of(side_data_list=matrix(mirrored, 180)).mirrored


def test_captions_in_the_pictures_are_seen():
    frame = {
        "stream_index": 0,
        "side_data_list": [{"side_data_type": "ATSC A53 Part 4 Closed Captions"}],
    }

    assert video_of(frames=[frame]).closed_captions
    assert video_of(closed_captions=1).closed_captions
    assert not video_of(closed_captions=0, frames=[{**frame, "stream_index": 1}]).closed_captions


def test_fields_are_believed_when_the_header_says_nothing():
    frames = [{"stream_index": 0, "interlaced_frame": 1, "top_field_first": 0}] * 3

    assert video_of(frames=frames).field_order == "bb"
    assert video_of(field_order="tt").field_order == "tt"
    assert (
        video_of(frames=[{"stream_index": 0, "interlaced_frame": 0}]).field_order == "progressive"
    )


@pytest.mark.parametrize("aspect", ["0:1", "N/A", "", "1:0", None, "x"])
def test_an_unknown_aspect_is_square(aspect):
    assert video_of(sample_aspect_ratio=aspect).sample_aspect == "1:1"


def test_what_no_rendition_holds_is_seen():
    assert video_of(side_data_list=[{"side_data_type": "Spherical Mapping"}]).spherical
    assert video_of(pix_fmt="yuv420p", tags={"alpha_mode": "1"}).pixel_format == "yuva420p"
    stereo = [{"side_data_type": "Stereo 3D", "type": "side by side"}]
    assert video_of(side_data_list=stereo).stereo_3d
    assert not video_of(side_data_list=[{"side_data_type": "Stereo 3D", "type": "2D"}]).stereo_3d
    assert video_of(codec_tag_string="dvh1").dolby_vision


@pytest.mark.parametrize(
    ("profile", "base", "named", "writable"),
    [(5, 0, "5", False), (7, 6, "7.6", False), (8, 1, "8.1", True), (8, 4, "8.4", True)],
)
def test_dolby_vision_has_a_name(profile, base, named, writable):
    record = {"side_data_type": "DOVI configuration record", "dv_profile": profile}
    record["dv_bl_signal_compatibility_id"] = base

    found = video_of(codec_name="hevc", side_data_list=[record])

    assert (found.dolby_profile, found.dolby_writable) == (named, writable)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["index", "codec_type", "tags", "side_data_list", "disposition", "duration",
                         "width", "rotation", "side_data_type", "start_time", "time_base", "title"]),
        inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(streams=JSON, frames=JSON, form=JSON)
def test_no_answer_makes_it_crash(streams, frames, form):
    media_info({"streams": streams, "frames": frames, "format": form, "chapters": streams})


@pytest.mark.parametrize(
    ("build", "becomes", "lost"),
    [
        ("ffmpeg version 7.1.5-0+deb13u1 Copyright", "720x576 64:45 yuv420p", True),
        ("ffmpeg version N-119-gabc Copyright", "720x576 64:45 yuv420p", True),
        ("ffmpeg version 6.1.1-3ubuntu5 Copyright", "720x576 64:45 yuv420p", False),
        ("ffmpeg version n8.1.2 Copyright", "360x288 16:15 yuv420p", False),
        ("ffmpeg version n8.1.2 Copyright", "", False),
    ],
)
def test_a_change_of_shape_is_lost_by_builds_that_believe_the_track(build, becomes, lost):
    info = media(video(720, 576, sample_aspect="16:15", becomes=becomes))

    found = with_aspect_support(lambda: build, info).streams[0].video

    assert found is not None
    assert found.one_aspect is lost
