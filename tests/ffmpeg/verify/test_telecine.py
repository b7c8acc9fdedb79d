"""The gates of an inverted telecine: so many frames, at these times, each put together rightly."""

from __future__ import annotations

import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from tests.ffmpeg.verify.conftest import ENCODER, Pair, encoded
from tests.support.media_facts import profile

from hevcq.domain.certificate import Gate, GateResult, Outcome

MPEG2 = ("-c:v", "mpeg2video", "-q:v", "3", "-g", "12", "-bf", "2", "-flags", "+ildct+ilme")
PROFILE = profile(
    "hevc",
    video={"preset": "ultrafast", "invert_telecine": True},
    gates={"minimum_saving": None, "review_below": 0.0},
)
FRAMES, CUT = 90, 3
"""Telecined frames, and those of them that the source lacks at its beginning."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("telecine")
    source = folder / "cut.mkv"
    graph = (
        "testsrc2=s=192x108:r=24000/1001:d=3,gblur=sigma=2,telecine=pattern=23,"
        f"select='gte(n\\,{CUT})',setpts=PTS-STARTPTS,fps=30000/1001,setfield=tff,format=yuv420p"
    )
    subprocess.run(
        ["ffmpeg", "-v", "error", "-filter_complex", graph, "-f", "lavfi", "-i", "sine=d=3",
         *MPEG2, "-field_order", "tt", "-c:a", "ac3", "-map", "0:a", source],
        check=True,
    )  # fmt: skip
    return encoded(source, folder, PROFILE)


def problem(results: tuple[GateResult, ...]) -> tuple[Gate, str] | None:
    wrong = [r for r in results if r.outcome not in {Outcome.PASSED, Outcome.OFF}]
    return (wrong[0].gate, wrong[0].detail) if wrong else None


def spoilt(pair: Pair, name: str, graph: str) -> Path:
    """Encode the source by other filters, with everything else as in the rendition."""
    path = pair.good.with_name(f"{name}{pair.good.suffix}")
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-i", pair.request.location, "-i", pair.good,
         "-map", "0:v", "-map", "1:a", "-map_metadata", "1", "-map_metadata:s:0", "1:s:0",
         "-c:a", "copy", "-vf", graph, "-fps_mode", "passthrough", "-enc_time_base", "1:120000",
         "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", path],
        check=True,
    )  # fmt: skip
    return path


def test_a_telecine_has_four_frames_of_five_at_even_times(pair: Pair) -> None:
    assert pair.request.plan.video.telecine == "24000/1001"
    assert problem(pair.judge()) is None

    asked = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries",
             "packet=pts_time:stream=avg_frame_rate", "-of", "csv=p=0", pair.good]  # fmt: skip
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    times = sorted(float(line) for line in lines if "/" not in line)
    assert "24000/1001" in lines
    assert len(times) == FRAMES - CUT - (FRAMES - CUT) // 5
    steps = [after - before for before, after in pairwise(times)]
    assert all(abs(step - 1001 / 24000) < 0.0011 for step in steps)


HONEST = "fieldmatch,decimate,setfield=prog,settb=1/120000,setpts=STARTPTS+5005*N"
WRONG = {
    "of another phase": HONEST.replace("fieldmatch", "phase=b,fieldmatch"),
    "with fields of two": HONEST.replace("fieldmatch,", ""),
    "with a frame doubled and one lost": f"{HONEST},select='not(eq(n,20))',loop=1:1:50,setpts=5005*N",
    "at the rate of the file": "setfield=prog",
}


QUICK = "with a frame doubled and one lost"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.slow]) for name in WRONG],
)
def test_frames_that_were_put_together_wrongly_are_found(pair: Pair, name: str) -> None:
    found = problem(pair.judge(spoilt(pair, name.replace(" ", "-"), WRONG[name])))

    assert found is not None
    assert found[0] in {Gate.G5, Gate.G8}, found


@pytest.mark.slow
def test_the_honest_filters_pass_the_same_way(pair: Pair) -> None:
    path = spoilt(pair, "honest", HONEST)

    assert problem(pair.judge(path)) is None


def flagged_to_repeat(video: bytes) -> bytes:
    """Set MPEG-2's repeat_first_field of every second picture in order of display, as DVDs have it."""
    data, at, place = bytearray(video), 0, 0

    def flag(byte: int, bit: int, *, value: bool) -> None:
        mask = 0x80 >> bit % 8
        data[byte + bit // 8] = (
            data[byte + bit // 8] | mask if value else data[byte + bit // 8] & ~mask
        )

    while (at := data.find(b"\x00\x00\x01", at)) >= 0:
        code, kind = data[at + 3], data[at + 4] >> 4
        if code == 0x00:
            place = (data[at + 4] << 2 | data[at + 5] >> 6) % 4
        elif code == 0xB5 and kind == 1:  # sequence extension: not progressive_sequence
            flag(at + 4, 12, value=False)
        elif code == 0xB5 and kind == 8:  # picture coding extension
            flag(at + 4, 24, value=place in {0, 1})
            flag(at + 4, 30, value=place in {1, 3})
        at += 4
    return bytes(data)


@pytest.mark.slow
def test_frames_that_are_only_flagged_to_be_repeated_are_encoded_once(tmp_path) -> None:
    plain, soft, source = (tmp_path / name for name in ("plain.m2v", "soft.m2v", "soft.vob"))
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i",
         "testsrc2=s=192x128:r=30000/1001:d=2,gblur=sigma=2,format=yuv420p",
         "-c:v", "mpeg2video", "-q:v", "3", "-g", "12", "-bf", "2", plain],
        check=True,
    )  # fmt: skip
    soft.write_bytes(flagged_to_repeat(plain.read_bytes()))
    copied = ["ffmpeg", "-v", "error", "-i", soft, "-c", "copy", source]
    subprocess.run(copied, check=True)

    made = encoded(source, tmp_path, PROFILE)

    assert (made.request.plan.video.telecine, made.request.plan.video.deinterlace) == ("", False)
    assert problem(made.judge()) is None
    assert made.request.report.frames == 60
    stop, path = threading.Event(), str(made.good)
    track = ENCODER.measure(path, ENCODER.probe(path, stop=stop), stop=stop).tracks[0]
    assert track.last_pts_s - track.first_pts_s > 2.3  # 60 frames at 30 a second last for 2.0 s
