"""A part's headers, read without ffprobe: alike where ffprobe finds them alike, else None."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from ffmpeg.chunks.numbered import ffmpeg
from hevcq.ffmpeg.part_headers import quick_headers

pytestmark = pytest.mark.media


def part(folder: Path, name: str, *options: str, size: str = "128x64", seconds: int = 1) -> Path:
    made = folder / f"{name}.mp4"
    picture = f"testsrc2=size={size}:rate=25:duration={seconds}"
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    ffmpeg("-f", "lavfi", "-i", picture, *encode, *options, made)
    return made


def probed(path: Path) -> str:
    asked = "stream=codec_name,pix_fmt,width,height,time_base,extradata_hash"
    argv = ["ffprobe", "-v", "error", "-show_data_hash", "sha256", "-show_entries", asked]
    return subprocess.run(
        [*argv, path], check=True, capture_output=True, text=True, timeout=30
    ).stdout


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return {
        "one": part(folder, "one"),
        "longer, so of another bit rate": part(folder, "longer", seconds=3),
        "index first": part(folder, "first", "-movflags", "+faststart"),
        "other size": part(folder, "size", size="192x64"),
        "other profile": part(folder, "profile", "-bf", "2", "-coder", "1"),
        "other ticks": part(folder, "ticks", "-video_track_timescale", "12345"),
    }


def test_parts_are_alike_just_where_ffprobe_says_so(parts):
    reference, known = quick_headers(parts["one"]), probed(parts["one"])

    assert reference is not None
    for name, path in parts.items():
        assert (quick_headers(path) == reference) == (probed(path) == known), name
    assert sum(quick_headers(path) == reference for path in parts.values()) == 3


def test_what_is_not_as_our_own_parts_are_is_left_to_ffprobe(parts, tmp_path):
    whole = parts["one"].read_bytes()
    at = whole.index(b"moov") - 4
    odd = {
        "empty": b"",
        "no MP4": b"not a part" * 99,
        "cut off in the headers": whole[: at + 200],
        "headers that say they are longer": whole[:at] + struct.pack(">I", 1 << 30) + whole[at + 4 :],
        "a box of no size": whole[:at] + struct.pack(">I", 0) + whole[at + 4 :],
        "a box inside that overflows": whole.replace(b"mdia", b"mdix"),
        "nothing inside": struct.pack(">I4s", 8, b"moov"),
    }  # fmt: skip
    for name, content in odd.items():
        path = tmp_path / "odd.mp4"
        path.write_bytes(content)
        assert quick_headers(path) is None, name
    assert quick_headers(tmp_path / "gone") is None


def test_two_tracks_are_left_to_ffprobe(parts, tmp_path):
    both = tmp_path / "both.mp4"
    ffmpeg("-i", parts["one"], "-f", "lavfi", "-i", "sine=duration=1", "-c:v", "copy", both)

    assert quick_headers(both) is None
