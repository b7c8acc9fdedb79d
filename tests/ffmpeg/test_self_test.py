"""After a doubtful failure ten test pictures tell whether this machine can encode at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hevcq.domain.media.facts import StreamKind
from hevcq.domain.profile import Profile, Video, VideoCodec
from hevcq.errors import Stopped, WorkerUnfit
from hevcq.ffmpeg.encoder import FfmpegEncoder
from support.clips import ManualClock
from support.fakes.backend import HEVC

H264 = Profile(name="h264", description="x", video=Video(codec=VideoCodec.H264, crf=28.0))


def encoder(program: str) -> FfmpegEncoder:
    return FfmpegEncoder(program, "ffprobe", ManualClock())


def script(folder: Path, body: str) -> str:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("profile", [HEVC, H264], ids=lambda profile: profile.name)
def test_a_machine_that_encodes_passes(profile):
    encoder("ffmpeg").self_test(profile, stop=threading.Event())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo 'x265 is broken' >&2; exit 1", "x265 is broken"),
        ("exit 3", "exit code 3"),
        ("kill -SEGV $$", "exit code -11"),
        ("kill -KILL $$", "."),
    ],
)
def test_a_machine_that_does_not_is_unfit_and_says_why(tmp_path, body, why):
    with pytest.raises(WorkerUnfit, match="cannot encode on this machine") as caught:
        encoder(script(tmp_path, body)).self_test(HEVC, stop=threading.Event())

    assert why in str(caught.value)


def test_a_program_that_cannot_be_started_is_unfit(tmp_path):
    with pytest.raises(WorkerUnfit):
        encoder(str(tmp_path / "missing")).self_test(HEVC, stop=threading.Event())


def test_a_stop_ends_a_self_test_without_a_finding():
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        encoder("ffmpeg").self_test(HEVC, stop=stop)


def test_a_test_clip_is_one_second_of_the_asked_size(tmp_path):
    ready = encoder("ffmpeg")

    ready.write_test_clip(tmp_path / "clip.mp4", width=128, height=72)

    info = ready.probe(str(tmp_path / "clip.mp4"), stop=threading.Event())
    (picture,) = info.of_kind(StreamKind.VIDEO)
    assert (picture.codec, picture.video.width, picture.video.height) == ("h264", 128, 72)
    assert info.duration_s == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("body", ["echo 'no libx264' >&2; exit 1", "kill -KILL $$"])
def test_a_machine_that_makes_no_test_clip_is_unfit(tmp_path, body):
    with pytest.raises(WorkerUnfit, match="cannot make a test clip on this machine"):
        encoder(script(tmp_path, body)).write_test_clip(tmp_path / "clip.mp4", width=64, height=36)
