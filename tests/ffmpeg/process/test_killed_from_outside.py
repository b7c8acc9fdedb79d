"""A child that somebody else killed or stopped says nothing about its video, in whichever pass.

The kernel's OOM killer picks ffprobe as well as ffmpeg. Taken for a verdict on the video, the kill
of a pass that only looks buried an intact source as damaged, or a good rendition as failed. A
decode that is stopped, or waits for a dead disk, held its slot until the job's own time limit.
"""

import itertools
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import encoded
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Gates, Preflight, VideoRecipe
from hevcq.domain.verdict import Handling, handling
from hevcq.errors import EncoderFailed, EncoderStalled, OutOfMemory
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.process import child
from hevcq.ffmpeg.process.child import run_child
from hevcq.ports.encoder import VerifyRequest
from hevcq.util.clock import SystemClock
from support.clips import make_clip
from support.rendition import request_of

NEVER = threading.Event()
PROFILE = Profile(
    name="hevc",
    description="for tests",
    video=VideoRecipe(codec="hevc", preset="ultrafast", crf=30),
    gates=Gates(minimum_saving=None),
)
IMPATIENT = PROFILE.model_copy(
    update={"bounds": PROFILE.bounds.model_copy(update={"stall_s": 0.6})}
)


def encoder(**programs: str) -> FfmpegEncoder:
    known = {"ffmpeg": "ffmpeg", "ffprobe": "ffprobe", **programs}
    return FfmpegEncoder(known["ffmpeg"], known["ffprobe"], SystemClock())


def signalled(path: Path, name: str) -> str:
    """Install a program that sends itself this signal at once; return its path."""
    path.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    path.chmod(0o700)
    return str(path)


@pytest.fixture
def doomed(tmp_path: Path) -> str:
    """A program that is killed before it says a word."""
    return signalled(tmp_path / "doomed", "KILL")


@pytest.fixture
def stopped(tmp_path: Path) -> str:
    """A program that stops before it says a word, and stays."""
    return signalled(tmp_path / "stopped", "STOP")


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(make_clip(tmp_path, name="video.mp4"))


@pytest.fixture(autouse=True)
def starving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says at each look that it killed one more for want of memory."""
    monkeypatch.setattr(child, "oom_kills", itertools.count().__next__)


@pytest.mark.parametrize("kills", [0, None])
def test_a_kill_is_no_want_of_memory_where_the_system_says_so(
    clip, doomed, tmp_path, monkeypatch, kills
):
    monkeypatch.setattr(child, "oom_kills", lambda: kills)

    with pytest.raises(EncoderFailed, match=r"video\.mp4") as caught:
        encoder(ffmpeg=doomed).encode(
            request_of(Path(clip), tmp_path / "out.mp4", PROFILE),
            on_progress=lambda _: None,
            stop=NEVER,
        )

    assert isinstance(caught.value, OutOfMemory) is (kills is None), "unknown is taken for memory"
    assert ("memory had not run out" in str(caught.value)) is (kills == 0)


DECODING = PROFILE.model_copy(
    update={"gates": PROFILE.gates.model_copy(update={"preflight": Preflight.DECODE})}
)


@pytest.mark.parametrize("program", ["ffprobe", "ffmpeg"])
def test_a_killed_pass_over_the_source_is_tried_again(clip, doomed, program):
    info, broken = encoder().probe(clip, stop=NEVER), encoder(**{program: doomed})
    passes = [lambda: broken.preflight(clip, info, DECODING, stop=NEVER)]
    if program == "ffprobe":
        passes += [
            lambda: broken.probe(clip, stop=NEVER),
            lambda: broken.keyframes(clip, info, stop=NEVER),
        ]
    for run in passes:
        with pytest.raises(OutOfMemory, match="doomed was killed") as caught:
            run()
        assert handling(caught.value) is Handling.LATER


@pytest.mark.parametrize("program", ["ffmpeg", "ffprobe"])
def test_a_killed_gate_is_tried_again_and_fails_no_rendition(clip, doomed, tmp_path, program):
    check = made(clip, tmp_path)
    with pytest.raises(OutOfMemory):
        encoder(**{program: doomed}).verify(check, on_progress=lambda _: None, stop=NEVER)


def test_a_stopped_decode_of_a_gate_is_noticed_and_fails_no_rendition(clip, stopped, tmp_path):
    check = replace(made(clip, tmp_path), profile=IMPATIENT)
    with pytest.raises(EncoderStalled, match="stopped used no CPU time for") as caught:
        encoder(ffmpeg=stopped).verify(check, on_progress=lambda _: None, stop=NEVER)
    assert handling(caught.value) is Handling.LATER


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_child_that_somebody_else_ended_has_failed_and_not_spoken(number):
    # A child inherits what is ignored here, as by nohup, and would live on.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(EncoderFailed, match="sh was ended from outside") as caught:
            run_child(["sh", "-c", f"kill -{int(number)} $$"], stop=threading.Event())
    finally:
        signal.signal(number, before)
    assert caught.value.returncode == -number


def made(clip: str, folder: Path) -> VerifyRequest:
    """Encode a video; return the request to verify its rendition."""
    return encoded(Path(clip), folder, PROFILE).request
