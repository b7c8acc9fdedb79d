"""VMAF of real encodes: the CRF is found, another place agrees, and a spoilt video does not."""

import threading
from dataclasses import replace

import pytest

from ffmpeg.verify import conftest
from hevcq.domain.media.facts import Colour
from hevcq.domain.profile import Profile
from hevcq.domain.quality import LEARNED, Aim, Score
from hevcq.errors import MediaRefused, WorkerUnfit
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.verify.quality import LearnedCrfs, metric_program, reason_not_searched
from hevcq.ports.encoder import UNMEASURED, EncodeRequest
from hevcq.util.clock import SystemClock

pytestmark = pytest.mark.media
STOP = threading.Event()
AIMED = conftest.PROFILE.model_copy(
    update={"video": conftest.PROFILE.video.model_copy(update={"quality": 90.0})}
)


@pytest.fixture
def pair():
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which measures VMAF, is not here")
    picture = "mandelbrot=size=320x180:rate=25,noise=alls=6,trim=duration=6"
    return conftest.pair_once("source.mkv", picture=picture)


def asked(pair, folder, profile: Profile = AIMED) -> EncodeRequest:
    """Return the request of a search."""
    return replace(pair.request, profile=profile, output=folder / "sample.mkv", duration_s=6.0)


def test_the_crf_is_found_and_what_is_made_with_it_is_as_good(pair, tmp_path):
    shares: list[float] = []
    request = replace(asked(pair, tmp_path), on_share=shares.append)

    aim = conftest.ENCODER.find_quality(request, stop=STOP)

    assert 0 < shares[0] < shares[1] <= max(shares) <= 1
    assert isinstance(aim, Aim)
    assert aim.target == 90
    assert abs(aim.sampled - 90) < 6
    assert list(tmp_path.iterdir()) == []
    plan = request.plan.with_aim(aim)
    report = conftest.ENCODER.encode(
        replace(request, plan=plan, output=tmp_path / "made.mkv"),
        on_progress=lambda _: None,
        stop=STOP,
    )
    assert f"{aim.crf:g}" in report.arguments
    made = replace(pair.request, profile=AIMED, plan=plan, output=tmp_path / "made.mkv")
    assert abs(conftest.ENCODER.check_quality(made, stop=STOP) - aim.sampled) < 6


def test_the_search_starts_where_former_videos_of_the_kind_ended(pair, tmp_path, monkeypatch):
    request, starts = asked(pair, tmp_path), []
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())

    def search(score_at, start, target, scale, most):
        starts.append((start, most))
        return 30.0, {30.0: Score(90.0, 90.0)}

    monkeypatch.setattr("hevcq.ffmpeg.verify.quality.search", search)
    for _ in range(LEARNED + 1):
        encoder.find_quality(request, stop=STOP)

    assert starts == [(AIMED.video.crf, 5), (30.0, 5), (30.0, 5), (30.0, 2)]


class Leaping(SystemClock):
    """Each look at it is 100 s later."""

    at = 0.0

    def monotonic(self) -> float:
        self.at += 100.0
        return self.at


def test_after_its_time_a_search_begins_no_further_probe(pair, tmp_path):
    request = replace(asked(pair, tmp_path), max_seconds=50.0)

    aim = FfmpegEncoder("ffmpeg", "ffprobe", Leaping()).find_quality(request, stop=STOP)

    assert isinstance(aim, Aim)
    assert [each.crf for each in aim.probes] == [AIMED.video.crf]
    assert list(tmp_path.iterdir()) == []


def test_what_searches_found_is_kept_over_restarts_by_kind(tmp_path):
    folder = tmp_path / "cache"
    for number in range(12):
        LearnedCrfs(folder).note("crfs-a-480", 20.0 + number)

    assert list(LearnedCrfs(folder).crfs("crfs-a-480")) == [20.0 + n for n in range(3, 12)]
    assert not LearnedCrfs(folder).crfs("crfs-b-480")


def test_a_video_that_is_worse_scores_lower_in_the_same_places(pair, tmp_path):
    good = conftest.ENCODER.check_quality(pair.request, stop=STOP)
    conftest.ffmpeg("-i", pair.good, "-map", "0", "-vf", "gblur=2", "-c", "copy",
                    "-c:v", "libx265", "-x265-params", "log-level=error", "-preset", "ultrafast",
                    "-fps_mode", "passthrough", tmp_path / "soft.mkv")  # fmt: skip

    soft = conftest.ENCODER.check_quality(
        replace(pair.request, output=tmp_path / "soft.mkv"), stop=STOP
    )

    assert soft < good - 5
    # A join has the measurement as it was stored, without the times of frames.
    stored = type(pair.request.measured).model_validate_json(
        pair.request.measured.model_dump_json()
    )
    joined = conftest.ENCODER.check_quality(replace(pair.request, measured=stored), stop=STOP)
    assert joined == good


def test_a_rendition_is_read_in_its_own_ticks(pair, tmp_path):
    """An MP4 that begins late: its time base is not the source's."""
    good = conftest.ENCODER.check_quality(pair.request, stop=STOP)
    later = tmp_path / "later.mp4"
    conftest.ffmpeg("-i", pair.good, "-map", "0:v", "-map", "0:a", "-c", "copy",
                    "-output_ts_offset", "2", "-video_track_timescale", "90000",
                    "-use_editlist", "0", later)  # fmt: skip

    assert conftest.ENCODER.check_quality(replace(pair.request, output=later), stop=STOP) == good


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": Colour(transfer="smpte2084")}, "not made for HDR"),
        ({"rate": "25/1"}, "other times"),
        ({}, "times of its frames are unknown"),
    ],
)
def test_what_vmaf_says_nothing_of_is_not_searched(pair, tmp_path, change, said):
    request = asked(pair, tmp_path)
    target = request.plan.video.model_copy(update=change)
    main, *others = request.plan.streams
    kept = main.model_copy(update={"video": target})
    plan = request.plan.model_copy(update={"streams": (kept, *others)})
    measured = request.measured if change else UNMEASURED

    assert said in reason_not_searched(replace(request, plan=plan, measured=measured))


def test_without_a_program_that_measures_the_worker_says_what_to_install(monkeypatch):
    tools = FfmpegTools("ffmpeg", "ffprobe", SystemClock())
    with pytest.raises(WorkerUnfit, match="No program measures VMAF") as raised:
        metric_program(tools, lambda _program: " ssim ")
    assert "imageio-ffmpeg" in raised.value.remedy
    with pytest.raises(WorkerUnfit, match="other has no libvmaf"):
        metric_program(replace(tools, metric="other"), lambda _program: " ssim ")
    assert metric_program(replace(tools, metric="other"), lambda _: " libvmaf ") == "other"


def test_a_profile_that_asks_for_a_quality_waits_until_something_measures_it(tmp_path):
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock(), metric="/bin/true")
    with pytest.raises(WorkerUnfit, match="has no libvmaf"):
        encoder.self_test(AIMED, tmp_path, stop=STOP)
    with pytest.raises(WorkerUnfit):
        encoder.require_metric(AIMED)
    encoder.require_metric(conftest.PROFILE)


def test_what_was_not_made_of_a_video_is_not_compared_with_it(pair, tmp_path):
    other = conftest.make_source(
        tmp_path, "other.mkv", picture="testsrc2=size=160x90,trim=duration=2"
    )

    with pytest.raises(MediaRefused, match=r"has 160x90, but .* makes 320x180"):
        conftest.ENCODER.frame_pairs(replace(pair.request, output=other), stop=STOP)
