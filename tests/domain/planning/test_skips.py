"""What is skipped, and the sentence that says why."""

import pytest

from hevcq.domain.planning.encode_plan import (
    EncodePlan,
    Refuse,
    Skip,
    SkipReason,
    skip_in_words,
    too_large_sentence,
)
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.planning.video import smaller_than_box
from support.media_facts import MKV, audio, cover, media, profile, video


def reason(made: object) -> SkipReason:
    assert isinstance(made, Skip), made
    assert made.detail.endswith(".")
    return made.reason


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9"])
def test_a_source_in_a_newer_codec_is_skipped_by_hevc(codec):
    made = make_plan(profile(), media(video(codec=codec), audio()))

    assert reason(made) is SkipReason.ALREADY_TARGET
    assert codec.upper() in made.detail


@pytest.mark.parametrize("streams", [(), (audio(),), (audio(), cover())])
def test_sound_alone_even_with_a_cover_is_no_video(streams):
    assert reason(make_plan(profile(), media(*streams))) is SkipReason.NO_VIDEO


@pytest.mark.parametrize(
    "tags",
    [
        {"hevcq": "hevc/0123456789ab"},
        {"HEVCQ": "720p/0123456789ab"},
        {"encoder": "hevcq 1080p/0123456789ab"},
    ],
)
def test_a_rendition_of_our_own_is_never_encoded_again(tags):
    for name in ("hevc", "720p", "1080p"):
        made = make_plan(profile(name), media(video(), tags=tags))

        assert reason(made) is SkipReason.OWN_RENDITION


@pytest.mark.parametrize("tags", [{"encoder": "Lavf59"}, {"comment": "hevcq hevc/1"}])
def test_a_tag_that_merely_mentions_us_is_no_mark(tags):
    assert isinstance(make_plan(profile(), media(video(), tags=tags)), EncodePlan)


@pytest.mark.parametrize(
    ("size", "facts", "skipped"),
    [
        ((854, 480), {}, True),
        ((1280, 720), {}, False),
        ((1280, 544), {}, False),  # scope video: as wide as the box
        ((960, 720), {}, False),  # 4:3: as high as the box
        ((720, 1280), {}, False),  # portrait as videoed: the box lies on its side
        ((1280, 720), {"rotation": 90}, False),
        ((854, 480), {"rotation": 270}, True),
        ((720, 576), {"sample_aspect": "64:45"}, True),  # shown at 1024x576
        ((1080, 720), {"sample_aspect": "4:3"}, False),  # shown at 1440x720
    ],
)
def test_a_picture_smaller_than_the_box_is_known(size, facts, skipped):
    """What is smaller than the box in both directions is left at its size, or as it is."""
    assert bool(smaller_than_box(profile("720p"), video(*size, **facts).video)) is skipped


STREAMS = {"tags": {"major_brand": "isom"}, "index_first": True}


@pytest.mark.parametrize(
    ("streams", "own"),
    [
        ((video(854, 480, codec="wmv3"), audio("wmav2")), {"form": "asf"}),
        ((video(854, 480), audio()), {"form": MKV}),
        ((video(854, 480), audio()), STREAMS | {"index_first": False}),
        ((video(854, 480), audio()), STREAMS | {"tags": {"major_brand": "qt  "}}),
        ((video(854, 480), audio("ac3")), STREAMS),
        ((video(854, 480, field_order="tt"), audio()), STREAMS),
        ((video(720, 576, sample_aspect="64:45"), audio()), STREAMS),
        ((video(853, 480), audio()), STREAMS),
        ((video(854, 480, pixel_format="yuv420p10le", bit_depth=10), audio()), STREAMS),
        ((video(854, 480, codec="mpeg4"), audio()), STREAMS),
    ],
)
def test_a_picture_smaller_than_the_box_is_encoded_at_its_own_size(streams, own):
    made = make_plan(profile("720p"), media(*streams, **own))

    assert isinstance(made, EncodePlan)
    assert (made.video.height, made.video.codec) == (streams[0].video.height, "h264")


@pytest.mark.parametrize("sounds", [(), (audio(),), (audio("mp3"), audio())])
def test_what_streams_already_is_skipped_at_its_own_size(sounds):
    made = make_plan(profile("720p"), media(video(854, 480), *sounds, **STREAMS))

    assert made == Skip(
        reason=SkipReason.SMALLER_THAN_BOX,
        detail="Already H264 in a streamable MP4 of 854x480; not upscaled.",
    )


@pytest.mark.parametrize("form", ["hls", "concat", "dash", "image2", "lavfi", "h264", "gif", ""])
def test_a_format_that_could_open_other_files_or_has_no_times_is_refused(form):
    made = make_plan(profile(), media(video(), form=form))

    assert isinstance(made, Refuse)
    assert made.policy == "container"


@pytest.mark.parametrize(
    ("container", "form", "tags", "muxer", "extension"),
    [
        ("source", None, {"major_brand": "isom"}, "mp4", "mp4"),
        ("source", None, {"major_brand": "qt  "}, "mov", "mov"),
        ("source", None, {"major_brand": ""}, "mov", "mov"),
        ("source", MKV, {}, "matroska", "mkv"),
        ("source", "mpegts", {}, "matroska", "mkv"),
        ("mp4", MKV, {}, "mp4", "mp4"),
        ("mp4", None, {"major_brand": "qt  "}, "mp4", "mp4"),
        ("mkv", None, {}, "matroska", "mkv"),
    ],
)
def test_container_and_extension(container, form, tags, muxer, extension):
    found = media(video(), tags=tags) if form is None else media(video(), form=form, tags=tags)

    made = make_plan(profile(container=container), found)

    assert (made.muxer, made.extension) == (muxer, extension)


@pytest.mark.parametrize(
    ("share", "quality", "words"),
    [
        (0.99, "", "save too little (99 % of the original, limit 95 %)."),
        (1.3, "", "be larger (130 % of the original)."),
        (1.21, ", for VMAF 95", "be larger (121 % of the original, for VMAF 95)."),
    ],
)
def test_what_would_not_shrink_is_said_alike_whoever_found_it(share, quality, words):
    said = too_large_sentence(share, 0.05, quality=quality)

    assert said == f"Would {words}"
    assert skip_in_words(f"not_smaller: {said}") == (SkipReason.NOT_SMALLER, said)
    assert skip_in_words(f"remembered: {said}")[1].endswith(f"tried before: {said}")
