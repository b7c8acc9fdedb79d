"""FfmpegEncoder over real children: what it makes, how it ends, and that nothing is left behind."""

import dataclasses
import threading
from pathlib import Path

import pytest

from hevcq.errors import (
    EncoderFailed,
    EncoderStalled,
    LimitExceeded,
    SourceDamaged,
    SourceGone,
    Stopped,
    WorkerUnfit,
)
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.encoder import EncodeProgress, EncodeRequest
from hevcq.util.clock import SystemClock
from support.clips import ManualClock, make_clip
from support.media_facts import profile
from support.rendition import request_of

QUICK = {"preset": "ultrafast"}


def encoder(ffmpeg: str = "ffmpeg", clock=None) -> FfmpegEncoder:
    return FfmpegEncoder(ffmpeg, "ffprobe", clock or SystemClock())


def asked(tmp_path: Path, clip: Path, **changes) -> EncodeRequest:
    recipe = profile(video=QUICK, **changes)
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    return request_of(clip, out / "rendition.part", recipe, max_seconds=60.0)


def encode(request: EncodeRequest, by: FfmpegEncoder | None = None, stop=None, seen=None):
    states: list[EncodeProgress] = [] if seen is None else seen
    return (by or encoder()).encode(
        request, on_progress=states.append, stop=stop or threading.Event()
    )


def stand_in(tmp_path: Path, script: str) -> str:
    """Return a program that plays ffmpeg: real children, endings on command."""
    path = tmp_path / "ffmpeg-stand-in"
    path.write_text(f"#!/bin/sh\nfor out; do :; done\nout=${{out#file:}}\n{script}\n")
    path.chmod(0o755)
    return str(path)


def nothing_left(request: EncodeRequest) -> bool:
    return not list(request.output.parent.iterdir())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path)


def test_a_clip_becomes_hevc_without_a_word_on_stderr(tmp_path: Path, clip: Path) -> None:
    request, seen = asked(tmp_path, clip), []

    report = encode(request, seen=seen)

    assert report.stderr == ()
    assert report.frames == 25
    assert report.arguments[-1] == f"file:{request.output}.thumbnails0"
    assert f"file:{request.output}" in report.arguments
    assert report.cpu_s > 0
    assert seen[-1].fraction == 1.0
    made = encoder().probe(str(request.output), stop=threading.Event())
    assert [s.codec for s in made.streams] == ["hevc", "aac"]
    assert made.streams[0].codec_tag == "hvc1"
    assert made.tags["encoder"] == f"hevcq hevc/{request.profile.revision}"


def test_an_output_that_exists_is_neither_overwritten_nor_removed(tmp_path, clip) -> None:
    request = asked(tmp_path, clip)
    request.output.write_bytes(b"precious")

    with pytest.raises(EncoderFailed, match="exists already"):
        encode(request)

    assert request.output.read_bytes() == b"precious"


def test_a_source_that_vanished_is_gone(tmp_path: Path, clip: Path) -> None:
    request = asked(tmp_path, clip)
    clip.unlink()

    with pytest.raises(SourceGone, match=r"clip\.mp4 is not there"):
        encode(request)

    assert nothing_left(request)


def test_a_damaged_source_is_named_damaged(tmp_path: Path, clip: Path) -> None:
    request = asked(tmp_path, clip)
    content = bytearray(clip.read_bytes())
    start = content.index(b"mdat") + 400
    content[start : start + 3000] = bytes(3000)
    clip.write_bytes(content)

    with pytest.raises(SourceDamaged, match=r"clip\.mp4 is damaged"):
        encode(request)

    assert nothing_left(request)


def test_a_stop_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, seconds=20, size="320x180", name="long.mp4")
    request, stop = asked(tmp_path, clip), threading.Event()
    slow = dataclasses.replace(
        request,
        profile=request.profile.model_copy(
            update={"video": request.profile.video.model_copy(update={"preset": "slower"})}
        ),
    )

    with pytest.raises(Stopped):
        encoder().encode(slow, on_progress=lambda _state: stop.set(), stop=stop)

    assert nothing_left(slow)


def test_no_time_left_ends_it(tmp_path: Path, clip: Path) -> None:
    request = dataclasses.replace(asked(tmp_path, clip), max_seconds=0.1)
    by = encoder(stand_in(tmp_path, 'echo x > "$out"; exec cat /dev/zero > /dev/null'))

    with pytest.raises(LimitExceeded, match=r"clip\.mp4"):
        encode(request, by)

    assert nothing_left(request)


def test_a_child_that_does_not_move_is_stalled(tmp_path: Path, clip: Path) -> None:
    request, clock = asked(tmp_path, clip), ManualClock()
    script = "echo frame=1; echo out_time_us=1000; echo progress=continue; exec cat /dev/zero >&3"
    by = encoder(stand_in(tmp_path, f'exec 3>/dev/null; echo x > "$out"; {script}'), clock)

    with pytest.raises(EncoderStalled, match=r"clip\.mp4"):
        by.encode(request, on_progress=lambda _s: _jump(clock), stop=threading.Event())

    assert nothing_left(request)


def _jump(clock: ManualClock) -> None:
    """Let the limit pass as soon as the watch has seen the first state."""
    threading.Thread(target=_jump_for_good, args=(clock,), daemon=True).start()


def _jump_for_good(clock: ManualClock) -> None:
    pause = threading.Event()
    for _ in range(100):
        pause.wait(0.05)
        clock.advance(100)


def test_an_output_that_grows_too_large_is_ended_by_what_it_says(tmp_path, clip) -> None:
    request = asked(tmp_path, clip)
    script = 'echo total_size=999999999999; echo progress=continue; echo x > "$out"; exec cat'
    by = encoder(stand_in(tmp_path, f"{script} /dev/zero > /dev/null"))

    with pytest.raises(LimitExceeded, match="grew"):
        encode(request, by)

    assert nothing_left(request)


def test_a_failure_carries_what_repeats_it(tmp_path: Path, clip: Path) -> None:
    request = asked(tmp_path, clip)
    by = encoder(stand_in(tmp_path, 'echo x > "$out"; echo "[error] odd thing" >&2; exit 7'))

    with pytest.raises(EncoderFailed) as caught:
        encode(request, by)

    assert caught.value.returncode == 7
    assert caught.value.tail == ("[error] odd thing",)
    assert f"file:{clip}" in caught.value.command
    assert nothing_left(request)


def test_the_version_is_one_line_and_a_missing_program_is_named() -> None:
    assert encoder().version().startswith("ffmpeg version ")

    with pytest.raises(WorkerUnfit, match="no-such-ffmpeg"):
        encoder("no-such-ffmpeg").version()


@pytest.mark.parametrize("number", ["4.4.2", "n5.0", "5.0.3-0ubuntu1"])
def test_a_program_that_is_too_old_makes_a_worker_unfit(tmp_path: Path, number: str) -> None:
    old = stand_in(tmp_path, f'echo "ffmpeg version {number} Copyright"')

    with pytest.raises(WorkerUnfit, match=rf"{number} Copyright is too old\. Install ffmpeg 5\.1"):
        encoder(old).version()
