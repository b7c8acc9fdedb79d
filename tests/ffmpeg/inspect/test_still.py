"""One picture of a video, whatever the video is."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.util.clock import SystemClock
from support.clips import make_clip


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG, from its frame header."""
    at = 2
    while jpeg[at + 1] not in {0xC0, 0xC2}:
        at += 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
    high, wide = struct.unpack(">HH", jpeg[at + 5 : at + 9])
    return wide, high


@pytest.mark.media
def test_a_picture_fits_its_box_and_a_file_that_is_none_gives_nothing(tmp_path: Path) -> None:
    encoder = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
    stop = threading.Event()

    jpeg = encoder.still(str(make_clip(tmp_path)), width=100, stop=stop)

    assert max(size_of(jpeg)) == 100
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    assert encoder.still(str(text), width=100, stop=stop) == b""
    assert encoder.still(str(tmp_path / "gone.mp4"), width=100, stop=stop) == b""
