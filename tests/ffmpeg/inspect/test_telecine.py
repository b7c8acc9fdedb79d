"""A telecine is inverted where its cadence is steady from the first frame to the last, and only there."""

from __future__ import annotations

import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import pytest
from tests.support.media_facts import profile

from hevcq.domain.media.cadence import Cadence
from hevcq.domain.media.facts import MediaInfo, TrackMeasure
from hevcq.domain.planning.encode_plan import EncodePlan, plan_measured
from hevcq.domain.planning.planner import make_plan
from hevcq.ffmpeg.command.codecs import inverse_telecine_filter
from hevcq.ffmpeg.command.thumbnails import _original_frames
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inspect.telecine import RATES, even_times
from hevcq.util.clock import SystemClock

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
STOP = threading.Event()
MS = Fraction(1, 1000)
HEVC = profile("hevc")
MOVING = "testsrc2=s=192x108:r=24000/1001:d={seconds},gblur=sigma=2"
TELECINE = (
    "telecine=pattern={pattern}:first_field={lead},select='gte(n\\,{cut})',setpts=PTS-STARTPTS"
)
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "3", "-g", "12", "-bf", "2", "-flags", "+ildct+ilme")
EVEN = "setpts=N*1001/30000/TB"


def make(path: Path, graph: str, *options: str) -> Path:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-filter_complex", f"{graph},format=yuv420p", *options, path],
        check=True,
    )  # fmt: skip
    return path


def telecined(path: Path, after: str = "null", *, lead: str = "top", seconds: float = 3) -> Path:
    pulled = TELECINE.format(pattern="23", lead=lead, cut=0)
    order = "1" if lead == "top" else "0"
    moving = MOVING.format(seconds=seconds)
    return make(path, f"{moving},{pulled},{after}", *MPEG2, "-top", order)


def planned(path: Path, recipe=HEVC) -> tuple[MediaInfo, EncodePlan]:
    info = ENCODER.probe(str(path), stop=STOP)
    plan = make_plan(recipe, info)
    assert isinstance(plan, EncodePlan)
    measured = ENCODER.preflight(str(path), info, recipe, stop=STOP)
    return plan_measured(make_plan, recipe, (info, plan), measured)


def digests(path: Path, graph: str) -> list[str]:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-vf", graph, "-fps_mode", "passthrough",
         "-enc_time_base", "1:120000", "-f", "framemd5", "-"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.rpartition(",")[2].strip() for line in done.stdout.splitlines() if line[:1] != "#"]


@pytest.mark.parametrize(
    ("pattern", "lead", "cut"),
    [
        ("23", "top", 3),
        pytest.param("23", "bottom", 2, marks=pytest.mark.slow),
        pytest.param("2332", "bottom", 4, marks=pytest.mark.slow),
    ],
)
def test_the_original_frames_come_out_bit_by_bit(tmp_path, pattern, lead, cut) -> None:
    moving = MOVING.format(seconds=1.5)
    original = make(tmp_path / "original.mkv", moving, "-c:v", "ffv1")
    pulled = TELECINE.format(pattern=pattern, lead=lead, cut=cut)
    path = make(tmp_path / "telecined.mkv", f"{moving},{pulled}", "-c:v", "ffv1")
    repeats = {"23": (2, 4), "2332": (2, 3)}[pattern]
    first, second = ((place - cut) % 5 for place in repeats)
    places = (first, second) if lead == "top" else (second, first)
    frames = len(digests(path, "null"))
    cadence = Cadence(top=places[0], bottom=places[1], frames=frames, rate="30000/1001")
    all_of_them = digests(original, "null")

    found = digests(path, inverse_telecine_filter(cadence))

    begin = all_of_them.index(found[0])
    assert found == all_of_them[begin : begin + cadence.restored]
    assert digests(path, _original_frames(cadence)) == found


def test_a_steady_telecine_is_inverted(tmp_path) -> None:
    info, plan = planned(telecined(tmp_path / "steady.mkv"))

    assert plan.video.telecine == Cadence(top=2, bottom=4, frames=90, rate="30000/1001")
    assert not plan.video.deinterlace
    assert plan.notices == (
        "Stream 0: telecined; its original 23.976 frames per second are restored.",
    )
    assert info.streams[0].video.cadence == plan.video.telecine


BROKEN = {
    "a frame cut out": "select='not(eq(n,60))'," + EVEN,
    "a title that moves with each field": (
        "setfield=tff,separatefields[f];color=white:s=12x6:r=60000/1001:d=4[c];"
        "[f][c]overlay=x='mod(t*90\\,180)':y=20:shortest=1:enable='gt(t,3)',weave=top," + EVEN
    ),
    "interlaced video in its last second": (
        "null[t];testsrc2=s=192x108:r=60000/1001:d=1,gblur=sigma=2,"
        "tinterlace=mode=interleave_top[i];[t][i]concat=n=2," + EVEN
    ),
    "a pause": "setpts='PTS+gte(N,50)/TB'",
}


WHY = {
    "a frame cut out": "telecined, but its cadence is not clear, so it is treated as interlaced.",
    "a title that moves with each field": "telecined, but its cadence breaks at 3.",
    "interlaced video in its last second": "telecined, but its cadence breaks at 4.",
    "a pause": "telecined, but its frames are shown at uneven times, so",
}


QUICK = "a title that moves with each field"


@pytest.mark.parametrize(
    "why", [pytest.param(why, marks=[] if why == QUICK else [pytest.mark.slow]) for why in BROKEN]
)
def test_a_cadence_that_breaks_is_interlaced_video(tmp_path, why: str) -> None:
    info, plan = planned(telecined(tmp_path / "broken.mkv", BROKEN[why], seconds=4))

    assert info.streams[0].video.telecined
    assert (plan.video.telecine, plan.video.deinterlace) == (None, True)
    assert WHY[why] in plan.notices[0]
    assert plan.notices[1].endswith("deinterlaced to full rate, a frame of each field.")


@pytest.mark.slow
def test_a_profile_may_deinterlace_what_is_telecined(tmp_path) -> None:
    path = telecined(tmp_path / "steady.mkv", seconds=2)

    _, plan = planned(path, profile("hevc", video={"invert_telecine": False}))

    assert (plan.video.telecine, plan.video.deinterlace) == (None, True)
    assert plan.notices == ("Stream 0: deinterlaced to full rate, a frame of each field.",)


def test_times_are_even_within_their_rounding() -> None:
    tick = RATES[0].denominator / RATES[0].numerator
    rounded = tuple(round(n * tick * 1000) for n in range(1000))

    def found(times: tuple[int, ...]):
        track = TrackMeasure(index=0, kind="video", packets=len(times), times=times)
        return even_times(track, MS)

    assert found(rounded) == (RATES[0], 1000)
    assert found(tuple(round(n * 1000 / 30) for n in range(1000))) == (RATES[1], 1000)
    assert found(tuple(round(n * tick * 500) for n in range(1000))) == (RATES[0], 500)
    assert found((*rounded[:500], *(t + 20 for t in rounded[500:]))) is None
    assert found(tuple(n * 40 for n in range(1000))) is None
    assert found(()) is None
