"""Fragmented MP4 is read strictly: playlists are written from it, so what does not fit is refused."""

from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ffmpeg
from hevcq.ffmpeg.containers.fragments import FragmentedFile, hevc_name, read_fragments
from hevcq.ffmpeg.hls.command import FRAGMENTS
from support.once import made_once
from support.rendition import box

pytestmark = pytest.mark.media
PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=1")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "-pix_fmt", "yuv420p")


def fragmented(path: Path, *words: str) -> FragmentedFile:
    """Make a file as the encodes of a ladder are made, and read it."""
    ffmpeg(*words, "-movflags", FRAGMENTS, "-f", "mp4", path)
    return read_fragments(path)


@pytest.fixture
def whole() -> bytes:
    return made_once("fragments", lambda path: fragmented(path, *PICTURE, *H264), "").read_bytes()


def test_the_samples_of_each_fragment_are_added_up(tmp_path):
    found = fragmented(tmp_path / "a.mp4", *PICTURE, *H264)

    first, second = found.fragments
    assert (found.width, found.height, found.samples, found.seconds) == (64, 48, 10, 1.0)
    assert [f.samples for f in (first, second)] == [5, 5]
    assert [f.duration / found.timescale for f in (first, second)] == [0.5, 0.5]
    assert (first.sync, second.sync) == (True, True)
    assert second.shown - first.shown == first.duration
    assert (first.start, first.end, second.end) == (found.head, second.start, found.size)


@pytest.mark.parametrize(
    ("codec", "layout", "name", "channels"),
    [
        ("aac", "stereo", "mp4a.40.2", 2),
        ("aac", "7.1", "mp4a.40.2", 8),
        ("ac3", "5.1", "ac-3", 6),
        ("eac3", "5.1", "ec-3", 6),
    ],
)
def test_sounds_are_named_as_hls_names_them(tmp_path, codec, layout, name, channels):
    sound = ("-f", "lavfi", "-i", "sine=duration=1", "-af", f"aformat=channel_layouts={layout}")

    found = fragmented(tmp_path / "a.mp4", *sound, "-c:a", codec)

    assert (found.codec, found.channels) == (name, channels)


def test_hevc_is_named_as_apple_names_it():
    """By the example of ISO/IEC 14496-15, annex E: Main, level 3.1, progressive."""
    assert hevc_name(bytes([1, 1, 0x60, 0, 0, 0, 0xB0, 0, 0, 0, 0, 0, 93])) == "hvc1.1.6.L93.B0"


def test_a_file_that_was_cut_anywhere_is_refused(tmp_path, whole):
    for length in [*range(0, 2000, 7), *range(2000, len(whole), 101), len(whole) - 1]:
        (tmp_path / "cut.mp4").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="it "):
            read_fragments(tmp_path / "cut.mp4")


def test_bytes_between_or_after_fragments_are_refused(tmp_path, whole):
    free, second = box(b"free", b"1234"), whole.rindex(b"moof") - 4
    for content in (whole + free, whole[:second] + free + whole[second:]):
        (tmp_path / "more.mp4").write_bytes(content)
        with pytest.raises(ValueError, match="bytes that belong to no fragment"):
            read_fragments(tmp_path / "more.mp4")
