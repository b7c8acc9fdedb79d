"""Pictures of several sizes and aspects are fitted into one, undistorted, and none is lost unnamed."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from benchmarks.fidelity import spliced

from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile, Video
from hevcq.ffmpeg.command.codecs import fit_filter, picture_filter, steady_filters
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.util.clock import SystemClock
from support.media_facts import audio, media, profile, video

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
STOP = threading.Event()
PROFILE = Profile(name="p", description="d", video=Video(codec="hevc", crf=28))
WIDE, NARROW, TALL = ("64x48", "4/3"), ("32x48", "8/3"), ("48x48", "1/1")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """White pictures of 64x48 at 16:9, of 32x48 at 16:9, and of 48x48 that are square."""
    folder = tmp_path_factory.mktemp("changing")
    path, parts = folder / "changing.ts", []
    for number, (size, aspect) in enumerate((WIDE, NARROW, TALL)):
        parts.append(folder / f"{number}.ts")
        spliced.ffmpeg("-f", "lavfi", "-i", f"color=white:size={size}:rate=25:duration=0.8", "-vf",
                       f"setsar={aspect}", "-c:v", "mpeg2video", "-g", "5", "-bf", "2", parts[-1])  # fmt: skip
    listing = folder / "parts.txt"
    listing.write_text("".join(f"file '{part}'\n" for part in parts))
    spliced.ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-c", "copy", path)
    return path


def test_each_picture_keeps_its_shape_between_black_bars(source) -> None:
    info = ENCODER.probe(str(source), stop=STOP)
    plan = make_plan(PROFILE, info)
    assert isinstance(plan, EncodePlan)
    assert (plan.video.fit, plan.video.width, plan.video.height) == ("64x48 4:3", 64, 48)
    assert any("is fitted into 64x48 4:3, undistorted" in notice for notice in plan.notices)

    command = ["ffmpeg", "-v", "error", *steady_filters(info), "-i", str(source)]
    command += ["-vf", f"{picture_filter(plan.video)},format=gray", "-fps_mode", "passthrough"]
    done = subprocess.run(
        [*command, "-f", "rawvideo", "-"], check=True, capture_output=True, timeout=60
    )
    pictures = [done.stdout[at : at + 64 * 48] for at in range(0, len(done.stdout), 64 * 48)]
    assert len(pictures) == 58, "20 of each, without the last before each change"
    for picture, shown in ((pictures[2], 64), (pictures[25], 64), (pictures[50], 36)):
        row = picture[24 * 64 : 25 * 64]
        white = [column for column, value in enumerate(row) if value > 128]
        assert len(white) == shown
        assert white[0] == (64 - shown) // 2


def test_what_the_decoder_cannot_show_is_counted_and_said(source) -> None:
    info = ENCODER.probe(str(source), stop=STOP)

    measured = ENCODER.preflight(str(source), info, PROFILE, stop=STOP)

    assert measured.tracks[0].packets == 58
    assert any("2 of 60 pictures, the last before a change" in each for each in measured.notices)


def test_fields_are_scaled_apart() -> None:
    stream = video(field_order="tt", becomes="544x576 16:15 yuv420p")
    plan = make_plan(profile("hevc", policies={"interlaced": "convert"}), media(stream, audio()))

    assert isinstance(plan, EncodePlan)
    assert picture_filter(plan.video).startswith("scale=")
    assert "interl=1" in fit_filter(plan.video)
