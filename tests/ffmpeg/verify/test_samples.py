"""Some seconds of a video say what the whole comes to, or nothing."""

import random
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
from hevcq.ffmpeg.run.messages import Pass
from hevcq.ffmpeg.run.runner import FfmpegRun
from hevcq.ffmpeg.verify import samples
from hevcq.ffmpeg.verify.samples import (
    MAX_GROUP_FRAMES,
    SAMPLE_S,
    TARGET_ERROR,
    WARM_UP_FRAMES,
    Sample,
    add_samples,
    extrapolate,
    places_by_bytes,
)
from hevcq.ports.encoder import EncodeRequest, Estimate
from support.clips import ManualClock
from support.media_facts import audio, media, profile, video
from support.rendition import ENCODER, request_for, request_of

LOUD = "testsrc2=size=160x90:rate=10:duration=12,noise=alls=30:allf=t"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sampled")


def source(folder: Path, crf: int, name: str, group: int = 10, graph: str = LOUD) -> Path:
    """Return 12 s with a key frame every `group` frames, encoded once at that quality."""
    target = folder / f"{crf}-{name}"
    if not target.exists():
        command = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", graph]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-g", str(group), "-crf", str(crf)]
        subprocess.run([*command, str(target)], check=True, timeout=60)
    return target


def asked(path: Path, folder: Path, **parts: Any) -> EncodeRequest:
    recipe = profile("hevc", video={"preset": "ultrafast", "crf": 30, **parts.pop("video", {})})
    return replace(request_of(path, folder / "sample.mkv", recipe, max_seconds=60.0), **parts)


def estimated(path: Path, folder: Path, count: int = 3, **parts: Any) -> Estimate | None:
    request = asked(path, folder, **parts)
    try:
        return ENCODER.estimate(request, count, stop=threading.Event())
    finally:
        assert not list(folder.glob("sample.mkv*"))


@pytest.mark.media
def test_the_size_of_the_whole_is_foretold_by_its_samples(folder):
    path = source(folder, 10, "large.mp4")
    made = asked(path, folder)
    report = ENCODER.encode(made, on_progress=lambda _: None, stop=threading.Event())
    size = made.output.stat().st_size
    for each in (made.output, *report.thumbnails, *report.levels):
        each.unlink()

    whole = estimated(path, folder, 30)
    found, lone = estimated(path, folder), estimated(path, folder, 1)

    assert whole is not None
    assert found is not None
    assert lone is not None
    assert whole.size == pytest.approx(size, rel=0.02)
    assert whole.error == 0
    assert found.size == pytest.approx(size, rel=0.2)
    assert 0 < found.error < lone.error
    assert min(found.cpu_s, whole.cpu_s) > 0


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "parts"),
    [("small.mp4", {"duration_s": None}), ("small.mp4", {"video": {"encoder": "auto"}})],
    ids=["unknown length", "a device may encode it"],
)
def test_nothing_is_foretold_of_what_cannot_be_sampled(folder, name, parts):
    assert estimated(source(folder, 45, name), folder, **parts) is None


@pytest.mark.media
def test_of_a_source_that_does_not_decode_nothing_is_foretold(folder):
    path = folder / "torn.mp4"
    content = bytearray(source(folder, 10, "large.mp4").read_bytes())
    content[5000:-5000] = bytes(len(content) - 10_000)
    path.write_bytes(content)

    assert estimated(path, folder) is None


def job(tmp_path: Path, sizes: Sequence[int] = ()) -> EncodeRequest:
    """Return ten minutes at 1 MB, with a sound of 100 kB that is copied; `sizes` are its frames' bytes."""
    picture = TrackMeasure(
        index=0, kind=StreamKind.VIDEO, packets=6000, keys_s=(0.0,), first_pts_s=0.0, last_pts_s=599.9,
        times=tuple(range(6000)), sizes=tuple(sizes),
    )  # fmt: skip
    sound = TrackMeasure(index=1, kind=StreamKind.AUDIO, packets=9, bytes=100_000)
    return request_for(
        profile("hevc"), media(video(), audio()), output=tmp_path / "sample.mkv", duration_s=600.0,
        source_size=1_000_000, max_seconds=60.0, measured=Measurement(tracks=(picture, sound)),
    )  # fmt: skip


def sample(size: int, key: int = 900, frames: tuple[int, int] = (0, 0), **parts: Any) -> Sample:
    """Return a sample of 20 frames, all but the first of that size."""
    return Sample([key] + [size] * 19, frames=frames, **parts)


def test_the_size_of_the_whole_is_that_of_its_frames_and_of_the_sound(tmp_path):
    made = [sample(100, 900, cpu_s=1), sample(120, 700, cpu_s=2), Sample()]

    whole = extrapolate(job(tmp_path), made)

    keys = 6000 / MAX_GROUP_FRAMES
    assert whole is not None
    assert whole.size == pytest.approx(6000 * 110 + keys * (800 - 110) + 100_000)
    assert 0 < whole.error < extrapolate(job(tmp_path), made[:1]).error
    assert whole.cpu_s == 300
    assert extrapolate(job(tmp_path), [Sample([900] * WARM_UP_FRAMES)]) is None
    assert extrapolate(job(tmp_path), []) is None


def sample_of(sizes: Sequence[int], begin: int, **parts: Any) -> Sample:
    return Sample(sizes[begin : begin + 20], frames=(begin, begin + 20), **parts)


def test_four_of_five_forecasts_miss_by_no_more_than_they_say(tmp_path):
    drawing = random.Random(3)
    right = list[bool]()
    for _ in range(40):
        scenes = [
            (drawing.lognormvariate(5, 0.8), drawing.lognormvariate(-1, 0.4)) for _ in range(60)
        ]
        before = [int(size) for size, _ in scenes for _ in range(100)]
        after = [int(size * share) for size, share in scenes for _ in range(100)]
        request = job(tmp_path, before)
        begins = [round(at * 10) for at in islice(places_by_bytes(request.measured.track(0)), 10)]

        whole = extrapolate(
            request, [sample_of(after, begin, by_time=0, by_bytes=1) for begin in begins]
        )

        right.append(abs((whole.size - 100_000) / sum(after) - 1) <= whole.within)
    assert fmean(right) >= 0.7


class Trials:
    """Samples of ten minutes of scenes, ten seconds each; `took_s` is the wall time of one."""

    def __init__(self, tmp_path: Path, monkeypatch, length_s: float = 600.0) -> None:
        drawing = random.Random(5)
        scenes = [(drawing.randint(50, 400), drawing.uniform(0.3, 0.5)) for _ in range(60)]
        before = [size for size, _ in scenes for _ in range(100)]
        self.after = [int(size * share) for size, share in scenes for _ in range(100)]
        self.clock, self.took_s, self.encoded = ManualClock(), 1.0, list[tuple[float, float]]()
        request = replace(job(tmp_path, before), duration_s=length_s)
        tools = replace(ENCODER._tools, clock=self.clock)
        self.job = FfmpegRun(tools, request, threading.Event(), Pass.MIDSTREAM)
        monkeypatch.setattr(samples, "encode_for_size", self.encode_for_size)

    def encode_for_size(self, _job: FfmpegRun, at: float, seconds: float = SAMPLE_S) -> Sample:
        self.clock.advance(self.took_s * seconds / SAMPLE_S)
        self.encoded.append((at, seconds))
        return replace(sample_of(self.after, round(at * 10)), seconds=seconds)

    def forecast(self, most: int = 99, time_s: float = 600.0) -> Estimate | None:
        made = add_samples(self.job, [], most, self.clock.monotonic() + time_s)
        return extrapolate(self.job.request, made)


@pytest.mark.parametrize(("most", "time_s", "made"), [(3, 600.0, 3), (99, 4.0, 4), (99, 0.0, 1)])
def test_samples_end_with_their_number_or_the_time(tmp_path, monkeypatch, most, time_s, made):
    trials = Trials(tmp_path, monkeypatch)

    whole = trials.forecast(most, time_s)

    assert len(trials.encoded) == made
    assert whole is not None
    assert whole.within > TARGET_ERROR


@pytest.mark.parametrize(("time_s", "whole"), [(600.0, True), (9.0, False)])
def test_a_short_video_is_encoded_whole_where_there_is_time(
    tmp_path, monkeypatch, time_s, *, whole
):
    trials = Trials(tmp_path, monkeypatch, 24.0)

    found = trials.forecast(time_s=time_s)

    assert found is not None
    assert (trials.encoded[-1] == (0.0, 26.0), found.error == 0) == (whole, whole)
    assert len(trials.encoded) == 2 or not whole
