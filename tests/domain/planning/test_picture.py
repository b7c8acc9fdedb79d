"""What the picture must become, and when it is refused."""

import pytest

from hevcq.domain.media.facts import Colour, LightLevel, MasteringDisplay, Measurement
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse, VideoTarget
from hevcq.domain.planning.planner import make_plan
from support.media_facts import audio, media, profile, video

TAGS = "space", "transfer", "primaries"
HDR = Colour(range="tv", space="bt2020nc", transfer="smpte2084", primaries="bt2020")
DISPLAY = MasteringDisplay(
    red_x="34000/50000", red_y="16000/50000", green_x="13250/50000", green_y="34500/50000",
    blue_x="7500/50000", blue_y="3000/50000", white_x="15635/50000", white_y="16450/50000",
    min_luminance="1/10000", max_luminance="10000000/10000",
)  # fmt: skip


def target(name: str, stream, **changes) -> VideoTarget:
    made = make_plan(profile(name, **changes), media(stream, audio()))
    assert isinstance(made, EncodePlan), made
    return made.video


def refused(name: str, stream, **changes) -> str:
    made = make_plan(profile(name, **changes), media(stream, audio()))
    assert isinstance(made, Refuse), made
    assert made.detail.endswith(".")
    return made.policy


@pytest.mark.parametrize("rotation", [90, 270])
def test_a_quarter_turn_swaps_the_sides_and_turns_the_sample_aspect(rotation):
    made = target("hevc", video(720, 576, sample_aspect="64:45", rotation=rotation))

    assert (made.width, made.height, made.sample_aspect) == (576, 720, "45:64")
    assert made.rotation == 0


@pytest.mark.parametrize(
    ("size", "facts", "expected"),
    [
        ((1920, 1080), {}, (1280, 720)),
        ((3840, 1600), {}, (1280, 534)),
        ((1080, 1920), {}, (720, 1280)),
        ((1920, 1080), {"rotation": 90}, (720, 1280)),
        ((1440, 1080), {"sample_aspect": "4:3"}, (1280, 720)),
        ((1280, 720), {}, (1280, 720)),
        ((1279, 720), {}, (1280, 720)),
        ((9000, 300), {}, (1280, 42)),
    ],
)
def test_720p_fits_inside_with_even_sides_and_square_pixels(size, facts, expected):
    made = target("720p", video(*size, **facts))

    assert (made.width, made.height, made.sample_aspect) == (*expected, "1:1")
    assert made.scale == (size != expected or "rotation" in facts)


@pytest.mark.parametrize(
    ("source", "hevc", "plain"),
    [
        ("yuv420p", ("yuv420p", 8), "yuv420p"),
        ("yuv420p10le", ("yuv420p10le", 10), "yuv420p"),
        ("yuv422p10be", ("yuv422p10le", 10), "yuv420p"),
        ("yuv444p12le", ("yuv444p12le", 12), "yuv420p"),
        ("p010le", ("yuv420p10le", 10), "yuv420p"),
        ("yuv411p", ("yuv422p", 8), "yuv420p"),
        ("yuv420p9le", ("yuv420p10le", 10), "yuv420p"),
    ],
)
def test_depth_and_chroma_are_kept_or_made_plain(source, hevc, plain):
    kept = target("hevc", video(pixel_format=source))

    assert (kept.pixel_format, kept.bit_depth) == hevc
    assert target("1080p", video(pixel_format=source)).pixel_format == plain


@pytest.mark.parametrize(
    ("name", "pixels", "matrix", "colour"),
    [
        ("hevc", "gbrp", "", Colour(range="pc", space="gbr")),
        ("1080p", "yuv420p", "bt709", Colour(range="tv", **dict.fromkeys(TAGS, "bt709"))),
        ("avi", "yuv420p", "bt601", Colour()),
    ],
)
def test_rgb_stays_or_becomes_luma_and_chroma_by_the_matrix_that_players_take(
    name, pixels, matrix, colour
):
    made = target(name, video(pixel_format="bgr0", colour=Colour(range="pc", space="gbr")))

    assert (made.pixel_format, made.matrix, made.colour) == (pixels, matrix, colour)
    assert not made.limit_range


def test_odd_sides_gain_an_edge_only_where_chroma_needs_it():
    padded = target("hevc", video(321, 241))
    assert (padded.width, padded.height) == (322, 242)
    assert (padded.pad_right, padded.pad_bottom) == (1, 1)

    wide = target("hevc", video(321, 241, pixel_format="yuv422p"))
    assert (wide.width, wide.height, wide.pad_right, wide.pad_bottom) == (322, 241, 1, 0)

    whole = target("hevc", video(321, 241, pixel_format="yuv444p"))
    assert (whole.width, whole.height, whole.pad_right) == (321, 241, 0)


def test_hdr10_goes_along_where_the_depth_is_kept():
    light = LightLevel(max_content=1000, max_average=400)
    stream = video(codec="prores", pixel_format="yuv420p10le", colour=HDR, mastering_display=DISPLAY,
                   light_level=light)  # fmt: skip

    made = target("hevc", stream)

    assert (made.colour, made.mastering_display, made.light_level) == (HDR, DISPLAY, light)
    keep = {"policies": {"hdr": "keep"}}
    assert refused("1080p", stream, **keep) == "policies.hdr"
    assert target("1080p", stream).tone_map == "smpte2084"
    bare = video(codec="prores", pixel_format="yuv420p10le", colour=HDR)
    assert refused("1080p", bare, **keep) == "video.pixel_format"


def test_a_phones_hdr_names_all_keys_at_once_and_where_they_are():
    stream = video(colour=HDR, dolby_vision=True, dolby_base="hlg", hdr10_plus=True)

    strict = profile("720p", policies={"hdr": "keep", "dynamic_hdr": "keep"})
    plan = make_plan(strict, media(stream, audio("unknown", codec_tag="sawp")))

    assert isinstance(plan, Refuse)
    keys = "policies.dynamic_hdr", "video.pixel_format", "AMR-WB+"
    assert all(key in plan.detail for key in (*keys, "the profile 720p; `hevcq profiles init`"))


@pytest.mark.parametrize("name", ["720p", "1080p", "hls", "webm"])
def test_a_phones_hdr_is_mapped_by_the_profiles_that_make_sdr(name):
    stream = video(colour=HDR, dolby_vision=True, dolby_base="hlg", hdr10_plus=True)

    made = make_plan(profile(name), media(stream))

    assert isinstance(made, EncodePlan)
    assert made.video.tone_map
    said = " ".join(made.notices)
    for words in ("mapped to SDR", "Dolby Vision is left out", "HDR10+ dynamic metadata is left"):
        assert words in said


@pytest.mark.parametrize("fact", ["dolby_vision", "hdr10_plus"])
def test_what_no_encoder_carries_needs_leave_to_be_dropped(fact):
    stream = video(dolby_base="hlg", **{fact: True})

    assert refused("hevc", stream) == "policies.dynamic_hdr"
    made = make_plan(profile("hevc", policies={"dynamic_hdr": "drop"}), media(stream))
    assert isinstance(made, EncodePlan)
    assert made.notices, "what is dropped is said"


def test_captions_are_carried_by_libx264_and_by_it_alone():
    stream = video(closed_captions=True)

    assert target("720p", stream).captions is True
    assert target("720p", stream, policies={"closed_captions": "drop"}).captions is False
    assert target("720p", video()).captions is None


@pytest.mark.parametrize(
    ("facts", "bars", "wanted", "size", "crop"),
    [
        ({}, (0, 138), {}, (1920, 804), "1920:804:0:138"),
        ({}, (240, 0), {"max_width": 1280, "max_height": 720}, (960, 720), "1440:1080:240:0"),
        ({"rotation": 90}, (0, 240), {}, (1080, 1440), "1080:1440:0:240"),
        (
            {"sample_aspect": "4:3"},
            (0, 138),
            {"max_width": 3840, "max_height": 2160},
            (2560, 804),
            "1920:804:0:138",
        ),
        ({}, (0, 138), {"max_width": 1280, "max_height": 720}, (1280, 536), "1920:804:0:138"),
    ],
)
def test_a_picture_without_its_bars_is_scaled_and_turned_as_if_it_had_none(
    facts, bars, wanted, size, crop
):
    seen = Measurement(tracks=(), bars=(0, *bars)).add_to(media(video(1920, 1080, **facts)))

    plan = make_plan(profile(video={"crop": "auto", **wanted}), seen)

    assert isinstance(plan, EncodePlan), plan
    assert ((plan.video.width, plan.video.height), plan.video.crop) == (size, crop)
    assert any("its black bars are cropped" in notice for notice in plan.notices)


def test_colour_tags_that_change_are_named():
    plan = make_plan(profile(), media(video(recoloured=True)))

    assert isinstance(plan, EncodePlan), plan
    assert any("its colour tags change on the way" in notice for notice in plan.notices)


def test_captions_become_text_where_the_encoder_loses_them_and_the_container_holds_text():
    stream = video(closed_captions=True)
    plan = make_plan(profile("hevc"), media(stream, audio()))

    assert isinstance(plan, EncodePlan)
    assert (plan.captions, plan.video.captions) == (("CC1",), False)
    assert plan.notices == (
        "Stream 0: closed captions become a text track, without their places and colours.",
    )
    found = plan.with_measurement(
        Measurement(tracks=(), captions=("CC1", "CC3"), notices=("Said.",)), profile()
    )
    assert (found.captions, found.notices[-1]) == (("CC1", "CC3"), "Said.")
    assert plan.with_measurement(Measurement(tracks=()), profile()).captions == ("CC1",), (
        "what was not looked for stays"
    )
    assert refused("avi", stream, policies={"closed_captions": "convert"}) == (
        "policies.closed_captions"
    )


BOX = {"max_width": 640, "max_height": 360}


@pytest.mark.parametrize(
    ("facts", "recipe", "kept"),
    [
        ({"dolby_base": "hlg"}, {}, True),
        ({"dolby_base": "hlg", "rotation": 90}, BOX, True),
        ({"dolby_base": "hdr10", "mastering_display": DISPLAY}, {}, True),
        ({"dolby_base": "hdr10", "mastering_display": DISPLAY}, BOX, False),
        ({"dolby_base": "hdr10"}, {}, False),
        ({"dolby_base": "hlg", "bars": (0, 20)}, {}, False),
        ({"dolby_base": "hlg", "hdr10_plus": True}, {}, False),
        ({"dolby_base": "hlg", "dolby_writable": False}, {}, False),
        ({"dolby_base": "hlg"}, {"codec": "av1", "preset": "8"}, True),
        ({"dolby_base": "hlg"}, {"codec": "h264"}, False),
    ],
)
def test_dolby_vision_is_kept_where_it_stays_true(facts, recipe, kept):
    known = {"dolby_vision": True, "dolby_writable": True, "pixel_format": "yuv420p10le"}
    stream = video(1920, 1080, codec="prores", colour=HDR, **(known | facts))

    made = make_plan(profile("hevc", container="mp4", video=recipe), media(stream))

    assert isinstance(made, EncodePlan if kept else Refuse)
    if isinstance(made, EncodePlan):
        assert made.video.dolby_vision
        assert not any("Dolby Vision" in notice for notice in made.notices)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"dolby_vision": True, "dolby_profile": "5"},
            "Dolby Vision (profile 5) without a base layer",
        ),
        ({"dolby_vision": True}, "Dolby Vision without a base layer"),
        (
            {"dolby_vision": True, "dolby_profile": "7.6", "dolby_base": "hdr10"},
            "Dolby Vision (profile 7.6), which no encoder here writes",
        ),
        (
            {"dolby_vision": True, "dolby_profile": "8.4", "dolby_base": "hlg"},
            "Dolby Vision (profile 8.4), which only ffmpeg 7.1 and later can write",
        ),
        (
            {
                "dolby_vision": True,
                "dolby_profile": "8.4",
                "dolby_base": "hlg",
                "dolby_writable": True,
            },
            "Dolby Vision (profile 8.4), which this profile does not keep",
        ),
        ({"hdr10_plus": True}, "HDR10+ dynamic metadata, which encoders drop without a word"),
    ],
)
def test_dynamic_hdr_that_is_refused_is_called_by_name_with_the_reason(facts, said):
    made = make_plan(profile("hevc"), media(video(**facts), audio()))

    assert isinstance(made, Refuse)
    assert f"The picture carries {said}" in made.detail


@pytest.mark.parametrize("base", ["hdr10", "hlg", "sdr"])
def test_of_dolby_vision_the_base_layer_is_kept_by_policy(base):
    stream = video(dolby_vision=True, dolby_base=base)
    drop = {"dynamic_hdr": "drop"}

    made = make_plan(profile("hevc", policies=drop), media(stream))

    assert isinstance(made, EncodePlan)
    assert f"Dolby Vision is left out; its base layer ({base.upper()})" in made.notices[0]
    assert refused("hevc", video(dolby_vision=True), policies=drop) == "policies.dynamic_hdr"


@pytest.mark.parametrize(("policy", "said"), [("keep", True), ("convert", False)])
def test_a_plan_says_already_that_no_quality_of_hdr_is_searched(policy, said):
    dark = video(codec="prores", pixel_format="yuv420p10le", colour=HDR)
    recipe = {"quality": 93, "codec": "hevc", "crf": 24}

    made = make_plan(profile("hevc", video=recipe, policies={"hdr": policy}), media(dark))

    assert isinstance(made, EncodePlan)
    notice = "CRF 24 is used, and no quality searched: VMAF is not made for HDR."
    assert (notice in made.notices) is said
    assert made.with_notices(notice).notices.count(notice) == 1, "the worker says it too"


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_becomes_sdr_where_the_profile_says_so(transfer):
    light = LightLevel(max_content=1000, max_average=400)
    stream = video(1280, 720, pixel_format="yuv420p10le", mastering_display=DISPLAY,
                   light_level=light, colour=HDR.model_copy(update={"transfer": transfer}))  # fmt: skip

    made = target("720p", stream, policies={"hdr": "convert"})

    assert (made.tone_map, made.bit_depth) == (transfer, 8)
    assert (made.colour.transfer, made.colour.primaries, made.colour.space) == ("bt709",) * 3
    assert (made.mastering_display, made.light_level) == (None, None)


def test_hdr10_that_ffmpeg_cannot_read_is_refused_where_it_is_to_be_kept():
    dark = {"pixel_format": "yuv420p10le", "colour": HDR, "mastering_display": DISPLAY}

    assert refused("hevc", video(codec="h264", **dark)) == "policies.hdr"
    assert target("hevc", video(codec="prores", **dark)).colour == HDR
    assert target("hevc", video(codec="h264", **dark), policies={"hdr": "convert"}).tone_map


@pytest.mark.parametrize("order", ["tt", "bb", "tb", "bt"])
def test_fields_are_never_passed_off_as_frames(order):
    for name in ("hevc", "720p"):
        made = target(name, video(field_order=order))
        assert made.deinterlace
        assert (made.field_rate, made.frames_per_frame) == (True, 2)


def test_progressive_pictures_are_encoded_so_whatever_their_mark_says():
    stream = video(field_order="tt", progressive_pictures=True)

    made = make_plan(profile("hevc"), media(stream))

    assert isinstance(made, EncodePlan)
    assert not made.video.deinterlace
    assert made.video.unmark_fields
    assert "marked as interlaced, but its pictures are progressive" in made.notices[0]


@pytest.mark.parametrize(
    ("marked", "seen", "top_first", "said"),
    [("tt", "", None, 1), ("tt", "tt", True, 1), ("bb", "tt", True, 2), ("tb", "bb", None, 1)],
)
def test_fields_are_taken_in_the_order_that_is_seen(marked, seen, top_first, said):
    made = make_plan(profile(), media(video(field_order=marked, seen_order=seen)))

    assert isinstance(made, EncodePlan)
    assert made.video.top_field_first is (False if seen == "bb" else top_first)
    assert len(made.notices) == said


@pytest.mark.parametrize("facts", [{"rotation": 90}, {"rotation": 180, "mirrored": True}])
def test_fields_that_are_turned_are_refused(facts):
    refused = make_plan(profile("hevc"), media(video(field_order="tt", **facts)))

    assert isinstance(refused, Refuse)
    assert "interlaced and turned" in refused.detail


@pytest.mark.parametrize(
    ("stream", "policy"),
    [
        (video(0, 0), "video"),
        (video(8, 8), "video"),
        (video(16384, 16384), "video"),
        (video(rotation=45), "video"),
        (video(turned_by_pictures=True), "video"),
        (video(stereo_3d=True), "video"),
        (video(spherical=True), "video"),
        (video(becomes="720x576 64:45 yuv422p"), "video"),
        (video(becomes="720x576 64:45 yuv420p", rotation=90), "video"),
        (video(codec="unknown"), "video"),
        *(
            (video(pixel_format=lossy), "video.pixel_format")
            for lossy in ("yuva420p", "rgba", "yuv420p16le", "pal8", "", "made_up")
        ),
    ],
)
@pytest.mark.parametrize("name", ["hevc", "1080p"])
def test_a_picture_that_cannot_be_encoded_without_an_unnamed_loss_is_refused(name, stream, policy):
    assert refused(name, stream) == policy


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, (720, 576)),
        ({"sample_aspect": "64:45"}, (1024, 576)),
        ({"sample_aspect": "64:45", "rotation": 90}, (576, 1024)),
        ({"rotation": 180}, (720, 576)),
        ({"sample_aspect": "0:1"}, (720, 576)),
        ({"sample_aspect": "1:0"}, (720, 576)),
    ],
)
def test_a_picture_is_shown_upright_with_square_pixels(facts, shown):
    assert video(720, 576, **facts).video.display_size == shown


def test_a_picture_that_changes_its_size_is_fitted_into_the_largest():
    changing = video(720, 576, becomes="544x576 64:45 yuv420p, 720x576 16:15 yuv420p")

    assert target("hevc", changing).fit == "720x576 1:1"


def test_interlaced_pictures_without_a_mark_are_deinterlaced():
    made = target("hevc", video(720, 576, interlaced_pictures=True, seen_order="bb"))

    assert (made.deinterlace, made.field_rate, made.top_field_first) == (True, True, False)


def test_a_telecine_is_inverted_for_whom_asks_where_all_of_it_can_be():
    facts = {"field_order": "tt", "telecined": True, "average_rate": "30000/1001"}
    asked = {"video": {"invert_telecine": True}}

    def inverted(name: str = "hevc", height: int = 480, **changes: object) -> bool:
        parts = asked | {k: changes.pop(k) for k in ("policies", "video") if k in changes}
        return bool(target(name, video(720, height, **(facts | changes)), **parts).telecine)

    assert inverted()
    assert inverted("720p")
    assert not inverted(height=486)
    assert not inverted(average_rate="25/1")
    assert not target("hevc", video(720, 480, **facts)).telecine
    assert not inverted(video={"invert_telecine": False})
    assert not inverted(becomes="704x480 1:1 yuv420p")
    assert target("avi", video(720, 480, **facts), **asked).rate == "24000/1001"


def test_where_chroma_lies_is_promised_of_what_is_not_converted():
    """Since version 8 ffmpeg places the chroma of 4:2:0 by itself where it makes or scales it."""
    centred = Colour(chroma_location="center")

    def placed(width: int, height: int, **facts: str) -> str:
        return target("720p", video(width, height, colour=centred, **facts)).colour.chroma_location

    assert placed(640, 480) == "center"
    assert placed(640, 480, pixel_format="yuv422p") == ""
    assert placed(1920, 1080) == ""
    assert placed(640, 480, becomes="320x240 1:1 yuv420p") == ""
