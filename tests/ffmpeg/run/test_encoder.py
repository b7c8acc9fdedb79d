"""FfmpegEncoder over real children: what it makes, how it ends, and that nothing is left behind.

Real endings of ffmpeg 5.1 and of 7 to 9, and the one error each of them is.
"""

import dataclasses
import threading
from pathlib import Path

import pytest

from hevcq.errors import (
    DiskFull,
    EncoderFailed,
    EncoderStalled,
    LimitExceeded,
    OutOfMemory,
    SourceDamaged,
    SourceGone,
    SourceUnreadable,
    Stopped,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.run.messages import FfmpegExit, Pass, exit_error, unexpected_lines
from hevcq.ports.encoder import EncodeProgress, EncodeRequest
from hevcq.util.clock import SystemClock
from support.clips import ManualClock, make_clip
from support.media_facts import audio, media, profile, video
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


def test_a_clip_becomes_hevc_without_a_word_on_stderr(tmp_path, clip):
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


def test_an_output_that_exists_is_neither_overwritten_nor_removed(tmp_path, clip):
    request = asked(tmp_path, clip)
    request.output.write_bytes(b"precious")

    with pytest.raises(EncoderFailed, match="exists already"):
        encode(request)

    assert request.output.read_bytes() == b"precious"


def test_a_source_that_vanished_is_gone(tmp_path, clip):
    request = asked(tmp_path, clip)
    clip.unlink()

    with pytest.raises(SourceGone, match=r"clip\.mp4 is not there"):
        encode(request)

    assert nothing_left(request)


def test_a_damaged_source_is_named_damaged(tmp_path, clip):
    request = asked(tmp_path, clip)
    content = bytearray(clip.read_bytes())
    start = content.index(b"mdat") + 400
    content[start : start + 3000] = bytes(3000)
    clip.write_bytes(content)

    with pytest.raises(SourceDamaged, match=r"clip\.mp4 is damaged"):
        encode(request)

    assert nothing_left(request)


def test_a_stop_ends_it_and_leaves_nothing(tmp_path):
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


def test_no_time_left_ends_it(tmp_path, clip):
    request = dataclasses.replace(asked(tmp_path, clip), max_seconds=0.1)
    by = encoder(stand_in(tmp_path, 'echo x > "$out"; exec cat /dev/zero > /dev/null'))

    with pytest.raises(LimitExceeded, match=r"clip\.mp4"):
        encode(request, by)

    assert nothing_left(request)


def test_a_child_that_does_not_move_is_stalled(tmp_path, clip):
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


def test_an_output_that_grows_too_large_is_ended_by_what_it_says(tmp_path, clip):
    request = asked(tmp_path, clip)
    script = 'echo total_size=999999999999; echo progress=continue; echo x > "$out"; exec cat'
    by = encoder(stand_in(tmp_path, f"{script} /dev/zero > /dev/null"))

    with pytest.raises(LimitExceeded, match="grew"):
        encode(request, by)

    assert nothing_left(request)


def test_the_version_is_one_line_and_a_missing_program_is_named():
    assert encoder().version().startswith("ffmpeg version ")

    with pytest.raises(WorkerUnfit, match="no-such-ffmpeg"):
        encoder("no-such-ffmpeg").version()


@pytest.mark.parametrize("number", ["4.4.2", "n5.0", "5.0.3-0ubuntu1"])
def test_a_program_that_is_too_old_makes_a_worker_unfit(tmp_path, number):
    old = stand_in(tmp_path, f'echo "ffmpeg version {number} Copyright"')

    with pytest.raises(WorkerUnfit, match=rf"{number} Copyright is too old\. Install ffmpeg 5\.1"):
        encoder(old).version()


INFO = media(video(), audio())
IN_URL = "of a URL: "
URL = "relay+http://127.0.0.1:9/video.mp4?secret"


def ending(*stderr: str, returncode: int = 1, location: str = "/in/video.mp4"):
    command = ["ffmpeg", "-i", f"file:{location}", "/out/a b"]
    return exit_error(FfmpegExit(command, location, INFO, returncode, stderr))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[error] av_interleaved_write_frame(): No space left on device", DiskFull),
        ("[error] Error while filtering: Cannot allocate memory", OutOfMemory),
        ("x265 [error]: malloc of size 1234 failed", OutOfMemory),
        ("[error] av_interleaved_write_frame(): File too large", LimitExceeded),
        ("[fatal] Unknown encoder 'libx265'", WorkerUnfit),
        ("[error] Unrecognized option 'fps_mode:0'.", WorkerUnfit),
        (
            "ffmpeg: error while loading shared libraries: x.so: cannot open shared object file",
            WorkerUnfit,
        ),
        ("[error] file:/in/video.mp4: No such file or directory", SourceGone),
        ("[error] file:/in/video.mp4: Permission denied", SourceUnreadable),
        ("[error] file:/in/video.mp4: Input/output error", Unavailable),
        ("[fatal] /in/video.mp4: corrupt input packet in stream 1", SourceDamaged),
        ("[h264 @ 0x5581] [error] error while decoding MB 4 7, bytestream -5", SourceDamaged),
        ("[aac @ 0x558becea1600] [error] channel element 3.12 is not allocated", SourceDamaged),
        ("[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] [error] moov atom not found", SourceDamaged),
        ("[error] Error while decoding stream #0:0: Invalid data found", SourceDamaged),
        ("[error] Error initializing output stream 0:0", EncoderFailed),
        ("[error] file:/out/a b: No such file or directory", EncoderFailed),
        ("[in#0 @ 0x5] [error] Error opening input: No such file or directory", SourceGone),
        ("[in#0 @ 0x5] [error] Error opening input: Permission denied", SourceUnreadable),
        ("[in#0/mpegts @ 0x5] [error] Error during demuxing: Input/output error", Unavailable),
        ("[in#1 @ 0x5] [error] Error opening input: No such file or directory", EncoderFailed),
        ("[out#0 @ 0x5] [error] Error opening output: No such file or directory", EncoderFailed),
        (f"{IN_URL}[http @ 0x1] [error] HTTP error 404 Not Found", SourceGone),
        (f"{IN_URL}[error] video.mp4: Server returned 403 Forbidden", Unavailable),
        (f"{IN_URL}[http @ 0x1] [error] HTTP error 503 Slow Down", Unavailable),
        (
            f"{IN_URL}[tcp @ 0x1] [error] Connection to tcp://127.0.0.1:9 failed: Connection refused",
            Unavailable,
        ),
        (
            f"{IN_URL}[http @ 0x1] [error] Stream ends prematurely at 1234, should be 99999",
            Unavailable,
        ),
    ],
)
def test_one_line_one_error_and_no_signature_in_any_sentence(line, kind):
    location = URL if line.startswith(IN_URL) else "/in/video.mp4"
    found = ending(line.removeprefix(IN_URL), location=location)

    assert type(found) is kind
    sentence = str(found)
    assert "video.mp4" in sentence or kind is WorkerUnfit
    assert "\n" not in sentence
    assert "secret" not in sentence


def test_a_connection_that_broke_for_good_is_no_damage_although_ffmpeg_ends_well():
    broken = "[http @ 0x1] [error] Stream ends prematurely at 714933, should be 1191556"
    missing = "[in#0/mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] [error] File ended prematurely"
    torn = "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] [error] stream 0, contradictionary STSC"

    for line in (missing, torn):
        assert type(ending(broken, line, returncode=0, location=URL)) is Unavailable
    assert ending(broken, returncode=0, location=URL) is None
    assert type(ending(torn, returncode=0, location=URL)) is SourceDamaged


def test_the_disk_is_blamed_before_the_source():
    found = ending(
        "[h264 @ 0x1] [error] error while decoding MB 4 7",
        "[error] av_interleaved_write_frame(): No space left on device",
    )

    assert isinstance(found, DiskFull)


@pytest.mark.parametrize(
    ("returncode", "kind", "words"),
    [
        (-9, OutOfMemory, "memory ran out"),
        (-25, LimitExceeded, "grew"),
        (-24, LimitExceeded, "CPU time"),
        (-11, EncoderFailed, "segmentation fault"),
        (-6, EncoderFailed, "abort"),
        (-64, EncoderFailed, "signal 64"),
    ],
)
def test_signals(returncode, kind, words):
    found = ending(returncode=returncode)

    assert type(found) is kind
    assert words in str(found)


def test_an_exit_of_0_is_no_failure_unless_the_source_complained():
    assert ending(returncode=0) is None
    assert ending("[mp4 @ 0x1] [error] something odd", returncode=0) is None
    for demuxer in "mov,mp4,m4a,3gp,3g2,mj2", "in#0":
        harmless = f"[{demuxer} @ 0x1] [error] Referenced QT chapter track not found"
        assert ending(harmless, returncode=0) is None
    broken = ending("[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] [error] File ended prematurely", returncode=0)
    assert isinstance(broken, SourceDamaged)


def test_what_nobody_knows_is_a_failure_of_the_encoder_with_everything_to_repeat_it():
    found = ending("[error] Conversion failed!", returncode=69)

    assert isinstance(found, EncoderFailed)
    assert found.returncode == 69
    assert found.tail == ("[error] Conversion failed!",)
    assert found.command == "ffmpeg -i file:/in/video.mp4 '/out/a b'"


NULL_DTS = (
    "[null @ 0x558d1a2059c0] Application provided invalid, non monotonically increasing dts "
    "to muxer in stream 0: 15 >= 15"
)


REPEATED = "    Last message repeated 3 times"


def test_a_known_line_is_excused_in_its_own_pass_only():
    assert unexpected_lines([NULL_DTS], Pass.DECODE) == ()
    assert unexpected_lines([NULL_DTS], Pass.ENCODE) == (NULL_DTS,)


def test_a_repetition_shares_the_fate_of_its_line():
    assert unexpected_lines([NULL_DTS, REPEATED], Pass.DECODE) == ()
    assert unexpected_lines(["bad", REPEATED], Pass.DECODE) == ("bad",)
    assert unexpected_lines([REPEATED], Pass.DECODE) == (REPEATED,)


@pytest.mark.parametrize(
    "line",
    [
        "[3 earlier lines dropped]",
        "[matroska,webm @ 0x563a80b3bd80] File ended prematurely",
        "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x5619d49f55c0] stream 0, offset 0x25e83d: partial file",
        "Error while decoding stream #0:1: Invalid data found when processing input",
        "x" + NULL_DTS,
        NULL_DTS + "\nmore",
    ],
)
def test_anything_else_is_suspicious(line):
    for ffmpeg_pass in Pass:
        assert unexpected_lines([line], ffmpeg_pass) == (line,)
