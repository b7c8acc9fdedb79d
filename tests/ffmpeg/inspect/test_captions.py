"""Closed captions become text tracks where the encoder cannot carry them, and the gates read both."""

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffmpeg.probe.test_network import Shelf
from ffmpeg.run.test_formats import ENCODER, Made, complaints, encoded
from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.media.facts import StreamKind
from hevcq.errors import MediaRefused, Unavailable
from hevcq.ffmpeg.inspect.texts import CaptionedVideo, extracted_captions, find_caption_channels
from support.media_facts import profile
from support.once import folder_once
from support.rendition import TOOLS

NOTHING = b"\x00\x00"
START = re.compile(rb"\x00\x00\x00?\x01")
Pairs = list[bytes]


def shown(*lines: str, channel: int = 1) -> Pairs:
    """Return the pairs of a caption of up to two lines that appears as a whole."""
    pairs = [command(0x20, channel)] * 2
    for row, line in enumerate(lines):
        pairs += [command(0x50 + 0x20 * row, channel)] * 2
        pairs += letters(line)
    return pairs + [command(0x2F, channel)] * 2


def rolled(line: str, channel: int = 1) -> Pairs:
    """Return the pairs of a line that is written at once, below one that rolls up."""
    start = [command(low, channel) for low in (0x25, 0x25, 0x2D, 0x2D, 0x50, 0x50)]
    return start + letters(line)


def erased(channel: int = 1) -> Pairs:
    """Return the pairs that erase what is shown."""
    return [command(0x2C, channel)] * 2


def command(low: int, channel: int = 1) -> bytes:
    """Return a command of a channel, 1 to 4."""
    # Commands of the second field have a number of their own; places have the same in both.
    number = 0x15 if channel > 2 and low < 0x40 else 0x14
    return bytes([number | (8 if channel in {2, 4} else 0), low])


def letters(text: str) -> Pairs:
    """Return the pairs of plain letters."""
    raw = text.encode("ascii")
    raw += bytes(len(raw) % 2)
    return [raw[at : at + 2] for at in range(0, len(raw), 2)]


def at_frame(*placed: tuple[int, Pairs]) -> Pairs:
    """Return one pair a frame: each list from its frame on, and nothing between."""
    pairs: Pairs = []
    for frame, some in placed:
        pairs += [NOTHING] * (frame - len(pairs)) + some
    return pairs


def captioned(
    path: Path,
    first: Pairs,
    second: Sequence[bytes] = (),
    *,
    digital: bytes = b"",
    seconds: float = 4,
    rate: str = "25",
    options: Sequence[str] = ("-bf", "0"),
) -> Path:
    """Write H.264 of `rate` pictures a second with a tone, whose fields carry these pairs.

    `digital` is a packet of CEA-708 of two bytes for the first picture.
    """
    bare, marked = path.with_suffix(".bare.h264"), path.with_suffix(".cc.h264")
    picture = f"testsrc2=size=160x90:rate={rate}:duration={seconds}"
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
           "-g", "25", *options, "-x264-params", "aud=1", bare)  # fmt: skip
    marked.write_bytes(with_user_data(bare.read_bytes(), first, second, digital))
    ffmpeg("-f", "h264", "-r", rate, "-i", marked, "-f", "lavfi", "-i",
           f"sine=frequency=440:duration={seconds}", "-c:v", "copy", "-c:a", "aac", "-metadata:s:a:0",
           "language=eng", path)  # fmt: skip
    bare.unlink()
    marked.unlink()
    return path


def with_user_data(
    stream: bytes, first: Pairs, second: Sequence[bytes] = (), digital: bytes = b""
) -> bytes:
    """Put a message with caption data in front of the first slice of each picture."""
    made, picture, waits = [], 0, False
    units = [part for part in START.split(stream) if part]
    for unit in units:
        kind = unit[0] & 0x1F
        waits = waits or kind == 9
        if waits and kind in {1, 5}:
            triplets = [
                b"\xfc" + with_parity(_at(first, picture)),
                b"\xfd" + with_parity(_at(second, picture)),
            ]
            triplets += [b"\xff" + digital] if digital and picture == 0 else []
            made.append(message(triplets))
            picture, waits = picture + 1, False
        made.append(unit)
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in made)


def _at(pairs: Sequence[bytes], place: int) -> bytes:
    return pairs[place] if place < len(pairs) else NOTHING


def with_parity(pair: bytes) -> bytes:
    """Return a pair with the bit that makes the number of ones odd."""
    return bytes(byte | (0 if byte.bit_count() % 2 else 0x80) for byte in pair)


def message(triplets: Sequence[bytes]) -> bytes:
    """Return a NAL unit: SEI payload 4 (ITU-T T.35), A/53 `GA94`, caption data."""
    head = b"\xb5\x00\x31GA94\x03" + bytes([0xC0 | len(triplets)]) + b"\xff"
    payload = head + b"".join(triplets) + b"\xff"
    return b"\x06\x04" + bytes([len(payload)]) + payload + b"\x80"


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


def test_captions_that_are_in_cea_708_alone_are_refused_before_the_encode(tmp_path):
    digital = captioned(tmp_path / "digital.mp4", [], digital=b"\x02\x21", seconds=1)
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
            find_caption_channels(TOOLS, CaptionedVideo(url, info, 0), threading.Event())
