"""Subtitles, chapters and one picture for a browser, of whatever the video holds."""

import struct
import threading

import pytest

from ffmpeg.verify.conftest import ffmpeg
from hevcq.errors import HevcqError
from support.clips import make_clip
from support.rendition import ENCODER


@pytest.mark.media
def test_text_subtitles_become_webvtt_with_their_language_and_chapters_are_found(tmp_path):
    words, marks = tmp_path / "words.srt", tmp_path / "marks.ffmeta"
    words.write_text("1\n00:00:00,250 --> 00:00:00,900\nHello & <i>there</i>\n", encoding="utf-8")
    marks.write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=Gate\n",
        encoding="utf-8",
    )
    clip = tmp_path / "clip.mp4"
    ffmpeg(
        "-i", make_clip(tmp_path, name="mute.mp4"), "-i", words, "-i", marks, "-map", "0", "-map", "1",
        "-map", "1", "-map_chapters", "2", "-c", "copy", "-c:s", "mov_text",
        "-metadata:s:s:0", "language=ger", clip,
    )  # fmt: skip
    stop = threading.Event()

    tracks, chapters = ENCODER.texts(str(clip), stop=stop)

    assert [track.language for track in tracks] == ["de", ""]
    assert tracks[0].content.startswith("WEBVTT")
    assert "00:00.250 --> 00:00.900\nHello & <i>there</i>" in tracks[0].content
    assert [(chapter.start_s, chapter.title) for chapter in chapters] == [(0.0, "Gate")]
    assert ENCODER.texts(str(tmp_path / "mute.mp4"), stop=stop) == ((), ())
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(HevcqError):
        ENCODER.texts(str(tmp_path / "notes.mp4"), stop=stop)


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG, from its frame header."""
    at = 2
    while jpeg[at + 1] not in {0xC0, 0xC2}:
        at += 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
    high, wide = struct.unpack(">HH", jpeg[at + 5 : at + 9])
    return wide, high


@pytest.mark.media
def test_a_picture_fits_its_box_and_a_file_that_is_none_gives_nothing(tmp_path):
    stop = threading.Event()

    jpeg = ENCODER.still(str(make_clip(tmp_path)), width=100, stop=stop)

    assert max(size_of(jpeg)) == 100
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    assert ENCODER.still(str(text), width=100, stop=stop) == b""
    assert ENCODER.still(str(tmp_path / "gone.mp4"), width=100, stop=stop) == b""
