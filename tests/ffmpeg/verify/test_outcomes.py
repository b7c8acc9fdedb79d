"""What the gates conclude from what each of them finds: first failure ends, unknown never passes.

Dolby Vision metadata of every picture, kept in order or refused.
"""

import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffmpeg.verify.conftest import ENCODER, PROFILE, Pair, complaints, encoded, ffmpeg
from ffmpeg.verify.test_clean import ORDER
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.formats import Container
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import Action, EncodePlan, Refuse
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile_sections import Gates, VideoRecipe
from hevcq.errors import MediaRefused, SourceDamaged, SourceUnreadable, Stopped
from hevcq.ffmpeg.inputs import FfmpegTools, require_encoder_support, with_dolby_support
from hevcq.ffmpeg.process.child import Finished
from hevcq.ffmpeg.verify import decode, gates
from hevcq.ffmpeg.verify.decode import dolby_problem
from hevcq.ffmpeg.verify.frames import PictureFacts
from hevcq.ports.encoder import EncodeReport, VerifyRequest
from support.clips import ManualClock, media_clip
from support.dolby import PHONE, make_film, need_dolby, spoil
from support.fakes.backend import HEVC
from support.fakes.encoder import INFO, fake_plan

MADE = Measurement(
    tracks=(
        TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=250, first_pts_s=0.0),
        TrackMeasure(index=1, kind=StreamKind.AUDIO, packets=400, first_pts_s=0.0),
    )
)
FACTS = PictureFacts(frames=250, digest="aa", mean=0.5, worst=2.0, detail=0.9)


class Bench:
    """A request whose output is sound; a test spoils one of the things that a gate looks at."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.output = folder / "out.mp4"
        self.output.write_bytes(b"x" * 500)
        self.progress: list[float] = []
        self.request = VerifyRequest(
            profile=HEVC,
            plan=fake_plan(HEVC, INFO),
            location="/media/a.mp4",
            info=INFO,
            measured=MADE,
            source_size=1000,
            output=self.output,
            report=EncodeReport(arguments=(), seconds=1.0, cpu_s=1.0, stderr=(), frames=250),
            max_seconds=60.0,
        )
        self.compared = ("", FACTS)
        self.answer("probe_and_measure", (INFO, None))
        for name in ("plan", "stream", "time", "decode"):
            self.answer(f"{name}_problems", [])
        self.answer("measure", MADE)
        self.answer("sound_problem", "")
        self.set("source_level_files", lambda *_, **__: nullcontext([Path("levels")]))
        self.answer("decode_errors_of", [])
        self.set("source_thumbnails", lambda *_, **__: nullcontext(lambda _size: b""))
        self.set("FrameComparison", self._comparison)

    def _comparison(self, *_: object, **__: object) -> SimpleNamespace:
        problem, facts = self.compared
        return SimpleNamespace(
            feed=lambda _chunk: None, frames=125, close=lambda: problem, facts=lambda: facts
        )

    def set(self, name: str, function: object) -> None:
        self._patch.setattr(gates, name, function)

    def answer(self, name: str, found: object) -> None:
        self.set(name, lambda *_, **__: found)

    def gates(self, **changes: object) -> None:
        profile = HEVC.model_copy(update={"gates": Gates(**changes)})
        self.request = replace(self.request, profile=profile)

    def plan(self, **changes: object) -> None:
        self.request = replace(self.request, plan=self.request.plan.model_copy(update=changes))

    def encode_sound(self) -> None:
        picture, sound = self.request.plan.streams
        made = sound.model_copy(update={"action": Action.ENCODE, "encoder": "aac"})
        self.plan(streams=(picture, made))

    def verify(self) -> tuple[GateResult, ...]:
        tools = FfmpegTools("ffmpeg", "ffprobe", ManualClock(auto=True))
        told = lambda progress: self.progress.append(progress.fraction)  # noqa: E731
        return gates.verify(tools, self.request, told, threading.Event())

    def last(self) -> tuple[Gate, Outcome, str]:
        found = self.verify()[-1]
        return found.gate, found.outcome, found.detail


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_sound_output_passes_every_gate(bench):
    found = bench.verify()

    assert tuple(each.gate for each in found) == ORDER
    assert {each.outcome for each in found} == {Outcome.PASSED}
    assert (found[-1].digest, found[-1].detail) == (
        "aa",
        "250 frames compared: brightness 0.50 of 255 off on average, 2.0 at worst, 90% of sharp detail kept",
    )
    assert found[4].detail == "50.0% of the source's size"


@pytest.mark.parametrize(
    ("looked_at", "gate"),
    [
        ("plan_problems", Gate.G2),
        ("stream_problems", Gate.G3),
        ("time_problems", Gate.G5),
        ("decode_problems", Gate.G4),
    ],
)
def test_the_first_gate_that_fails_is_the_last_that_runs(bench, looked_at, gate):
    bench.answer(looked_at, ["one thing", "another"])
    assert bench.last() == (gate, Outcome.FAILED, "one thing (and 1 more)")


def test_a_line_that_the_encoder_printed_fails_before_anything_is_read(bench):
    report = replace(bench.request.report, stderr=("[h264 @ 0x1] broken picture",))
    bench.request = replace(bench.request, report=report)
    (only,) = bench.verify()
    assert (only.gate, only.outcome) == (Gate.G1, Outcome.FAILED)


def test_an_output_that_cannot_be_read_fails_and_a_stop_is_passed_on(bench):
    def unreadable(*_: object, **__: object) -> None:
        raise SourceUnreadable("no moov")

    def stopped(*_: object, **__: object) -> None:
        raise Stopped

    bench.set("measure", unreadable)
    assert bench.last() == (Gate.G5, Outcome.FAILED, "the new file cannot be read: no moov")
    bench.set("measure", stopped)
    with pytest.raises(Stopped):
        bench.verify()


def test_a_source_that_was_not_measured_is_unknown(bench):
    bench.request = replace(bench.request, measured=Measurement(tracks=()))
    assert bench.last() == (Gate.G5, Outcome.UNKNOWN, "the times of the source were not measured")


def test_sound_is_compared_where_no_picture_is(bench):
    bench.encode_sound()
    picture, sound = bench.request.plan.streams
    copied = picture.model_copy(update={"action": Action.COPY})
    bench.plan(streams=(copied, sound))
    assert bench.last() == (Gate.G8, Outcome.PASSED, "its sound compared throughout")
    bench.answer("sound_problem", "is 12 dB quieter at 0:00:00.0")
    assert bench.last()[1] is Outcome.FAILED


@pytest.mark.parametrize(
    ("before", "after", "rate", "moved_s"),
    [(1.0, 1.5, "", 0.5), (1.0, 1.5, "25/1", 1.5), (None, 1.5, "", 1.5), (1.0, None, "", -1.0)],
)
def test_sound_is_compared_where_the_picture_went(bench, before, after, rate, moved_s):
    def measured(first_s: float | None) -> Measurement:
        picture = MADE.tracks[0].model_copy(update={"first_pts_s": first_s})
        return MADE.model_copy(update={"tracks": (picture,)})

    given: list[float] = []
    bench.encode_sound()
    picture, sound = bench.request.plan.streams
    target = bench.request.plan.video.model_copy(update={"rate": rate})
    bench.plan(streams=(picture.model_copy(update={"video": target}), sound))
    bench.request = replace(bench.request, measured=measured(before))
    bench.answer("measure", measured(after))
    bench.set("sound_problem", lambda _a, _b, track: given.append(track.moved_s) or "")
    bench.verify()
    assert given == [moved_s]


@pytest.mark.parametrize(
    ("changes", "source", "size", "outcome", "said"),
    [
        ({"minimum_saving": None}, 1000, 900, Outcome.OFF, "any size is welcome"),
        ({}, 0, 900, Outcome.UNKNOWN, "the source's size is unknown"),
        ({}, 1000, 951, Outcome.NOT_SMALLER, "Would save too little (95 % of the original, limit"),
        ({}, 1000, 950, Outcome.PASSED, "95.0% of the source's size"),
    ],
)
def test_sizes_are_judged(bench, changes, source, size, outcome, said):
    bench.gates(**changes)
    bench.request = replace(bench.request, source_size=source)
    bench.output.write_bytes(b"x" * size)
    found = next(each for each in bench.verify() if each.gate is Gate.G6)
    assert found.outcome is outcome
    assert found.detail.startswith(said)


def test_copied_sound_that_does_not_decode_in_the_source_is_the_sources_damage(bench):
    bench.answer("decode_problems", ["[aac @ 0x1] channel element is not allocated"])
    bench.answer("decode_errors_of", ["[aac @ 0x2] channel element is not allocated"])
    with pytest.raises(SourceDamaged, match=r"a\.mp4 is damaged: .*not allocated"):
        bench.verify()

    bench.answer("decode_errors_of", ["[aac @ 0x2] something else"])
    assert bench.last()[:2] == (Gate.G4, Outcome.FAILED)
    bench.answer("decode_errors_of", ["[aac @ 0x2] channel element is not allocated"])
    bench.encode_sound()
    assert bench.last()[:2] == (Gate.G4, Outcome.FAILED)


def test_the_full_decode_is_of_every_picture_and_sound_and_a_silent_failure_is_a_problem(
    bench, monkeypatch
):
    seen, failed = [], Finished(69, b"", (), 0.1, 0.1)
    monkeypatch.setattr(decode, "stream_child", lambda argv, **_: seen.extend(argv) or failed)
    tools = FfmpegTools("ffmpeg", "ffprobe", ManualClock(), sandboxed=False)

    problems = decode.decode_problems(tools, bench.request, threading.Event(), None)

    assert problems == ["decoding ended with exit code 69"]
    maps = [seen[place + 1] for place, word in enumerate(seen) if word == "-map"]
    assert maps == ["0:v?", "0:a?"]
    assert "-threads" not in seen


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
        pytest.param([*SHOWN[:3], (60, SHOWN[2][1]), *SHOWN[4:]], id="one repeated")
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
        require_encoder_support(lambda _encoder: "-crf <float>", plan)
    told = make_plan(IN_MP4, with_dolby_support(lambda _encoder: "-crf <float>", info))
    assert isinstance(told, Refuse)
    assert "which only ffmpeg 7.1 and later can write" in told.detail
    assert make_plan(IN_MP4, with_dolby_support(lambda _encoder: "-dolbyvision", info)) == plan


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
    assert complaints(pair.judge()) == []
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
    stripped = ("-map", "0:v", "-map", "0:a", "-c", "copy", "-bsf:v", "dovi_rpu=strip=1")
    ffmpeg("-i", pair.good, *stripped, spoilt)

    results = pair.judge(spoilt)

    assert (results[-1].gate, results[-1].outcome) == (Gate.G2, Outcome.FAILED)
    assert "not marked as Dolby Vision" in results[-1].detail
