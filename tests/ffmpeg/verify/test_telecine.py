"""The gates of an inverted telecine: so many frames, at these times, each put together rightly."""

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from tests.ffmpeg.verify.conftest import Pair, complaints, encoded
from tests.support.media_facts import profile

from hevcq.domain.certificate import Gate, Outcome

MPEG2 = ("-c:v", "mpeg2video", "-q:v", "3", "-g", "12", "-bf", "2", "-flags", "+ildct+ilme")
PROFILE = profile(
    "hevc", video={"preset": "ultrafast", "invert_telecine": True}, gates={"minimum_saving": None}
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


def test_a_telecine_has_four_frames_of_five_at_even_times(pair):
    assert pair.request.plan.video.telecine == "24000/1001"
    assert complaints(pair.judge()) == []

    asked = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries",
             "packet=pts_time:stream=avg_frame_rate", "-of", "csv=p=0", pair.good]  # fmt: skip
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    times = sorted(float(line) for line in lines if "/" not in line)
    assert "24000/1001" in lines
    assert len(times) == FRAMES - CUT - (FRAMES - CUT) // 5
    steps = [after - before for before, after in pairwise(times)]
    assert all(abs(step - 1001 / 24000) < 0.0011 for step in steps)


WRONG = (
    "fieldmatch,decimate,setfield=prog,settb=1/120000,setpts=STARTPTS+5005*N,"
    "select='not(eq(n,20))',loop=1:1:50,setpts=5005*N"
)


def test_a_frame_that_is_doubled_where_another_is_lost_is_found(pair):
    last = pair.judge(spoilt(pair, "wrong", WRONG))[-1]

    assert last.outcome is Outcome.FAILED
    assert last.gate in {Gate.G5, Gate.G8}, last
