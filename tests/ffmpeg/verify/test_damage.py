"""Every kind of damage to an output is caught, by the gate that is meant for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import complaints, encoded, ffmpeg, make_source, pair_once
from hevcq.domain.certificate import Gate, GateResult, Outcome
from support.rendition import turned

COPY = ("-map", "0", "-dn", "-c", "copy")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", "-tag:v", "hvc1")  # fmt: skip
SAME_TIMES = ("-fps_mode", "passthrough", "-enc_time_base", "1:120000")


def caught(results: tuple[GateResult, ...]) -> Gate:
    """Return the gate that failed; every one before it passed."""
    *before, last = results
    assert complaints(tuple(before)) == []
    assert last.outcome is Outcome.FAILED, last
    assert last.detail
    return last.gate


def spoilt(pair, tmp_path: Path, *arguments: object) -> Path:
    """Rewrite the clean rendition with ffmpeg."""
    target = tmp_path / f"spoilt{pair.good.suffix}"
    flags = ["-movflags", "+faststart"] if target.suffix == ".mp4" else []
    ffmpeg("-i", pair.good, *arguments, *flags, target)
    return target


def written(pair, tmp_path: Path, content: bytes) -> Path:
    target = tmp_path / f"spoilt{pair.good.suffix}"
    target.write_bytes(content)
    return target


SWAPPED = ("-map", "0:v", "-map", "0:a:1", "-map", "0:a:0", "-map", "0:s", "-c", "copy")
LABELLED = (
    "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra",
    "-disposition:a:0", "default", "-disposition:a:1", "0",
)  # fmt: skip
SECOND = (
    "-i", "GOOD", "-map", "0:v", "-map", "0:a:0", "-map", "1:a:1", "-map", "0:s", "-c", "copy",
    "-map_chapters", "0",
)  # fmt: skip
"""The second sound is that of another input."""
REMADE = (*COPY, *X265, *SAME_TIMES, "-filter:v")
SPOILT = {
    "a sound is dropped": (Gate.G3, (*COPY, "-map", "-0:a:1")),
    "a sound is cut short": (Gate.G5, ("-t", "2", *SECOND)),
    "a sound is late": (Gate.G5, ("-itsoffset", "0.03", *SECOND)),
    "a sound is early": (Gate.G5, ("-itsoffset", "-0.03", *SECOND)),
    "sounds are swapped, and their labels kept": (Gate.G5, (*SWAPPED, *LABELLED)),
    "sounds are swapped with their labels": (Gate.G3, SWAPPED),
    "chapters are lost": (Gate.G3, (*COPY, "-map_chapters", "-1")),
    "a language is lost": (Gate.G3, (*COPY, "-metadata:s:a:1", "language=und")),
    "subtitles are lost": (Gate.G3, (*COPY, "-sn")),
    "a frame is lost": (Gate.G5, (*REMADE, "select=not(eq(n\\,70))")),
    "frames are late": (
        Gate.G5, (*COPY, "-bsf:v", "setts=pts=PTS+mod(N\\,2)*15/1000/TB:dts=DTS"),
    ),
    "another codec": (Gate.G2, (*COPY, "-c:v", "libx264", "-preset", "ultrafast")),
    "another size": (Gate.G2, (*REMADE, "scale=318:180,setsar=1")),
    "another depth": (Gate.G2, (*COPY, *X265, "-pix_fmt", "yuv420p10le")),
    "a tag that Apple does not open": (Gate.G2, (*COPY, "-tag:v", "hev1")),
    "frozen": (Gate.G8, (*REMADE, "split[a][b];[a][b]freezeframes=first=1:last=149:replace=0")),
    "upside down": (Gate.G8, (*REMADE, "vflip")),
    "backwards": (Gate.G8, (*REMADE, "reverse")),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_each_damage_is_caught_by_its_gate(tmp_path, name):
    pair = pair_once("source.mp4")
    gate, arguments = SPOILT[name]
    words = [str(pair.good) if word == "GOOD" else word for word in arguments]
    assert caught(pair.judge(spoilt(pair, tmp_path, *words))) is gate


def test_each_of_several_videos_is_compared(tmp_path):
    pair = pair_once("two.mkv", extra=("-t", "1", "-map", "0:v"))
    first = (*COPY, *X265, "-c:v:1", "copy", *SAME_TIMES, "-filter:v:0", "vflip")
    assert caught(pair.judge(spoilt(pair, tmp_path, *first))) is Gate.G8


def test_a_wrong_rotation_is_caught(tmp_path):
    pair = pair_once("source.mp4")
    assert caught(pair.judge(turned(spoilt(pair, tmp_path, *COPY), 0, 1, -1, 0))) is Gate.G2


def test_a_wrong_container_is_caught():
    assert caught(pair_once("source.mp4").judge(pair_once("source.mkv").good)) is Gate.G2


@pytest.mark.parametrize("content", [b"", b"not a clip\n" * 100, bytes(5000)])
def test_an_unreadable_output_is_caught(pair, tmp_path, content):
    assert caught(pair.judge(written(pair, tmp_path, content))) is Gate.G2


def test_a_count_of_frames_that_the_output_does_not_hold_is_caught(pair):
    assert caught(pair.judge(report=replace(pair.request.report, frames=149))) is Gate.G5


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """A source with a time of recording and an attached font."""
    folder = tmp_path_factory.mktemp("dated")
    (folder / "font.ttf").write_bytes(bytes(range(256)) * 16)
    font = ("-attach", str(folder / "font.ttf"), "-metadata:s:t", "mimetype=font/ttf")
    extra = ("-t", "1", "-metadata", "creation_time=2019-05-04T10:11:12.5Z", *font)
    return encoded(make_source(folder, "dated.mkv", extra=extra), folder)


def test_a_lost_creation_time_is_caught(dated, tmp_path):
    assert dated.judge()[-1].outcome is Outcome.PASSED
    target = spoilt(dated, tmp_path, "-map", "0", "-c", "copy", "-metadata", "creation_time=")
    results = dated.judge(target)
    assert caught(results) is Gate.G3
    assert "creation time is lost" in results[-1].detail


def test_an_attached_font_with_zeroed_bytes_is_caught(dated, tmp_path):
    content = bytearray(dated.good.read_bytes())
    begin = content.find(bytes(range(256)) * 4)
    content[begin : begin + 1000] = bytes(1000)
    results = dated.judge(written(dated, tmp_path, bytes(content)))
    assert caught(results) is Gate.G3
    assert "attached file has other bytes" in results[-1].detail
