"""Dolby Vision metadata of every picture, kept in order or refused."""

import threading
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, PROFILE, Pair, encoded, ffmpeg
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.formats import Container
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.inputs import as_written, require_able
from hevcq.ffmpeg.verify.decode import dolby_problem
from support.clips import media_clip
from support.dolby import PHONE, make_film, need_dolby, spoil

SHOWN = [(n * 20, f"digest {n}") for n in range(6)]
IN_MP4 = PROFILE.model_copy(update={"container": Container.MP4})
BEFORE = [(-40, "hidden"), (-20, "hidden too"), *SHOWN, (120, "left over")]


def test_the_same_metadata_in_order_passes_behind_an_edit_list():
    assert dolby_problem(BEFORE, SHOWN, 6) == ""


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(None, id="unread"),
        pytest.param([], id="all lost"),
        pytest.param(SHOWN[:3] + SHOWN[4:], id="one dropped"),
        pytest.param(SHOWN[:-1], id="the last dropped"),
        pytest.param([*SHOWN[:2], (40, SHOWN[3][1]), (60, SHOWN[2][1]), *SHOWN[4:]], id="two swapped"),
        pytest.param([(20 * n, d) for n, (_, d) in enumerate([*SHOWN[1:], BEFORE[-1]])], id="shifted"),
        pytest.param([*SHOWN[:3], (60, SHOWN[2][1]), *SHOWN[4:]], id="one repeated"),
    ],
)  # fmt: skip
def test_metadata_that_was_damaged_is_refused(made):
    assert "Dolby Vision metadata" in dolby_problem(BEFORE, made, 6)


def test_a_source_with_metadata_on_some_pictures_only_is_refused():
    assert dolby_problem(SHOWN[:5], SHOWN, 6)
    assert dolby_problem(None, SHOWN, 6)
    assert dolby_problem([], [], 0)


def clip_facts() -> tuple[str, MediaInfo]:
    location = str(media_clip(PHONE))
    return location, ENCODER.probe(location, stop=threading.Event())


def writable(info: MediaInfo) -> MediaInfo:
    streams = (
        s.model_copy(update={"video": s.video.model_copy(update={"dolby_writable": True})})
        if s.video is not None
        else s
        for s in info.streams
    )
    return info.model_copy(update={"streams": tuple(streams)})


def test_a_build_that_cannot_write_it_refuses_before_the_encode():
    info = writable(clip_facts()[1])
    plan = make_plan(IN_MP4, info)

    assert isinstance(plan, EncodePlan)
    assert plan.video.dolby_vision
    with pytest.raises(MediaRefused, match="Dolby Vision"):
        require_able(lambda _encoder: "-crf <float>", plan)
    told = make_plan(IN_MP4, as_written(lambda _encoder: "-crf <float>", info))
    assert isinstance(told, Refuse)
    assert "which only ffmpeg 7.1 and later can write" in told.detail
    assert make_plan(IN_MP4, as_written(lambda _encoder: "-dolbyvision", info)) == plan


def test_a_mov_which_ffmpeg_does_not_mark_is_refused_with_what_keeps_it():
    refused = make_plan(PROFILE, writable(clip_facts()[1]))

    assert isinstance(refused, Refuse)
    assert "set container to mp4" in refused.detail


@pytest.fixture(scope="module", params=["a phone's", "a film's", "a film's in AV1"])
def pair(request, tmp_path_factory) -> Pair:
    """A phone's clip (8.4) made smaller, or a film (8.1), and its rendition."""
    need_dolby()
    folder = tmp_path_factory.mktemp("dolby")
    if request.param != "a phone's":
        profile = PROFILE.model_copy(update={"container": Container.MKV})
        if request.param.endswith("AV1"):
            need_dolby("libsvtav1")
            recipe = VideoRecipe(codec="av1", preset="12", crf=40, skip_codecs=("av1",))
            profile = IN_MP4.model_copy(update={"video": recipe})
        return encoded(make_film(folder / "film.mkv"), folder, profile)
    recipe = PROFILE.video.model_copy(update={"max_width": 960, "max_height": 540})
    return encoded(media_clip(PHONE), folder, IN_MP4.model_copy(update={"video": recipe}))


def test_dolby_vision_is_kept(pair):
    results = pair.judge()

    assert [r.detail for r in results if r.outcome not in {Outcome.PASSED, Outcome.OFF}] == []
    video = ENCODER.probe(str(pair.good), stop=threading.Event()).streams[0].video
    base = "hlg" if pair.request.plan.video.mastering_display is None else "hdr10"
    assert (video.dolby_vision, video.dolby_base) == (True, base)


@pytest.mark.parametrize("how", ["one dropped", "two swapped", "shifted"])
def test_a_rendition_whose_metadata_was_damaged_is_refused(pair, tmp_path, how):
    if pair.request.plan.video.codec == "av1":  # there its bits stand at any place in a byte
        spoilt = spoil(Path(pair.request.location), tmp_path / "a.mkv", how)
        results = pair.judge(location=str(spoilt))
    else:
        results = pair.judge(spoil(pair.good, tmp_path / f"a{pair.good.suffix}", how))

    assert (results[-1].gate, results[-1].outcome) == (Gate.G5, Outcome.FAILED)
    assert "Dolby Vision metadata" in results[-1].detail


def test_a_rendition_without_the_mark_is_refused(pair, tmp_path):
    spoilt = tmp_path / f"a{pair.good.suffix}"
    ffmpeg(
        "-i",
        pair.good,
        "-map",
        "0:v",
        "-map",
        "0:a",
        "-c",
        "copy",
        "-bsf:v",
        "dovi_rpu=strip=1",
        spoilt,
    )

    results = pair.judge(spoilt)

    assert (results[-1].gate, results[-1].outcome) == (Gate.G2, Outcome.FAILED)
    assert "not marked as Dolby Vision" in results[-1].detail
