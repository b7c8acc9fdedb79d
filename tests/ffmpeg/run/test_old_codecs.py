"""The libraries people have: old codecs and containers go the whole way and pass every gate."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hevcq.domain.certificate import Outcome
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.encoder import EncodeRequest, VerifyRequest
from hevcq.util.clock import SystemClock
from support.clips import make_clip
from support.media_facts import profile

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
GATES = {"minimum_saving": None, "review_below": 0.0}

CLIPS = {
    "xvid.avi": ("mpeg4", "yuv420p", ["-bf", "2", "-c:a", "libmp3lame"]),
    "camera.avi": ("mjpeg", "yuvj420p", ["-c:a", "pcm_s16le"]),
    "screen.avi": ("huffyuv", "rgb24", ["-an"]),
    "animation.mov": ("qtrle", "rgb24", ["-an"]),
    "dvd.vob": ("mpeg2video", "yuv420p", ["-b:v", "2M", "-c:a", "ac3"]),
    "broadcast.ts": ("libx264", "yuv420p", ["-c:a", "mp2", "-ar", "48000"]),
    "vcd.mpg": ("mpeg1video", "yuv420p", ["-b:v", "1M", "-c:a", "mp2", "-ar", "44100"]),
    "old.flv": ("flv", "yuv420p", ["-c:a", "libmp3lame", "-ar", "44100"]),
    "old.wmv": ("wmv2", "yuv420p", ["-c:a", "wmav2"]),
    "old.ogv": ("libtheora", "yuv420p", ["-c:a", "libvorbis", "-ac", "2"]),
    "old.webm": ("libvpx", "yuv420p", ["-c:a", "libvorbis", "-ac", "2", "-deadline", "realtime"]),
    "camera.mxf": ("mpeg2video", "yuv422p", ["-b:v", "4M", "-c:a", "pcm_s16le", "-ar", "48000"]),
    "edit.mov": ("prores_ks", "yuv422p10le", ["-c:a", "pcm_s24le"]),
    "archive.mkv": ("ffv1", "yuv444p", ["-c:a", "flac"]),
}
"""Name: video codec, pixel format, and the other options of the generated clip."""


@pytest.mark.media
@pytest.mark.parametrize("name", CLIPS)
def test_it_goes_the_whole_way(name: str, tmp_path: Path) -> None:
    codec, pixel_format, extra = CLIPS[name]
    clip = make_clip(
        tmp_path, name=name, codec=codec, pixel_format=pixel_format, extra=extra, size="176x144"
    )
    stop = threading.Event()
    recipe = profile(video={"preset": "ultrafast", "crf": 8}, gates=GATES)
    info = ENCODER.probe(str(clip), stop=stop)
    plan = make_plan(recipe, info)
    assert isinstance(plan, EncodePlan), plan
    measured = ENCODER.preflight(str(clip), info, recipe, stop=stop)
    output = tmp_path / f"out.{plan.extension}"
    location, size = str(clip), clip.stat().st_size
    report = ENCODER.encode(
        EncodeRequest(recipe, plan, info, location, output, info.duration_s, size, 60.0),
        on_progress=lambda _state: None,
        stop=stop,
    )

    results = ENCODER.verify(
        VerifyRequest(recipe, plan, location, info, measured, size, output, report, 60.0),
        on_progress=lambda _state: None,
        stop=stop,
    )

    allowed = {Outcome.PASSED, Outcome.OFF}
    assert [f"{r.gate.value}: {r.detail}" for r in results if r.outcome not in allowed] == []
    made = ENCODER.probe(str(output), stop=stop)
    sound = [stream.codec for stream in info.of_kind(StreamKind.AUDIO)]
    held = ["aac" if codec == "wmav2" else codec for codec in sound]
    assert [stream.codec for stream in made.of_kind(StreamKind.AUDIO)] == held


def test_an_old_camera_mov_without_a_brand_keeps_its_container_and_sound(tmp_path: Path) -> None:
    made = make_clip(tmp_path, name="camera.mov", codec="mjpeg", pixel_format="yuvj422p",
                     extra=["-c:a", "pcm_s16le"])  # fmt: skip
    content = made.read_bytes()
    assert content[4:8] == b"ftyp"
    made.write_bytes(content[:4] + b"free" + content[8:])

    plan = make_plan(profile(), ENCODER.probe(str(made), stop=threading.Event()))

    assert isinstance(plan, EncodePlan)
    assert (plan.extension, [s.codec for s in plan.kept]) == ("mov", ["hevc", "pcm_s16le"])
