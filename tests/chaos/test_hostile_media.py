"""Files that want more than to be encoded: to read others, to reach a server, to fill the machine."""

import re
import struct
import zlib
from pathlib import Path

import pytest

from chaos.damage_judge import Ended, profile, run
from chaos.hostile_kit import EBML, alias, track, traps, with_reference
from hevcq.domain.verdict import Handling, handling
from hevcq.errors import SourceDamaged
from hevcq.util.clock import SystemClock
from support.clips import ffmpeg, make_clip
from support.matroska import INFO, SEGMENT, SIMPLE, TAG, TAGS, TRACKS, element
from support.rendition import box, probed

PATIENCE_S = 90.0
"""Far above what any of these needs, far below the 120 s of CPU that a probe is allowed."""


@pytest.fixture
def trap(tmp_path):
    secret = make_clip(tmp_path / "outside", name="secret.ts")
    with traps(secret) as set_up:
        yield set_up


def taken(path: Path) -> Ended:
    """Take a file through every step, in bounded time."""
    clock = SystemClock()
    began = clock.monotonic()
    ended = run(path, path.with_name("made.mkv"), profile())
    assert clock.monotonic() - began < PATIENCE_S
    return ended


def refused(path: Path) -> str:
    """Return the one sentence that a file is refused with."""
    ended = taken(path)
    assert ended.step in {"probe", "plan", "preflight"}, ended
    assert "\n" not in ended.reason
    # Its own fault and nobody else's: one attempt, and no worker that takes itself out.
    assert ended.step == "plan" or handling(ended.error) is Handling.NEVER_AGAIN
    assert not path.with_name("made.mkv").exists()
    return ended.reason


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://FILE\n#EXT-X-ENDLIST\n",
    "hls url": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nURL\n#EXT-X-ENDLIST\n",
    "hls key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="URL"\n#EXTINF:5,\nFILE\n',
    "hls concat": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nconcat:URL|FILE\n",
    "hls subfile": "#EXTM3U\n#EXTINF:5,\nsubfile,,start,0,end,9,,:FILE\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile 'FILE'\nfile 'URL'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><BaseURL>URL</BaseURL></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video PORT RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist '
    'xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>URL</Id></CompositionPlaylist>',
    "avisynth": 'FFmpegSource2("FILE")\n',
    "vapoursynth": "import vapoursynth\ncore = vapoursynth.core\ncore.ffms2.Source('FILE')\n",
    "lavfi": "movie=FILE[out0]\n",
    "asx": '<asx version="3.0"><entry><ref href="URL"/></entry></asx>',
    "ram": "URL\nfile://FILE\n",
    "m3u": "URL\n",
    "ass": "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,,,"
    "0,0,0,,{\\fnFILE}movie=FILE\n",
    "idx": "# VobSub index file, v7 (do not modify this line!)\nid: FILE\n",
}
"""Every kind of playlist and script that ffmpeg could follow to a file or a server."""


@pytest.mark.parametrize("suffix", ["mp4", "own"])
@pytest.mark.parametrize("kind", LISTS)
def test_no_playlist_or_script_reaches_a_file_or_a_server(tmp_path, trap, kind, suffix):
    own = {"hls": "m3u8", "avisynth": "avs", "vapoursynth": "vpy", "concat": "ffconcat"}
    path = tmp_path / f"video.{own.get(kind, kind.split()[0]) if suffix == 'own' else suffix}"
    names = {
        "FILE": str(trap.secret),
        "URL": trap.url,
        "PORT": trap.url.split(":")[2].split("/")[0],
    }
    path.write_text(re.sub("FILE|URL|PORT", lambda name: names[name[0]], LISTS[kind]))
    assert any(word in refused(path) for word in ("playlist", "text", "its format is"))
    assert trap.untouched()


@pytest.mark.parametrize("make", ["alias", "url"])
def test_no_external_data_reference_of_a_movie_is_followed(tmp_path, trap, make):
    path = make_clip(tmp_path, name="video.mov", audio=False)
    entry = alias(trap.secret)
    if make == "url":
        entry = box(b"url ", bytes(4) + trap.url.encode() + b"\0")
    path.write_bytes(with_reference(path.read_bytes(), entry))
    if make == "alias":
        refused(path)
    else:
        taken(path)
    # ffmpeg reads a URL's samples from the video itself; nothing else is opened either way.
    assert trap.untouched()


def test_linked_segments_of_matroska_are_not_followed(tmp_path, trap):
    path = make_clip(tmp_path, name="video.mkv", audio=False)
    # PrevUID, NextUID, and the names of their files, in place of the title.
    linked = element(
        INFO,
        element(0x2AD7B1, 1_000_000),
        element(0x3CB923, bytes(16)),
        element(0x3C83AB, str(trap.secret)),
        element(0x3EB923, bytes(range(16))),
        element(0x3E83BB, trap.url),
    )
    path.write_bytes(EBML + element(SEGMENT, linked, element(TRACKS, track())))
    refused(path)
    assert trap.untouched()


def test_an_attachment_and_a_cover_are_written_nowhere_but_into_the_rendition(tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (tmp_path / "font").write_bytes(b"#!/bin/sh\n")
    ffmpeg("-f", "lavfi", "-i", "color=s=16x16", "-frames:v", "1", tmp_path / "cover.png")
    plain = make_clip(inside, name="plain.mkv")
    path = inside / "video.mkv"
    types = ["-metadata:s:t:0", "mimetype=application/x-truetype-font"]
    types += ["-metadata:s:t:0", "filename=../../evil.ttf"]
    types += ["-metadata:s:t:1", "mimetype=image/png", "-metadata:s:t:1", "filename=../../evil.png"]
    attached = ["-attach", tmp_path / "font", "-attach", tmp_path / "cover.png"]
    ffmpeg("-i", plain, *attached, *types, "-c", "copy", path)
    before = set(tmp_path.rglob("*"))

    ended = taken(path)

    assert ended.step == "", ended
    assert set(tmp_path.rglob("*")) - before == {
        inside / "made.mkv",
        inside / "made.mkv.thumbnails0",
    }


def test_a_picture_of_64k_by_64k_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "video.y4m"
    path.write_bytes(b"YUV4MPEG2 W65535 H65535 F25:1 C420\nFRAME\n" + bytes(4096))
    refused(path)

    path = tmp_path / "video.mkv"
    path.write_bytes(EBML + element(SEGMENT, element(INFO), element(TRACKS, track(65535, 65535))))
    refused(path)


def test_a_compressed_index_that_claims_4_gib_is_refused(tmp_path):
    path = tmp_path / "video.mov"
    bomb = struct.pack(">I", 0xFFFF_FFF0) + zlib.compress(bytes(40_000_000), 9)
    index = box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", bomb)))
    kind = box(b"ftyp", b"qt  " + bytes(4) + b"qt  ")
    path.write_bytes(kind + index + box(b"mdat", bytes(64)))
    refused(path)


def test_boxes_in_boxes_without_end_are_refused(tmp_path):
    path = tmp_path / "video.mp4"
    deep = b"".join(struct.pack(">I", 8 * (5_000 - depth)) + b"moov" for depth in range(5_000))
    path.write_bytes(box(b"ftyp", b"isom" + bytes(4) + b"isom") + deep)
    refused(path)


def test_tags_larger_than_any_answer_are_refused(tmp_path):
    path = tmp_path / "video.mkv"
    words = element(0x45A3, "X"), element(0x4487, b"\x01" * 14_000_000)
    tags = element(TAGS, element(TAG, element(SIMPLE, *words)))
    whole = make_clip(tmp_path, name="plain.mkv").read_bytes()
    path.write_bytes(whole + tags)
    ended = taken(path)
    assert ended.step in {"", "probe"}, ended
    body = element(SEGMENT, element(INFO), element(TRACKS, track()), tags)
    path.with_name("made.mkv").unlink(missing_ok=True)
    path.write_bytes(EBML + body)
    refused(path)


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
    assert probed(made).tags["title"] == TITLE
    names = {plain.name, source.name, made.name, f"{made.name}.thumbnails0"}
    assert {path.name for path in tmp_path.iterdir()} == names
