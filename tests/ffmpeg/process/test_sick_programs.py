"""A program that cannot run says nothing of a video: the worker is unfit, and no video is buried."""

import shutil
import threading
from pathlib import Path

import pytest

from chaos.damage_judge import profile, run
from hevcq.errors import SourceUnreadable, WorkerUnfit
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.encoder import VerifyRequest
from hevcq.util.clock import SystemClock
from support.clips import make_clip
from support.once import folder_once
from support.rendition import ENCODER

STOP = threading.Event()
SICK = {
    "a library is missing": "echo 'x: error while loading shared libraries: liby.so: "
    "cannot open shared object file: No such file or directory' >&2; exit 127",
    "it crashes": "kill -SEGV $$",
    "it says nothing": "exit 1",
    "it does nothing": "exit 0",
}


@pytest.fixture
def clip(tmp_path) -> Path:
    return make_clip(tmp_path, name="video.mkv", seconds=0.4)


@pytest.fixture
def rendition() -> VerifyRequest:
    """Return a clean rendition, made once; none of the tests that share it writes to it."""

    def make(folder: Path) -> VerifyRequest:
        source = make_clip(folder, name="video.mkv", seconds=0.4)
        made = run(source, folder / "made.mkv", profile())
        assert made.request is not None
        return made.request

    return folder_once("sick programs", make)


def script(folder: Path, name: str, body: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("body", SICK.values(), ids=SICK)
def test_an_ffprobe_that_cannot_run_refuses_no_video(tmp_path, clip, body):
    sick = FfmpegEncoder("ffmpeg", script(tmp_path, "ffprobe", body), SystemClock())
    info = ENCODER.probe(str(clip), stop=STOP)
    asks = [
        lambda: sick.probe(str(clip), stop=STOP),
        lambda: sick.preflight(str(clip), info, profile(), stop=STOP),
    ]
    if body != "exit 0":  # a count of nothing is judged by the pre-flight
        asks += [
            lambda: sick.measure(str(clip), info, stop=STOP),
            lambda: sick.keyframes(str(clip), info, stop=STOP),
        ]
    for ask in asks:
        with pytest.raises(WorkerUnfit, match="cannot read a test picture on this machine"):
            ask()


@pytest.mark.parametrize("sick", ["ffmpeg", "ffprobe"])
@pytest.mark.parametrize("body", SICK.values(), ids=SICK)
def test_programs_that_broke_after_the_encode_fail_no_rendition(tmp_path, rendition, body, sick):
    programs = {"ffmpeg": "ffmpeg", "ffprobe": "ffprobe", sick: script(tmp_path, sick, body)}
    encoder = FfmpegEncoder(programs["ffmpeg"], programs["ffprobe"], SystemClock())
    with pytest.raises(WorkerUnfit):
        encoder.verify(rendition, on_progress=lambda _: None, stop=STOP)


def test_a_video_that_crashes_ffprobe_is_to_blame_itself(tmp_path, clip):
    real = shutil.which("ffprobe")
    body = f'case "$*" in *video.mkv*) kill -SEGV $$;; esac; exec {real} "$@"'
    moody = FfmpegEncoder("ffmpeg", script(tmp_path, "ffprobe", body), SystemClock())
    with pytest.raises(SourceUnreadable):
        moody.probe(str(clip), stop=STOP)
