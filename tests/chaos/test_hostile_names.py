"""Names, titles and the environment: data stays data from the source to the rendition."""

import threading

import pytest

from chaos.damage_corpus import ffmpeg
from chaos.damage_judge import profile, run
from hevcq.errors import SourceDamaged, SourceUnreadable
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.util.clock import SystemClock
from support.clips import make_clip

ALARMING = ["Unknown encoder", "No space left on device", "timed out", "a\nUnknown encoder"]


@pytest.mark.parametrize("name", ALARMING)
def test_a_damaged_video_named_like_an_error_is_damaged_and_no_more(tmp_path, name):
    # ffmpeg names the video in the very line that says that a picture is broken
    path = make_clip(tmp_path, name="clip.mkv", audio=False).rename(tmp_path / f"{name}.mkv")
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 400, 7):
        content[place] ^= 0x5A
    path.write_bytes(content)
    ended = run(path, tmp_path / "made.mkv", profile())
    assert ended.step == "encode", ended
    assert isinstance(ended.error, SourceDamaged), ended


def with_words(video: bytes, words: str) -> bytes:
    """Put an ID3 tag before a video, whose broken value makes ffmpeg print the words at any opening.

    Such a tag is read before every container; a damaged one is told as an error and passed over.
    """
    body = b"\x01\xff\xfe" + words.encode("utf-16-le") + b"\0\0" + b"AA broken"
    frame = b"TXXX" + synchsafe(len(body)) + b"\0\0" + body
    return b"ID3\4\0\0" + synchsafe(len(frame)) + frame + video


def synchsafe(number: int) -> bytes:
    return bytes(number >> bits & 127 for bits in (21, 14, 7, 0))


@pytest.mark.parametrize("shape", ["{}", "x\n[error] {}", "x" * 900 + "\n{}" + "x" * 900])
@pytest.mark.parametrize("words", ALARMING[:1])
def test_a_damaged_video_whose_tags_read_like_an_error_is_damaged_and_no_more(
    tmp_path, words, shape
):
    video = bytearray(make_clip(tmp_path, name="clip.mkv", audio=False).read_bytes())
    for place in range(len(video) // 2, len(video) // 2 + 400, 7):
        video[place] ^= 0x5A
    path = tmp_path / "video.mkv"
    path.write_bytes(with_words(bytes(video), shape.format(words)))
    ended = run(path, tmp_path / "made.mkv", profile("off"))
    # ffmpeg 9 takes no Matroska behind such a tag for a video.
    assert isinstance(ended.error, SourceDamaged | SourceUnreadable), ended


TITLE = "';movie=/etc/passwd[out];$(touch pwned) %{metadata} \\N{1} =;#\n[CHAPTER]\nSTART=0"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_titles_and_tags_are_carried_over_word_for_word_and_never_obeyed(
    tmp_path, monkeypatch, suffix
):
    monkeypatch.chdir(tmp_path)
    plain = make_clip(tmp_path, name=f"plain.{suffix}", seconds=0.4)
    source, made = tmp_path / f"video.{suffix}", tmp_path / f"made.{suffix}"
    tags = ["-metadata", f"title={TITLE}", "-metadata", "comment=-y -i /etc/passwd"]
    tags += ["-metadata:s:v", f"handler_name={TITLE}", "-metadata:s:a", f"title={TITLE}"]
    ffmpeg("-i", plain, "-c", "copy", *tags, source)
    ended = run(source, made, profile())
    assert ended.step == "", ended
    title = (
        FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
        .probe(str(made), stop=threading.Event())
        .tags["title"]
    )
    assert title == TITLE
    names = {plain.name, source.name, made.name, f"{made.name}.thumbnails0"}
    assert {path.name for path in tmp_path.iterdir()} == names
