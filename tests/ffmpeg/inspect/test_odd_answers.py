"""What programs answer of odd sources, and sources whose bytes are odd, are read for what they are."""

import struct
from contextlib import nullcontext

import pytest

from ffmpeg.inspect.test_made_recordings import PROGRAM, STOP, TOOLS, info
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind, TrackMeasure
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.inspect import damage as damages
from hevcq.ffmpeg.inspect import preflight, texts
from hevcq.ffmpeg.process.child import Finished
from hevcq.ports.catalog import Spot
from support.media_facts import profile, video

URL = "relay+http://127.0.0.1:9/a.ts?secret"
BAD = "[h264 @ 0x1] error while decoding MB 3 4"


def frame(stream: int, time: str, place: int, message: str = "") -> str:
    said = f"|message={message}" if message else ""
    return f"frame|stream_index={stream}|best_effort_timestamp_time={time}|pkt_pos={place}{said}\n"


def sound(time: str, place: int) -> str:
    return f"packet|codec_type=audio|stream_index=1|pts_time={time}|pos={place}\n"


@pytest.mark.parametrize(
    ("lines", "complaints", "spots"),
    [
        ([], (), ()),
        ([frame(0, "0.5", 100), "packet|codec_type=video|stream_index=0\n"], (), ()),
        ([frame(0, "N/A", 100, BAD)], (), (Spot(None, 100, BAD[13:]),)),
        ([frame(0, f"{n}", n, BAD) for n in range(30)], (), tuple(Spot(n, n, BAD[13:]) for n in range(20))),
        ([frame(0, "1.0", 7, BAD), frame(0, "1.9", 8, BAD)], (), (Spot(1.0, 7, BAD[13:]),)),
        (
            [sound("0.1", 1), frame(1, "0.1", 1), sound("0.2", 2), sound("0.3", 3), frame(1, "0.3", 3).strip()],
            (),
            (Spot(0.2, 2, damages.NO_SOUND),),
        ),
        ([sound("0.1", 1), sound("0.2", 2), frame(1, "0.2", 2)], (), ()),
        ([frame(0, "2.5", 90), frame(0, "2.4", 80)], ("[mov @ 0x1] partial file",), (Spot(2.5, 90, "partial file"),)),
        ([frame(0, "1", 7, BAD)], ("partial file",), (Spot(1.0, 7, BAD[13:]),)),
    ],
    ids=["empty", "sound file", "no time", "many", "near", "mute", "primed", "cut", "cut and broken"],
)  # fmt: skip
def test_damage_is_where_a_frame_complains(monkeypatch, lines, complaints, spots) -> None:
    def read_packets(_tools, _location, _show, on_line, _stop, *, packets_seen):
        for line in "".join(lines).splitlines():
            on_line(line)
        assert packets_seen()
        return complaints

    monkeypatch.setattr(damages, "read_packets", read_packets)

    assert damages.locate_damage(TOOLS, "a.mkv", STOP) == spots


HELLO = "WEBVTT\n\n00:01.000 --> 00:02.000\n<b>HELLO</b>\nYOU\n\n01:00:03.000 --> 01:00:04.000\n\n"
MORE = "00:05.000 --> 00:06.000\nAND YOU\n\n"


@pytest.mark.parametrize(
    ("made", "problems"),
    [
        (HELLO, []),
        (HELLO.replace("1.000", "1.015"), []),
        ("WEBVTT\n", ["captions CC1: 0 captions of 1"]),
        (HELLO + MORE, ["captions CC1: 2 captions of 1"]),
        (HELLO.replace("1.000", "1.030"), ["captions CC1: its captions are +0.030 s off the source's"]),
    ],
    ids=["same", "rounded", "empty", "two", "late"],
)  # fmt: skip
def test_a_text_track_is_compared_with_the_captions(monkeypatch, made, problems) -> None:
    answers = (Finished(0, text.encode(), (), 0, 0) for text in (HELLO, made))
    monkeypatch.setattr(texts, "run_child", lambda *_, **__: next(answers))
    source = texts.CaptionedVideo("a.ts", info(video()), 0)

    found = texts.caption_problems(TOOLS, source, "a.mp4", {"CC1": 2}, 0.0, STOP)

    assert list(found) == problems


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (tuple(1001 * n for n in range(40)), ""),
        (tuple(1001 * n + n % 2 * 200 for n in range(40)), ""),
        ((0, 500, 9000), "shown at uneven times"),
        ((), "shown at uneven times"),
    ],
    ids=["even", "rounded", "uneven", "unknown"],
)
def test_a_telecine_at_uneven_times_is_not_inverted(times, said) -> None:
    facts = {"field_order": "tt", "telecined": True, "average_rate": "30000/1001"}
    pulled = info(video(720, 480, time_base="1/30000", **facts))
    track = TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=len(times), times=times)
    measured, asked = Measurement(tracks=(track,)), profile("hevc", video={"invert_telecine": True})

    with pytest.raises(MediaRefused, match=said) if said else nullcontext():
        preflight.require_even_film("a.mkv", pulled, measured, asked)
    preflight.require_even_film("a.mkv", pulled, measured, profile("hevc"))


def asf(flags: int = 0, sizes: tuple[int, int] = (8, 8), count: int = 2, packets: int = 2) -> bytes:
    facts = damages.FILE + bytes(72) + struct.pack("<III", flags, *sizes) + bytes(16)
    length = 50 + packets * 8
    data = damages.DATA + struct.pack("<Q", length) + bytes(16) + struct.pack("<Q", count)
    return facts + data + bytes(2) + b"\x82".ljust(8, b"x") * packets


@pytest.mark.parametrize(
    ("data", "damage"),
    [
        (asf(), ""),
        (asf(count=3), "1 of its 3 data packets are missing"),
        (asf(count=3, flags=1), ""),
        (asf(count=3, sizes=(8, 9)), ""),
        (asf(count=3)[:100], ""),
    ],
    ids=["whole", "lost", "live", "uneven", "no data"],
)
def test_an_asf_is_held_against_the_packets_it_promises(tmp_path, data, damage) -> None:
    path = tmp_path / "a.wmv"
    path.write_bytes(data)
    facts = MediaInfo(streams=(), **{**PROGRAM, "format_name": "asf"})

    assert damages.index_damage(str(path), facts, Measurement(tracks=())) == damage
    assert damages.index_damage(URL, facts, Measurement(tracks=())) == ""
