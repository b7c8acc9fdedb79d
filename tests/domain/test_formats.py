"""What a recipe may ask of a codec and a container, and what is said of a format's losses."""

from typing import Any

import pytest
from pydantic import ValidationError

from hevcq.domain.media.facts import Colour, MasteringDisplay, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.planning.video import evening_notice
from hevcq.domain.profile import Profile
from support.media_facts import attachment, audio, cover, media, profile, subtitle, video

BT709 = Colour(space="bt709", transfer="bt709", primaries="bt709")


def recipe(container: str, codec: str, crf: float = 8, preset: str = "medium") -> Profile:
    return Profile.model_validate(
        {
            "name": "p",
            "description": "d",
            "container": container,
            "video": {"codec": codec, "crf": crf, "preset": preset},
        }
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("webm", "hevc"), "the container webm holds av1, vp9, not hevc"),
        (("avi", "theora"), "the container avi holds mpeg4, not theora"),
        (("source", "mpeg4"), "the container source holds av1, h264, hevc, vp9, not mpeg4"),
        (("webm", "vp9", 64), "less than or equal to 63"),
        (("mp4", "hevc", 52), "hevc has qualities from 0 \\(best\\) to 51, not 52"),
        (("ogg", "theora", 11), "theora has qualities from 10 \\(best\\) to 0, not 11"),
        (("mkv", "av1", 8, "14"), "av1 has the presets 0 to 13, not 14"),
        (("mkv", "vp9", 8, "9"), "vp9 has the presets 0 to 8, not 9"),
        (("mkv", "av1", 8, "slow"), "av1 has the presets 0 to 13, not slow"),
        (("mkv", "hevc", 8, "8"), "hevc has the presets ultrafast, .*, not 8"),
        (("mkv", "hevc", 8, "quick"), "hevc has the presets ultrafast, .*, not quick"),
    ],
)
def test_what_no_encode_could_be_is_refused_with_the_profile(wrong, said):
    with pytest.raises(ValidationError, match=said):
        recipe(*wrong)


def planned(name: str, *streams: Any, chapters: int = 0, **tags: str) -> EncodePlan:
    plan = make_plan(profile(name), media(*streams, chapters=chapters, tags=tags))
    assert isinstance(plan, EncodePlan), plan
    return plan


def test_webm_names_all_that_it_cannot_carry():
    plan = planned(
        "webm",
        video(colour=BT709, pixel_format="yuv422p10le", bit_depth=10),
        audio("ac3", 6, "5.1(side)"),
        audio("opus"),
        subtitle("ass"),
        subtitle("hdmv_pgs_subtitle"),
        attachment("font.ttf"),
        cover(),
        chapters=2,
    )

    said = "\n".join(plan.notices)
    assert "its samples become yuv420p (from yuv422p10le)" in said
    assert "audio in ac3 becomes opus at 384 kbit/s." in said
    assert "subtitles in ass become webvtt without their styling" in said
    assert "Stream 4 is left out: subtitles in hdmv_pgs_subtitle, which WebM cannot hold." in said
    assert "Stream 5 is left out: font.ttf." in said
    assert "Stream 6 is left out: cover art." in said
    assert [(s.codec, s.encoder) for s in plan.kept] == [
        ("vp9", "libvpx-vp9"),
        ("opus", "libopus"),
        ("opus", "copy"),
        ("webvtt", "webvtt"),
    ]
    assert (plan.muxer, plan.extension, plan.chapters, plan.losses) == ("webm", "webm", 2, ())


@pytest.mark.parametrize("name", ["webm", "av1"])
def test_a_picture_that_the_format_cannot_show_truly_is_refused(name):
    display = MasteringDisplay(
        red_x="1/1", red_y="1/1", green_x="1/1", green_y="1/1", blue_x="1/1", blue_y="1/1",
        white_x="1/1", white_y="1/1", min_luminance="1/1", max_luminance="1/1",
    )  # fmt: skip
    hdr = Colour(space="bt2020nc", transfer="smpte2084", primaries="bt2020")
    seen = media(
        video(
            codec="hevc",
            colour=hdr,
            pixel_format="yuv420p10le",
            bit_depth=10,
            mastering_display=display,
        )
    )
    vp9 = {"webm": {"policies": {"hdr": "keep"}, "video": {"pixel_format": "keep"}}}

    found = make_plan(profile(name, **vp9.get(name, {})), seen)

    if name == "webm":
        assert isinstance(found, Refuse)
        assert found.policy == "policies.hdr"
        assert isinstance(make_plan(profile("webm"), seen), EncodePlan)
    else:
        assert isinstance(found, EncodePlan)
        assert found.video.mastering_display == display


def test_av1_is_refused_what_its_encoder_does_not_take():
    deep = make_plan(profile("av1"), media(video(pixel_format="yuv444p")))
    small = make_plan(profile("av1"), media(video(48, 48)))
    mov = {"major_brand": "qt  "}
    quicktime = make_plan(
        profile("av1", container="source"),
        media(video(), tags=mov),
    )

    assert isinstance(deep, Refuse)
    assert deep.policy == "video.pixel_format"
    assert isinstance(small, Refuse)
    assert isinstance(quicktime, Refuse)
    assert "MOV cannot hold" in quicktime.detail


@pytest.mark.parametrize("name", ["ogg", "avi"])
def test_what_holds_no_times_never_replaces_an_original_and_says_what_it_lacks(name):
    plan = planned(
        name,
        video(colour=BT709, average_rate="25/1", nominal_rate="25/1"),
        audio("aac", 2, "stereo", language="eng", title="Main", dispositions=("comment",)),
        subtitle("subrip"),
        chapters=2,
        location="+1+1/",
    )

    assert "the times of frames" in plan.losses
    assert {"2 chapters", "title of stream 1", "the mark comment of stream 1"} <= set(plan.losses)
    assert ("the tag location" in plan.losses) is (name == "avi")
    assert ("language (eng) of stream 1" in plan.losses) is (name == "avi")
    assert plan.video.colour == Colour()
    assert (plan.video.rate, plan.chapters) == ("25", 0)
    assert "subtitles in subrip, which" in "\n".join(plan.notices)


@pytest.mark.parametrize(
    ("nominal", "average", "wanted"),
    [
        ("30000/1001", "30000/1001", "30000/1001"),
        ("25/1", "24/1", "25"),
        ("600/1", "29/1", "30000/1001"),  # a phone's clock, not its rate
        ("90000/1", "0/0", "24000/1001"),
        ("0/0", "0/0", "24"),
        ("1000/1", "119/1", "60"),
    ],
)
def test_the_one_rate_is_the_nominal_one_unless_that_is_a_clock(nominal, average, wanted):
    plan = planned("avi", video(nominal_rate=nominal, average_rate=average))

    assert plan.video.rate == wanted
    fields = video(nominal_rate="25/1", average_rate="25/1", field_order="tt")
    assert planned("avi", fields).video.rate == "50", "one picture of each field"
    said = "uneven times" in "\n".join(plan.notices)
    assert said is (average not in {"0/0", nominal})


def test_uneven_times_that_only_measuring_shows_are_named():
    seen = video(nominal_rate="25/1", average_rate="25/1", time_base="1/25")
    whole = TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=50, times=tuple(range(50)))
    hole = whole.model_copy(update={"times": (*range(20), *range(40, 60))})

    assert evening_notice(profile("avi"), seen, whole) == ""
    assert "put at 25 frames per second" in str(evening_notice(profile("avi"), seen, hole))
    assert evening_notice(profile("webm"), seen, hole) == ""
