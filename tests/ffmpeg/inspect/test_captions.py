"""Closed captions become text tracks where the encoder cannot carry them, and the gates read both."""

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffmpeg.probe.test_network import Shelf
from ffmpeg.run.test_formats import ENCODER, Made, complaints, encoded
from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.media.facts import StreamKind
from hevcq.errors import MediaRefused, Unavailable
from hevcq.ffmpeg.inspect.texts import CaptionedVideo, extracted_captions, found_captions
from support.captions import (
    at_frame,
    captioned,
    erased,
    rolled,
    shown,
)
from support.media_facts import profile
from support.once import folder_once
from support.rendition import TOOLS

ENGLISH = at_frame((2, shown("HELLO WORLD")), (30, shown("It's TWO", "lines & < 3")), (60, erased()),
                   (70, shown("LAST ONE")))  # fmt: skip
ALSO = at_frame((10, rolled("HOLA MUNDO", 3)), (50, rolled("ADIOS", 3)), (80, erased(3)))


@pytest.fixture
def made() -> Made:
    def make(folder: Path) -> Made:
        source = captioned(folder / "it's [odd]: a, b; 100%\\ .mp4", ENGLISH, ALSO)
        return encoded("hevc", source, folder)

    return folder_once("captions", make)


@pytest.fixture
def source(made: Made) -> Path:
    return Path(made.request.location)


def texts(path: Path, track: int, folder: Path) -> list[str]:
    """Return the blocks of a text track, as another program reads it."""
    ffmpeg("-i", path, "-map", f"0:s:{track}", "-f", "srt", folder / "read.srt")
    return [
        " ".join(b.split("\n", 1)[1].split())
        for b in (folder / "read.srt").read_text().split("\n\n")
        if b
    ]


def test_captions_become_a_text_track_of_each_channel_with_the_times_of_their_pictures(
    made, tmp_path
):
    assert complaints(made.judge()) == []
    assert made.request.plan.captions == ("CC1", "CC3")
    assert any("become a text track" in notice for notice in made.request.plan.notices)
    found = [
        (s.codec, s.language, s.tags["handler_name"])
        for s in made.output.of_kind(StreamKind.SUBTITLE)
    ]
    assert found == [
        ("mov_text", "eng", "Closed captions (CC1)"),
        ("mov_text", "", "Closed captions (CC3)"),
    ]
    words = texts(made.request.output, 0, tmp_path)
    # Each appears with the first of the two commands that show it, and goes with the next.
    assert words == [
        "00:00:00,480 --> 00:00:01,840 HELLO WORLD",
        "00:00:01,840 --> 00:00:02,400 It’s TWO lines & < 3",
        "00:00:03,120 --> 00:00:03,840 LAST ONE",
    ]
    assert any("HOLA MUNDO" in block for block in texts(made.request.output, 1, tmp_path))


def test_a_cue_has_the_time_of_its_picture_to_the_millisecond(tmp_path):
    words = at_frame((1, shown("ONE")), (17, erased()))
    path = captioned(tmp_path / "ntsc.mp4", words, seconds=1, rate="30000/1001")
    stop = threading.Event()
    request = SimpleNamespace(
        info=ENCODER.probe(str(path), stop=stop),
        plan=SimpleNamespace(captions=("CC1",), main_video=SimpleNamespace(source_index=0)),
        location=str(path),
        output=tmp_path / "made.mp4",
    )

    with extracted_captions(TOOLS, request, stop) as (text,):
        cue = text.read_text().split("\n")[2]

    # Shown by the 8th picture and erased by the 18th; a picture lasts 1001/30000 s.
    assert cue == "00:00.234 --> 00:00.568"


def test_matroska_gets_them_as_subrip_before_its_attachments(source, tmp_path):
    mkv, font = tmp_path / "with-font.mkv", tmp_path / "a.ttf"
    font.write_bytes(b"not really a font")
    ffmpeg("-i", source, "-c", "copy", "-attach", font, "-metadata:s:t", "mimetype=application/x-truetype-font",
           mkv)  # fmt: skip

    one = encoded("hevc", mkv, tmp_path)

    assert complaints(one.judge()) == []
    assert [s.codec for s in one.output.of_kind(StreamKind.SUBTITLE)] == ["subrip", "subrip"]
    assert len(one.output.of_kind(StreamKind.ATTACHMENT)) == 1


def test_captions_without_a_word_leave_no_track_and_are_reported(tmp_path):
    empty = captioned(tmp_path / "empty.mp4", [], seconds=1)

    one = encoded("hevc", empty, tmp_path)

    assert complaints(one.judge()) == []
    assert one.output.of_kind(StreamKind.SUBTITLE) == ()
    assert "Its closed captions hold no text." in one.request.plan.notices


@pytest.fixture
def digital(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    return captioned(folder / "digital.mp4", [], digital=b"\x02\x21", seconds=1)


def test_captions_that_are_in_cea_708_alone_are_refused_before_the_encode(digital):
    info = ENCODER.probe(str(digital), stop=threading.Event())

    with pytest.raises(MediaRefused, match=r"digital\.mp4.*CEA-708 only.*closed_captions to drop"):
        ENCODER.preflight(str(digital), info, profile("hevc"), stop=threading.Event())


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("00:00:01,840 --", "00:00:01,910 --", "s off the source's"),
        ("LAST ONE", "", "2 captions of 3"),
    ],
    ids=["late", "lost"],
)
def test_the_gate_sees_a_late_cue_and_a_lost_one(made, tmp_path, old, new, complaint):
    srt, spoilt = tmp_path / "cc.srt", tmp_path / "spoilt.mp4"
    ffmpeg("-i", made.request.output, "-map", "0:s:0", srt)
    assert old in srt.read_text()
    srt.write_text(srt.read_text().replace(old, new))
    ffmpeg("-i", made.request.output, "-i", srt, "-map", "0:v", "-map", "0:a", "-map", "1:s", "-map", "0:s:1",
           "-c", "copy", "-c:s:0", "mov_text", "-metadata:s:s:0", "language=eng", spoilt)  # fmt: skip

    found = complaints(Made(replace(made.request, output=spoilt)).judge())

    assert any(complaint in each and "captions CC1" in each for each in found), found


def test_captions_that_a_lost_connection_cut_off_are_not_taken_for_all(source):
    shelf = Shelf(source.read_bytes())
    with shelf.open() as url:
        info = ENCODER.probe(url, stop=threading.Event())
        shelf.cut_after, shelf.cuts = len(shelf.content) // 3, 1000
        with pytest.raises(Unavailable):
            found_captions(TOOLS, CaptionedVideo(url, info, 0), threading.Event())
