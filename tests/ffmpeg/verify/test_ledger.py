"""Gates G2 and G3 by facts alone: what a rendition says of itself, beside its plan and its source."""

from typing import Any

import pytest

from hevcq.domain.media.facts import Chapter, LightLevel, MasteringDisplay, MediaInfo, Stream
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.ffmpeg.verify import streams
from support.media_facts import MKV, audio, media, profile, subtitle, video

DISPLAY = MasteringDisplay(
    red_x="34000/50000", red_y="16000/50000", green_x="13250/50000", green_y="34500/50000",
    blue_x="7500/50000", blue_y="3000/50000", white_x="15635/50000", white_y="16450/50000",
    min_luminance="1/10000", max_luminance="10000000/10000",
)  # fmt: skip
LIGHT = LightLevel(max_content=1000, max_average=400)


def rendition(**facts: Any) -> Stream:
    facts = {"sample_aspect": "1:1"} | facts
    own = {"mastering_display": DISPLAY, "light_level": LIGHT} | facts
    return video(64, 48, codec="hevc", codec_tag="hvc1", **own)


@pytest.fixture
def plan() -> EncodePlan:
    made = make_plan(profile(), media(video(64, 48)))
    assert isinstance(made, EncodePlan)
    promised = {"mastering_display": DISPLAY, "light_level": LIGHT}
    target = made.video.model_copy(update=promised)
    kept = made.streams[0].model_copy(update={"video": target})
    return made.model_copy(update={"streams": (kept,)})


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ([rendition()], ""),
        ([audio()], "track 0 is no video"),
        ([], "track 0 is no video"),
        ([rendition(mastering_display=None)], "video track 0: the HDR master"),
        ([rendition(mastering_display=DISPLAY.model_copy(update={"red_x": "1/2"}))], "video track 0: the HDR master"),
        ([rendition(mastering_display=DISPLAY.model_copy(update={"red_x": "17/25"}))], ""),
        ([rendition(light_level=None)], "video track 0: the HDR light level"),
    ],
    ids=["same", "sound", "nothing", "no display", "other display", "shortened", "no light"],
)  # fmt: skip
def test_a_picture_is_held_to_its_target(plan, made, problem):
    found = streams.plan_problems(plan, media(*made))

    assert [each[: len(problem)] for each in found] == [problem] * bool(problem)


@pytest.mark.parametrize(("muxer", "shape", "good"), [("matroska", "1:1", True), ("mp4", "1:1", False),
                                                      ("matroska", "63:64", False)])  # fmt: skip
def test_matroska_rounds_the_width_that_is_shown_to_a_pixel(plan, muxer, shape, good):
    target = plan.video.model_copy(update={"sample_aspect": "1281:1280"})
    kept = plan.streams[0].model_copy(update={"video": target})
    promised = plan.model_copy(update={"streams": (kept,), "muxer": muxer})
    form = {"form": "matroska,webm"} if muxer == "matroska" else {}

    found = streams.plan_problems(promised, media(rendition(sample_aspect=shape), **form))

    assert (found == []) is good


MARKED = (
    Chapter(start_s=0.0, end_s=5.0, title="One"),
    Chapter(start_s=5.0, end_s=9.0, title="Two"),
)


def marked(start_s: float, title: str = "Two") -> tuple[Chapter, ...]:
    return MARKED[0], Chapter(start_s=start_s, end_s=9.0, title=title)


@pytest.mark.parametrize(
    ("chapters", "problems"),
    [
        (MARKED, []),
        (MARKED[:1], ["the number of chapters"]),
        (marked(5.0, "Second"), ["the title of chapter 2"]),
        (marked(7.5), ["chapter 2 starts at 0:00:07.50, not 0:00:05.00"]),
    ],
    ids=["same", "fewer", "renamed", "moved"],
)
def test_chapters_keep_their_titles_and_times(plan, chapters, problems):
    plan = plan.model_copy(update={"chapters": 2})
    source, made = (
        MediaInfo(format_name="mov,mp4", streams=(), chapters=c) for c in (MARKED, chapters)
    )

    found = list(streams._chapter_problems(plan, source, made))

    assert [each[: len(problem)] for each, problem in zip(found, problems, strict=True)] == problems


@pytest.mark.parametrize(
    ("tracks", "problem"),
    [
        ([subtitle("subrip", title="Closed captions (CC1)")], ""),
        ([subtitle("subrip", title="Other")], "the title"),
        ([subtitle("ass", title="Closed captions (CC1)")], "the text track of captions CC1"),
        ([], "it has 0 text tracks of captions, not 1"),
    ],
    ids=["there", "renamed", "other format", "lost"],
)
def test_captions_have_a_text_track_each(tracks, problem):
    source = media(video(64, 48), form=MKV)
    plan = make_plan(profile(container="mkv"), source).model_copy(update={"captions": ("CC1",)})

    found = list(streams._caption_problems(plan, source, media(rendition(), *tracks, form=MKV)))

    assert [each[: len(problem)] for each in found] == [problem] * bool(problem)
