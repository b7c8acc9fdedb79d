"""Subtitles and chapters for a browser, of whatever the video holds."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from hevcq.errors import HevcqError
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.util.clock import SystemClock
from support.clips import make_clip


@pytest.mark.media
def test_text_subtitles_become_webvtt_with_their_language_and_chapters_are_found(
    tmp_path: Path,
) -> None:
    words, marks = tmp_path / "words.srt", tmp_path / "marks.ffmeta"
    words.write_text("1\n00:00:00,250 --> 00:00:00,900\nHello & <i>there</i>\n", encoding="utf-8")
    marks.write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=Gate\n",
        encoding="utf-8",
    )
    clip = tmp_path / "clip.mp4"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(make_clip(tmp_path, name="mute.mp4"))]
    command += ["-i", str(words), "-i", str(marks), "-map", "0", "-map", "1", "-map", "1"]
    command += ["-map_chapters", "2", "-c", "copy", "-c:s", "mov_text"]
    subprocess.run([*command, "-metadata:s:s:0", "language=ger", str(clip)], check=True)
    encoder, stop = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock()), threading.Event()

    tracks, chapters = encoder.texts(str(clip), stop=stop)

    assert [track.language for track in tracks] == ["de", ""]
    assert tracks[0].content.startswith("WEBVTT")
    assert "00:00.250 --> 00:00.900\nHello & <i>there</i>" in tracks[0].content
    assert [(chapter.start_s, chapter.title) for chapter in chapters] == [(0.0, "Gate")]
    assert encoder.texts(str(tmp_path / "mute.mp4"), stop=stop) == ((), ())
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(HevcqError):
        encoder.texts(str(tmp_path / "notes.mp4"), stop=stop)
