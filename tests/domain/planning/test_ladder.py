"""Which rungs a source gets, and what becomes of its sound and subtitles in HLS."""

import pytest
from pydantic import ValidationError

from hevcq.domain.media.facts import Colour, Measurement, TrackMeasure
from hevcq.domain.planning.encode_plan import Action, EncodePlan, Ladder, Refuse
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Hls, Policies, VideoRecipe
from support.media_facts import MKV, audio, cover, data, media, subtitle, video

PQ = Colour(range="tv", space="bt2020nc", transfer="smpte2084", primaries="bt2020")


def recipe(policies: dict[str, str] | None = None, **hls: object) -> Profile:
    plain = {
        "hdr": "convert", "extra_video": "drop", "attachments": "drop",
        "picture_subtitles": "drop", "cover_art": "drop",
    }  # fmt: skip
    return Profile(
        name="ladder",
        description="for tests",
        container="hls",
        video=VideoRecipe(codec="h264", crf=22),
        hls=Hls(**hls),
        policies=Policies(**(plain | (policies or {}))),
    )


def planned(made: Profile, *streams, **own) -> EncodePlan:
    plan = make_plan(made, media(*streams, **own))
    assert isinstance(plan, EncodePlan), plan
    return plan


def ladder(picture, made: Profile | None = None) -> Ladder:
    plan = planned(made or recipe(), picture)
    assert plan.video == plan.ladder.rungs[0].target == plan.main_video.video
    return plan.ladder


def sizes(picture, made: Profile | None = None) -> list[tuple[str, int, int]]:
    return [(r.name, r.target.width, r.target.height) for r in ladder(picture, made).rungs]


def heights(picture, made: Profile | None = None) -> list[int]:
    return [min(wide, high) for _, wide, high in sizes(picture, made)]


@pytest.mark.parametrize(
    ("size", "facts", "expected"),
    [
        ((1280, 720), {}, [720, 480, 360, 240, 144]),
        ((1920, 1080), {}, [1080, 720, 480, 360, 240, 144]),
        ((1920, 1080), {"rotation": 90}, [1080, 720, 480, 360, 240, 144]),
        ((3840, 2160), {}, [1080, 720, 480, 360, 240, 144]),
        # 4:3 shown from 1440x1080 with wide pixels, and PAL shown as 1024x576
        ((1440, 1080), {"sample_aspect": "4:3"}, [1080, 720, 480, 360, 240, 144]),
        ((720, 576), {"sample_aspect": "64:45"}, [480, 360, 240, 144]),
        # pixels so tall that the displayed width is the shorter side
        ((720, 576), {"sample_aspect": "1:2"}, [360, 240, 144]),
        ((320, 241), {}, [240, 144]),
        ((425, 239), {}, [238, 144]),
        ((320, 200), {}, [200, 144]),
        ((90, 161), {}, [90]),
    ],
)
def test_rungs_follow_the_shorter_side_as_displayed(size, facts, expected):
    assert heights(video(*size, **facts)) == expected


def test_a_rung_keeps_the_displayed_shape_in_square_pixels_and_even_sides():
    assert sizes(video(720, 576, sample_aspect="64:45")) == [
        ("v480", 854, 480), ("v360", 640, 360), ("v240", 426, 240),
        ("v144", 256, 144),
    ]  # fmt: skip
    assert sizes(video(1920, 1080, rotation=270))[1] == ("v720", 720, 1280)
    assert sizes(video(321, 241)) == [("v240", 320, 240), ("v144", 192, 144)]
    for rung in ladder(video(720, 576, sample_aspect="64:45")).rungs:
        assert rung.target.sample_aspect == "1:1"
        assert rung.target.scale


def test_the_largest_rate_grows_by_half_above_30_frames_a_second():
    slow, fast = (video(1280, 720, average_rate=rate) for rate in ("30000/1001", "50/1"))
    assert [r.max_kbps for r in ladder(slow).rungs] == [4500, 2000, 1100, 400, 80]
    assert [r.max_kbps for r in ladder(fast).rungs] == [6750, 3000, 1650, 600, 80]
    fields = video(720, 576, field_order="tt", average_rate="25/1")
    assert ladder(fields).rungs[0].max_kbps == 3000, "a frame of each field makes 50"


@pytest.mark.parametrize(
    ("rate", "every"), [(24, 1), (60, 1), (60.4, 1), (90, 2), (119.88, 2), (120, 2), (240, 4)]
)
def test_no_rung_shows_more_than_60_pictures_a_second(rate, every):
    """By what was measured: a header may say anything."""
    plan = planned(recipe(hevc=True), video(1280, 720, average_rate="25/1"))
    track = TrackMeasure(
        index=0, kind="video", packets=481, first_pts_s=1, last_pts_s=1 + 480 / rate
    )
    after = plan.with_measurement(Measurement(tracks=(track,)), recipe())

    targets = {r.target.every for r in after.ladder.rungs}
    assert targets == {every} == {after.video.every, after.main_video.video.every}
    said = [each for each in after.notices if "a second" in each]
    assert len(said) == (every > 1)
    assert said == [] or f"{rate / every:.4g} are encoded" in said[0]


def test_a_frame_of_each_field_is_never_left_out():
    plan = planned(recipe(), video(720, 576, field_order="tt", average_rate="25/1"))
    track = TrackMeasure(index=0, kind="video", packets=481, first_pts_s=0, last_pts_s=4)
    assert plan.with_measurement(Measurement(tracks=(track,)), recipe()).ladder.every == 1


@pytest.mark.parametrize("found", ["yuv420p10le", "yuv422p", "yuv444p10le"])
def test_the_h264_ladder_is_8_bit_420(found):
    made = ladder(video(pixel_format=found, bit_depth=10))
    assert {(r.target.pixel_format, r.target.bit_depth) for r in made.rungs} == {("yuv420p", 8)}


def test_the_hevc_ladder_lies_beside_it_and_keeps_ten_bits():
    made = ladder(video(1280, 720, pixel_format="yuv420p10le", bit_depth=10), recipe(hevc=True))
    assert [rung.name for rung in made.rungs] == [
        "v720", "v480", "v360", "v240", "v144", "hevc720", "hevc480", "hevc360", "hevc240",
    ]  # fmt: skip
    assert {r.target.pixel_format for r in made.rungs[5:]} == {"yuv420p10le"}
    assert {r.target.tag for r in made.rungs[5:]} == {"hvc1"}
    assert heights(video(3840, 2160), recipe(hevc=True))[6:8] == [2160, 1440]


def test_hdr_is_refused_or_kept_in_hevc_beside_sdr_or_mapped_by_policy():
    hdr = video(1280, 720, codec="prores", pixel_format="yuv420p10le", bit_depth=10, colour=PQ)
    plan = make_plan(recipe({"hdr": "keep"}), media(hdr))
    assert isinstance(plan, Refuse)
    assert plan.policy == "hls.hevc"
    kept = ladder(hdr, recipe({"hdr": "keep"}, hevc=True))
    said = {r.target.codec: (r.target.colour.transfer, r.target.tone_map) for r in kept.rungs}
    assert said == {"h264": ("bt709", "smpte2084"), "hevc": ("smpte2084", "")}
    assert "keep HDR" in planned(recipe({"hdr": "keep"}, hevc=True), hdr).notices[-1]
    mapped = ladder(hdr, recipe({"hdr": "convert"}))
    assert mapped.rungs[0].target.tone_map == "smpte2084"
    wide = video(pixel_format="yuv422p10le", bit_depth=10, colour=PQ)
    assert isinstance(make_plan(recipe({"hdr": "keep"}, hevc=True), media(wide)), Refuse)


def test_sounds_become_stereo_and_text_becomes_webvtt():
    plan = planned(
        recipe(),
        video(1280, 720),
        audio("ac3", 6, language="eng"),
        audio("aac", 1),
        subtitle("ass", language="ger"),
        subtitle("hdmv_pgs_subtitle"),
        cover(),
        form=MKV,
        chapters=2,
    )
    kept = [(s.position, s.codec, s.channels, s.bit_rate) for s in plan.kept]
    assert kept == [
        (0, "h264", None, None),
        (1, "aac", 2, 128_000),
        (2, "aac", 1, 64_000),
        (3, "webvtt", None, None),
    ]
    assert plan.chapters == 2
    assert plan.losses, "a set never replaces an original"
    said = " ".join(plan.notices)
    assert "audio in ac3 of 6 channels becomes AAC stereo at 128 kbit/s." in said
    assert "webvtt without their styling" in said
    assert said.count("is left out") == 2


@pytest.mark.parametrize(
    ("wanted", "sound", "expected"),
    [
        ("off", audio("ac3", 6), None),
        ("aac", audio("aac", 6), ("aac", Action.CONVERT, 6, 384_000)),
        ("ac3", audio("ac3", 6), ("ac3", Action.COPY, 6, None)),
        ("eac3", audio("ac3", 6), ("eac3", Action.CONVERT, 6, 384_000)),
        ("eac3", audio("eac3", 8), ("eac3", Action.CONVERT, 6, 384_000)),
        ("eac3", audio("flac", 4), None),
    ],
)
def test_surround_is_a_second_form_of_the_sound_copied_where_it_can_be(wanted, sound, expected):
    made = planned(recipe(surround=wanted), video(), sound).streams[1]
    assert (made.codec, made.channels) == ("aac", 2)
    found = made.also.get("surround")
    assert (found and (found.codec, found.action, found.channels, found.bit_rate)) == expected
    said = (
        "is also kept as it is" if expected and expected[1] is Action.COPY else "5.1 at 384 kbit/s"
    )
    assert (said in made.notice) is (expected is not None)
    low = made.also["low"]
    assert (low.codec, low.channels, low.bit_rate) == ("aac", 1, 48_000)
    without = planned(recipe(surround=wanted, h264_rungs={240: (22, 400)}), video(), sound)
    assert "low" not in without.streams[1].also, "no rung needs it"


def test_what_hls_cannot_hold_is_refused_unless_a_policy_drops_it():
    pictures = media(video(), subtitle("hdmv_pgs_subtitle"))
    refused = make_plan(recipe({"picture_subtitles": "refuse"}), pictures)
    assert isinstance(refused, Refuse)
    assert refused.policy == "policies.picture_subtitles"
    second = make_plan(recipe({"extra_video": "keep"}), media(video(), video(640, 360)))
    assert isinstance(second, Refuse)
    camera = planned(recipe(), video(), data("gpmd"))
    assert [s.action for s in camera.streams] == [Action.ENCODE, Action.DROP]


@pytest.mark.parametrize(
    "wrong",
    [
        {"video": {"codec": "hevc", "crf": 22}},
        {"video": {"codec": "h264", "crf": 22, "max_width": 1280, "max_height": 720}},
        {"video": {"codec": "h264", "crf": 22, "keyframe_s": 4}},
        {"hls": {"segment_s": 13}},
        {"hls": {"h264_rungs": {}}},
        {"hls": {"h264_rungs": {721: [22, 4000]}}},
        {"audio": {"loudness": -16}},
        {"subtitles": {"beside": True}},
        {"video": {"codec": "h264", "crf": 22, "crop": "auto"}},
    ],
)
def test_a_profile_that_contradicts_its_ladder_is_wrong(wrong):
    with pytest.raises(ValidationError):
        Profile.model_validate({**recipe().model_dump(mode="json"), **wrong})


def test_a_profile_whose_crf_is_not_that_of_its_highest_rung_refuses_each_video():
    odd = Profile.model_validate(
        {**recipe().model_dump(mode="json"), "video": {"codec": "h264", "crf": 20}}
    )
    refused = make_plan(odd, media(video()))
    assert isinstance(refused, Refuse)
    assert refused.policy == "video.crf"
    assert "video.crf must be that of the highest, 22, not 20" in refused.detail
