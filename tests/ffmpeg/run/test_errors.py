"""Real endings of ffmpeg 5.1 and of 7 to 9, and the one error each of them is."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from hevcq.errors import (
    DiskFull,
    EncoderFailed,
    LimitExceeded,
    OutOfMemory,
    SourceDamaged,
    SourceGone,
    SourceUnreadable,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ffmpeg.run.messages import (
    FfmpegExit,
    Pass,
    exit_error,
    unexpected_lines,
)
from hevcq.ffmpeg.run.runner import create_output
from support.media_facts import audio, media, video

INFO = media(video(), audio())


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
    ],
)
def test_one_line_one_error(line: str, kind: type[Exception]) -> None:
    found = ending(line)

    assert type(found) is kind
    sentence = str(found)
    assert "video.mp4" in sentence or kind is WorkerUnfit
    assert "\n" not in sentence


def test_a_connection_that_broke_for_good_is_no_damage_although_ffmpeg_ends_well() -> None:
    broken = "[http @ 0x1] [error] Stream ends prematurely at 714933, should be 1191556"
    missing = "[in#0/mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] [error] File ended prematurely"
    torn = "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] [error] stream 0, contradictionary STSC"

    for line in (missing, torn):
        assert type(ending(broken, line, returncode=0, location=URL)) is Unavailable
    assert ending(broken, returncode=0, location=URL) is None
    assert type(ending(torn, returncode=0, location=URL)) is SourceDamaged


def test_the_disk_is_blamed_before_the_source() -> None:
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
def test_signals(returncode: int, kind: type[Exception], words: str) -> None:
    found = ending(returncode=returncode)

    assert type(found) is kind
    assert words in str(found)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[http @ 0x1] [error] HTTP error 404 Not Found", SourceGone),
        ("[error] video.mp4: Server returned 403 Forbidden", Unavailable),
        ("[http @ 0x1] [error] HTTP error 503 Slow Down", Unavailable),
        ("[tcp @ 0x1] [error] Connection to tcp://127.0.0.1:9 failed: Connection refused",
         Unavailable),
        ("[http @ 0x1] [error] Stream ends prematurely at 1234, should be 99999", Unavailable),
    ],
)  # fmt: skip
def test_endings_of_a_url_and_no_signature_in_any_sentence(line: str, kind) -> None:
    found = ending(line, location=URL)

    assert type(found) is kind
    assert "secret" not in str(found)


def test_an_exit_of_0_is_no_failure_unless_the_source_complained() -> None:
    assert ending(returncode=0) is None
    assert ending("[mp4 @ 0x1] [error] something odd", returncode=0) is None
    for demuxer in "mov,mp4,m4a,3gp,3g2,mj2", "in#0":
        harmless = f"[{demuxer} @ 0x1] [error] Referenced QT chapter track not found"
        assert ending(harmless, returncode=0) is None
    broken = ending("[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] [error] File ended prematurely", returncode=0)
    assert isinstance(broken, SourceDamaged)


def test_what_nobody_knows_is_a_failure_of_the_encoder_with_everything_to_repeat_it() -> None:
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


@pytest.mark.parametrize(("number", "full"), [(28, True), (122, True), (13, False)])
def test_an_output_for_which_there_is_no_room_is_a_full_disk(monkeypatch, number, full) -> None:
    def touch(_path, exist_ok):
        raise OSError(number, "No")

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(DiskFull, match="There is no room to create") if full else nullcontext():
        create_output(Path("a.mkv"))
