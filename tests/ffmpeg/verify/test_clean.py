"""Clean renditions raise no alarm, whatever the source is like."""

import threading
from unittest.mock import Mock

import pytest

from ffmpeg.verify.conftest import (
    ENCODER,
    PROFILE,
    complaints,
    encoded,
    ffmpeg,
    make_source,
    pair_once,
)
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.errors import Stopped
from hevcq.ffmpeg.process import child
from support.rendition import request_of, turned

ORDER = (Gate.G1, Gate.G2, Gate.G3, Gate.G5, Gate.G6, Gate.G4, Gate.G8)
SMALL = Profile(
    name="small",
    description="for tests",
    container="mp4",
    video=VideoRecipe(
        codec="h264", preset="ultrafast", crf=20, pixel_format="yuv420p",
        max_width=320, max_height=180,
    ),
    gates=PROFILE.gates,
)  # fmt: skip


SHORT = ("-t", "3")


def accepted(pair) -> None:
    results = pair.judge()
    assert complaints(results) == []
    assert tuple(r.gate for r in results) == ORDER
    assert results[-1].outcome is Outcome.PASSED


def test_a_clean_rendition_passes_every_gate_in_order_of_cost(pair):
    accepted(pair)


@pytest.mark.parametrize(
    ("name", "picture", "extra"),
    [
        ("vfr.mkv", "testsrc2=size=160x120:rate=30,select=not(between(n\\,20\\,50))",
         ("-fps_mode", "passthrough", *SHORT)),
        ("tv.ts", "", ("-sn", "-map_chapters", "-1", *SHORT)),
        ("opengop.mkv", "", ("-x264-params", "open-gop=1:bframes=3", *SHORT)),
        ("full.mp4", "testsrc2=size=160x120:rate=25,format=yuvj420p",
         ("-pix_fmt", "yuvj420p", *SHORT)),
        ("odd.mkv", "testsrc2=size=161x121:rate=25,format=yuv444p",
         ("-pix_fmt", "yuv444p", *SHORT)),
        ("one.mp4", "testsrc2=size=160x120:rate=25", ("-t", "0.04", "-an", "-sn")),
    ],
)  # fmt: skip
def test_no_false_alarm_for(tmp_path, name, picture, extra):
    accepted(encoded(make_source(tmp_path, name, picture=picture, extra=extra), tmp_path))


@pytest.mark.parametrize("interlaced", [False, True])
def test_no_false_alarm_when_the_picture_is_scaled_and_deinterlaced(tmp_path, interlaced):
    fields = ("-flags", "+ildct+ilme", "-vf", "tinterlace=interleave_top,setfield=tff")
    source = make_source(
        tmp_path, "big.mkv", picture="testsrc2=size=640x360:rate=50",
        extra=(*SHORT, *(fields if interlaced else ())),
    )  # fmt: skip
    pair = encoded(source, tmp_path, SMALL)

    assert pair.request.plan.video.deinterlace is interlaced
    accepted(pair)


def test_no_false_alarm_when_the_picture_is_turned(tmp_path):
    pair = encoded(turned(make_source(tmp_path, "turned.mp4", extra=SHORT), 0, 1, -1, 0), tmp_path)

    assert (pair.request.plan.video.width, pair.request.plan.video.height) == (180, 320)
    accepted(pair)


def test_a_small_thing_that_stands_still_is_caught_although_the_mean_hides_it(tmp_path):
    moving = "color=gray:size=320x180:rate=25:duration=6,noise=alls=2,format=yuv420p"
    box = f"{moving}[a];color=white:size=24x24:rate=25:duration=6[b];[a][b]overlay=x=t*48:y=78"
    pair = encoded(make_source(tmp_path, "box.mkv", picture=box), tmp_path)
    accepted(pair)
    still = tmp_path / "still.mkv"
    frozen = "split[a][b];[a][b]freezeframes=first=1:last=149:replace=0"
    ffmpeg("-i", pair.good, "-map", "0", "-c", "copy", "-c:v", "libx265", "-preset", "ultrafast",
           "-x265-params", "log-level=error", "-filter:v", frozen, "-fps_mode", "passthrough",
           "-enc_time_base", "1:120000", still)  # fmt: skip
    last = pair.judge(still)[-1]

    assert (last.gate, last.outcome) == (Gate.G8, Outcome.FAILED)
    assert "frame 2 " in last.detail


def test_a_plain_job_starts_four_programs(tmp_path, monkeypatch):
    clip, out, stop = make_source(tmp_path, "plain.mp4"), tmp_path / "made.mp4", threading.Event()
    started = Mock(side_effect=child.start_child)
    monkeypatch.setattr(child, "start_child", started)
    info, looked = ENCODER.look(str(clip), stop=stop)
    measured = ENCODER.preflight(str(clip), info, PROFILE, stop=stop, looked=looked)
    request = request_of(clip, out, PROFILE, info=info, measured=measured)
    made = ENCODER.encode(request, on_progress=lambda _: None, stop=stop)
    gates = ENCODER.verify(request.to_verify(made), on_progress=lambda _: None, stop=stop)
    assert complaints(gates) == []
    assert started.call_count == 4


def test_progress_is_reported_and_a_stop_is_obeyed():
    pair = pair_once("source.mkv")
    seen: list[float] = []
    ENCODER.verify(
        pair.request, on_progress=lambda p: seen.append(p.fraction), stop=threading.Event()
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        ENCODER.verify(pair.request, on_progress=lambda _: None, stop=stop)
