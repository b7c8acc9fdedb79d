"""AVI has no presentation times and RGB no brightness: G8 compares the right pictures all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffmpeg.verify.conftest import Pair, encoded, ffmpeg
from hevcq.domain.certificate import Gate, Outcome

MOVING = "testsrc2=size=176x144:rate=25"
AVI = {
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "3", "-bf", "2"),
    "packed B-frames": ("-c:v", "libxvid", "-q:v", "3", "-bf", "2"),
    "h264": ("-c:v", "libx264", "-crf", "16", "-bf", "2"),
    "mpeg2": ("-c:v", "mpeg2video", "-q:v", "3"),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
}


def made(folder: Path, name: str, seconds: float, *options: str) -> Path:
    target = folder / name
    shown = () if "-pix_fmt" in options else ("-pix_fmt", "yuv420p")
    ffmpeg(
        "-f", "lavfi", "-i", f"{MOVING}:duration={seconds}",
        "-f", "lavfi", "-i", f"sine=duration={seconds}", *options, *shown, "-c:a", "mp2", target,
    )  # fmt: skip
    return target


def judged(pair: Pair, output: Path | None = None) -> tuple[Gate, Outcome, str]:
    # Above the likeness of neighbouring pictures, so that a sample one frame apart cannot pass.
    last = pair.judge(output, profile=pair.with_gates(picture_floor=0.9))[-1]
    return last.gate, last.outcome, last.detail


@pytest.mark.parametrize("make", AVI)
@pytest.mark.parametrize("seconds", [0.8, 5.0])
def test_a_clean_rendition_of_an_avi_is_compared_picture_by_picture(tmp_path, make, seconds):
    pair = encoded(made(tmp_path, "video.avi", seconds, *AVI[make], "-g", "25"), tmp_path)

    gate, outcome, detail = judged(pair)

    assert (gate, outcome) == (Gate.G8, Outcome.PASSED), detail


def test_a_frame_that_is_lost_in_the_middle_is_no_shift(tmp_path):
    # Given a rendition of an AVI without one frame of its middle, and with its last one doubled
    pair = encoded(made(tmp_path, "video.avi", 5.0, *AVI["h264"]), tmp_path)
    spoilt = tmp_path / f"spoilt{pair.good.suffix}"
    lost = "select=not(eq(n\\,62)),setpts=N/25/TB,tpad=stop=1:stop_mode=clone"
    ffmpeg("-i", pair.good, "-map", "0", "-c", "copy", "-c:v", "libx265", "-preset", "ultrafast",
           "-x265-params", "log-level=error", "-filter:v", lost, "-fps_mode", "passthrough",
           "-enc_time_base", "-1", spoilt)  # fmt: skip

    # When it is judged, then no one shift fits both its halves
    gate, outcome, _ = judged(pair, spoilt)

    assert (gate, outcome) == (Gate.G8, Outcome.FAILED)


def test_a_rendition_of_rgb_is_judged_by_what_is_seen(tmp_path):
    source = made(tmp_path, "video.mkv", 2.0, "-c:v", "ffv1", "-pix_fmt", "bgr0")
    pair = encoded(source, tmp_path)

    gate, outcome, detail = judged(pair)

    assert pair.request.plan.video.pixel_format == "gbrp"
    assert (gate, outcome) == (Gate.G8, Outcome.PASSED), detail
