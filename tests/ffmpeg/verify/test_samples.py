"""Some seconds of a video say what the whole comes to, or nothing."""

import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import EncoderFailed, OutOfMemory
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.verify import samples
from hevcq.ffmpeg.verify.samples import COLD, Sample, sample_times, whole_of
from hevcq.ports.encoder import EncodeRequest, Estimate
from hevcq.util.clock import SystemClock
from support.media_facts import audio, media, profile, video

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
LOUD = "testsrc2=size=160x90:rate=10:duration=12,noise=alls=30:allf=t"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sampled")


def source(folder: Path, crf: int, name: str) -> Path:
    """Return 12 s of noise with a key frame each second, encoded once at that quality."""
    target = folder / f"{crf}-{name}"
    if not target.exists():
        command = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", LOUD]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-crf", str(crf)]
        subprocess.run([*command, str(target)], check=True, timeout=60)
    return target


def asked(path: Path, folder: Path, crf: int, **parts: Any) -> EncodeRequest:
    video = {"preset": "ultrafast", "crf": crf, **parts.pop("video", {})}
    recipe = profile("hevc", video=video, **parts)
    info = ENCODER.probe(str(path), stop=threading.Event())
    plan = make_plan(recipe, info)
    assert isinstance(plan, EncodePlan)
    return EncodeRequest(
        profile=recipe,
        plan=plan,
        info=info,
        location=str(path),
        output=folder / "sample.mkv",
        duration_s=info.duration_s,
        source_size=path.stat().st_size,
        max_seconds=60.0,
    )


def estimated(path: Path, folder: Path, count: int = 3, **parts: Any) -> Estimate | None:
    request = asked(path, folder, 30, video=parts.pop("video", {}))
    request = replace(request, **parts)
    try:
        return ENCODER.estimate(request, count, stop=threading.Event())
    finally:
        assert not list(folder.glob("sample.mkv*"))


@pytest.mark.media
def test_the_size_of_the_whole_is_foretold_by_its_samples(folder: Path, monkeypatch) -> None:
    path = source(folder, 10, "large.mp4")
    made = asked(path, folder, 30)
    report = ENCODER.encode(made, on_progress=lambda _: None, stop=threading.Event())
    size = made.output.stat().st_size
    for each in (made.output, *report.thumbnails, *report.levels):
        each.unlink()

    whole = estimated(path, folder)
    monkeypatch.setattr(samples, "WHOLE_S", 1.0)
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
    [
        ("small.avi", {}),
        ("small.mp4", {"duration_s": None}),
        ("small.mp4", {"max_seconds": 0.01}),
        ("small.mp4", {"video": {"encoder": "auto"}}),
    ],
    ids=["times that are not stored", "unknown length", "no time", "a device may encode it"],
)
def test_nothing_is_foretold_of_what_cannot_be_sampled(folder: Path, name: str, parts) -> None:
    assert estimated(source(folder, 45, name), folder, **parts) is None


@pytest.mark.media
def test_of_a_source_that_does_not_decode_nothing_is_foretold(folder: Path) -> None:
    path = folder / "torn.mp4"
    content = bytearray(source(folder, 10, "large.mp4").read_bytes())
    content[5000:-5000] = bytes(len(content) - 10_000)
    path.write_bytes(content)

    assert estimated(path, folder) is None


@pytest.mark.media
@pytest.mark.parametrize("error", [EncoderFailed("No."), OutOfMemory("No memory.")])
def test_a_sample_that_fails_says_nothing_but_that_memory_is_short(
    folder: Path, monkeypatch, error: EncoderFailed
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(samples, "run_with_progress", fail)
    path = source(folder, 45, "small.mp4")
    if isinstance(error, OutOfMemory):
        with pytest.raises(OutOfMemory):
            estimated(path, folder)
    else:
        assert estimated(path, folder) is None


def test_samples_lie_all_over_the_video_the_middle_first() -> None:
    assert sample_times(100.0, 5) == [49.0, 29.0, 69.0, 9.0, 89.0]
    assert sample_times(1.0, 1) == [0.0]


def job(tmp_path: Path, sizes: Sequence[int] = ()) -> EncodeRequest:
    """Return ten minutes at 1 MB, with a sound of 100 kB that is copied; `sizes` are its frames' bytes."""
    recipe, info = profile("hevc"), media(video(), audio())
    plan = make_plan(recipe, info)
    assert isinstance(plan, EncodePlan)
    picture = TrackMeasure(
        index=0, kind=StreamKind.VIDEO, packets=6000, keys_s=(0.0,), first_pts_s=0.0, last_pts_s=599.9,
        times=tuple(range(6000)), sizes=tuple(sizes),
    )  # fmt: skip
    sound = TrackMeasure(index=1, kind=StreamKind.AUDIO, packets=9, bytes=100_000)
    return EncodeRequest(
        recipe, plan, info, "a.mp4", tmp_path / "sample.mkv", duration_s=600.0,
        source_size=1_000_000, max_seconds=60.0, measured=Measurement(tracks=(picture, sound)),
    )  # fmt: skip


def test_the_sizes_of_a_samples_packets_are_read_as_ffprobe_prints_them(tmp_path, monkeypatch):
    def run_child(_argv, *, on_line, **_):
        for size, flags in (("900", "K__"), ("100", "___"), ("N/A", "___")):
            on_line(f"packet|size={size}|flags={flags}|side_data|type=Skip Samples")
        on_line("")

    monkeypatch.setattr(samples, "run_child", run_child)
    ran = SimpleNamespace(
        tools=ENCODER._tools, stop=threading.Event(), request=job(tmp_path, [50] * 6000)
    )

    found = samples.packet_sizes(ran, tmp_path / "sample.mkv", 60.0, 1.0)

    assert found == Sample([900], [100], frames=(600, 610), seconds=1.0)


def test_the_size_of_the_whole_is_that_of_its_frames_and_of_the_sound(tmp_path) -> None:
    made = [Sample([900], [100] * 9, cpu_s=1), Sample([700], [120] * 9, cpu_s=2), Sample()]

    whole = whole_of(job(tmp_path), made)

    assert whole is not None  # of 3000 frames, 12 key frames
    assert whole.size == pytest.approx(COLD * (12 * 800 + 2988 * 110) + 100_000)
    assert 0 < whole.error < whole_of(job(tmp_path), made[:1]).error
    assert whole.cpu_s == 300
    cut = whole_of(job(tmp_path), [Sample([900, 700], [100] * 8), Sample([800], [100] * 9)])
    assert cut.size == pytest.approx(COLD * (151 * 800 + 2849 * 100) + 100_000)
    assert whole_of(job(tmp_path), [Sample([900])]) is None
    assert whole_of(job(tmp_path), []) is None


def test_what_took_many_bytes_in_the_source_counts_for_as_many(tmp_path) -> None:
    # The first tenth has ten times the bytes, and no sample; each frame becomes half as large.
    before = [500] * 600 + [50] * 5400
    at = [Sample([9], [25] * 19, frames=(n, n + 20)) for n in (1000, 4000)]
    made = 600 * 250 + 5400 * 25

    plain, weighed = (whole_of(job(tmp_path, each), at).size - 100_000 for each in ([], before))

    assert plain == pytest.approx(6000 * 25, rel=0.1)
    assert weighed == pytest.approx(made, rel=0.1)
    # Of a still picture, whose frames have no bytes to speak of, no more is made than that.
    still = Sample([9], [25] * 19, frames=(20, 40))
    assert whole_of(job(tmp_path, [0] * 60 + before[60:]), [still, *at]).size < 3 * made


def test_samples_for_the_size_lie_all_over_where_the_source_is_as_usual(tmp_path) -> None:
    # Each half minute begins with 3 s of ten times the bytes, which makes its mean double.
    before = ([500] * 30 + [100] * 100 + [50] * 170) * 20
    track = job(tmp_path, before).measured.track(0)

    found = list(samples.size_places(track, [84.0], 2))

    assert [int((at + 0.01) / 49.99) for at in found] == list(range(12))
    assert all(2 < at % 30 < 13 for at in found)
    assert not [at for at in found if 83 < at < 86]
    assert list(samples.size_places(job(tmp_path).measured.track(0), [84.0], 2)) == []
