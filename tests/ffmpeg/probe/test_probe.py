"""Probing: real facts of real files, and one clear sentence for everything that is no video."""

import os
import re
import socket
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from ffmpeg.verify.conftest import ENCODER, ffmpeg
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, Plan
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import SourceGone, SourceUnreadable, Unavailable
from hevcq.ffmpeg.probe import probe as probing
from hevcq.ffmpeg.probe.probe import probe
from support.clips import make_clip, media_clip
from support.media_facts import profile
from support.rendition import TOOLS


def look(path: Path | str):
    return probe(TOOLS, str(path), threading.Event())


@pytest.mark.parametrize(
    ("clip", "index", "facts"),
    [
        ("iphone-320p-rot90-mebx.mov", 1, {"rotation": 90}),
        ("made-kitchen-sink.mp4", 0, {"rotation": 270}),
        ("hevc-hdr10plus-phone-1080p.mp4", 0, {"hdr10_plus": True, "dolby_vision": False}),
        (
            "iphone-hevc-dovi-editlist-mebx.mp4",
            0,
            {"dolby_vision": True, "dolby_base": "hlg", "rotation": 90},
        ),
    ],
)
def test_rotation_clockwise_and_dynamic_hdr_are_seen(clip, index, facts):
    video = look(media_clip(clip)).streams[index].video
    assert {name: getattr(video, name) for name in facts} == facts


def test_every_stream_of_a_rich_matroska_file_is_told_apart():
    info = look(media_clip("made-kitchen-sink.mkv"))

    assert [stream.kind for stream in info.streams] == [
        StreamKind.VIDEO, *[StreamKind.AUDIO] * 3, *[StreamKind.SUBTITLE] * 3,
        StreamKind.ATTACHMENT, StreamKind.PICTURE,
    ]  # fmt: skip
    assert info.chapters[0].title == "Opening"
    assert info.streams[2].language == "fra"
    assert info.streams[2].title == "Commentaire"
    assert info.streams[4].dispositions == ("default", "forced")
    assert info.streams[3].duration_s == pytest.approx(10.037)


def test_tags_with_odd_bytes_survive(tmp_path):
    clip = make_clip(tmp_path, name="tagged.mkv", extra=["-metadata", "title=XXXXYYYY"])
    clip.write_bytes(clip.read_bytes().replace(b"XXXXYYYY", b'a\xff\xfe\x80"\\\nb'))
    assert look(clip).tags["title"].startswith("a\ufffd")


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


DASH = (
    b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    b'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"></MPD>'
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"only words\nand more of them\n" * 40, "is a text file"),
        (PLAYLIST, "is a playlist (hls)"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "is a playlist (concat)"),
        (DASH, "is a playlist (dash)"),
        (b"1\n00:00:00,000 --> 00:00:01,000\nhi\n", "its format is srt"),
        (b"P6\n1 1\n255\nabc", "its format is ppm"),
        (bytes(range(256)) * 40, "not a video or was truncated"),
    ],
)
def test_what_is_no_video_is_refused_in_one_clear_sentence(tmp_path, content, sentence):
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match=rf"video\.mp4.*{re.escape(sentence)}"):
        look(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # the whole path may be longer than a socket's name


@pytest.mark.parametrize(
    ("make", "name", "error", "sentence"),
    [
        (os.mkdir, "x.mp4", SourceUnreadable, "x.mp4 is a folder"),
        (os.mkfifo, "x.mp4", SourceUnreadable, "x.mp4 is a device, pipe or socket"),
        (listening, "x.mp4", SourceUnreadable, "x.mp4 is a device, pipe or socket"),
        (lambda path: path.symlink_to(path), "x.mp4", SourceUnreadable, "x.mp4 cannot be opened"),
        (lambda _: None, "x.mp4", SourceGone, "x.mp4 is not there"),
        (lambda _: None, "a\0b.mp4", SourceUnreadable, "cannot be opened"),
    ],
)
def test_what_is_no_file_is_refused_at_once_for_what_it_is(
    tmp_path, monkeypatch, make, name, error, sentence
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises(error) as caught:
        look(tmp_path / name)
    assert sentence in caught.value.message


def test_a_file_that_may_not_be_read_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    monkeypatch.setattr(os, "open", Mock(side_effect=PermissionError))  # root may read everything
    with pytest.raises(SourceUnreadable, match="may not be read") as caught:
        look(tmp_path / "clip.mp4")
    assert "right to read" in caught.value.remedy


FIELDS = ["-vf", "interlace", "-flags", "+ildct+ilme"]


def recording(folder: Path, first: dict[str, object], then: dict[str, object]) -> Path:
    """Make a transport stream of two programmes, the second far longer."""
    one = make_clip(folder, name="one.ts", seconds=1, audio=False, **first)
    two = make_clip(folder, name="two.ts", seconds=8, audio=False, **then)
    listing, target = folder / "both.ffconcat", folder / "recording.ts"
    listing.write_text(f"ffconcat version 1.0\nfile '{one}'\nfile '{two}'\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-c", "copy", target)
    return target


def plan_of(path: Path) -> Plan:
    return make_plan(profile("hevc"), ENCODER.probe(str(path), stop=threading.Event()))


@pytest.mark.parametrize(
    ("first", "then", "fit", "fields"),
    [
        ({"extra": ["-aspect", "4:3"]}, {"extra": ["-aspect", "16:9"]}, "160x120 1:1", False),
        ({"size": "160x120"}, {"size": "320x240"}, "320x240 1:1", False),
        ({}, {"extra": FIELDS, "rate": 50}, "", True),
    ],
    ids=["another shape", "another size", "fields"],
)
def test_what_comes_after_another_programme_is_seen(first, then, fit, fields, tmp_path):
    plan = plan_of(recording(tmp_path, first, then))

    assert isinstance(plan, EncodePlan)
    assert plan.video.fit.startswith(fit), "ffmpeg 7 names the other shape as well"
    assert plan.video.deinterlace is fields


def test_a_stereoscopic_layout_that_only_the_pictures_tell_is_seen(tmp_path):
    side_by_side = ["-x264-params", "frame-packing=3"]
    clip = make_clip(tmp_path, extra=side_by_side, audio=False)

    assert "stereoscopic" in plan_of(clip).detail


def test_a_turn_that_only_some_pictures_tell_is_refused(tmp_path):
    flat = make_clip(tmp_path, name="flat.mp4", audio=False)
    turned = tmp_path / "turned.mp4"
    orientation = "h264_metadata=display_orientation=insert:rotate=90"
    ffmpeg("-i", flat, "-c", "copy", "-bsf:v", orientation, turned)

    assert plan_of(turned).policy == "video"


URL, FILE, UNLISTED = "relay+http://h/x.mkv?s", "/none.mkv", "Format not on whitelist"


@pytest.mark.parametrize(
    ("location", "line", "error", "sentence"),
    [
        (URL, "Server returned 404 Not Found", SourceGone, "x.mkv is not there"),
        (URL, "Server returned 5XX", Unavailable, "cannot be fetched"),
        (URL, "Invalid data found", SourceUnreadable, "Invalid data found"),
        (URL, "http://h/x.mkv: Odd", SourceUnreadable, "x.mkv cannot be read as a video: Odd"),
        (FILE, "file:/none.mkv: No such file or directory", SourceGone, "is not there"),
        (FILE, "file:/none.mkv: Odd", SourceUnreadable, "read as a video: Odd"),
        (FILE, f"[nsv @ 0x1] {UNLISTED}", SourceUnreadable, "its format is nsv"),
    ],
)
def test_a_failure_of_ffprobe_is_put_in_one_sentence(location, line, error, sentence):
    found = probing.probe_error(location, [line])
    assert type(found) is error
    assert sentence in found.message


@pytest.mark.parametrize(("name", "quick_starts"), [("film.mp4", 1), ("film.mkv", 2)])
def test_a_quick_look_trusts_the_first_pictures_of_an_mp4_only(
    tmp_path, monkeypatch, name, quick_starts
):
    clip, counted = make_clip(tmp_path, name=name, seconds=4), Mock(side_effect=probing.run_child)
    monkeypatch.setattr(probing, "run_child", counted)
    for quick, starts in [(True, quick_starts), (False, 2)]:
        counted.reset_mock()
        info = probe(TOOLS, str(clip), threading.Event(), quick=quick)
        assert (info.duration_s, counted.call_count) == (pytest.approx(4, abs=0.1), starts)
