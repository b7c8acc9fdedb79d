"""The libraries called in this process: whatever they answer, facts or `Unsure`, and all is freed."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from hevcq.ffmpeg.inputs import DEMUXERS
from hevcq.ffmpeg.probe import demuxer, libav
from hevcq.ffmpeg.probe.demuxer import decode_sound, facts_of, frames_of, packet_lines
from hevcq.ffmpeg.probe.libav import (
    CORRUPT,
    END_OF_FILE,
    NO_TIME,
    TRY_AGAIN,
    Decoders,
    Libraries,
    OpenFile,
    Ratio,
    Unsure,
    side_data,
)
from support.clips import make_clip

QUESTION = {"name": b"file:clip.mkv".hex(), "formats": DEMUXERS}


@pytest.fixture(scope="module")
def av() -> Libraries:
    try:
        loaded = Libraries()
    except (OSError, Unsure) as error:
        pytest.skip(f"this machine has other libraries than those of ffmpeg 5.1: {error}")
    loaded.av_log_set_level(-8)
    return loaded


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A clip whose pictures have to be decoded, with sound."""
    folder = tmp_path_factory.mktemp("libav")
    return make_clip(folder, name="clip.mkv", codec="mpeg4", size="64x64", seconds=0.4)


class Failing:
    """The libraries, but for functions that answer otherwise."""

    def __init__(self, av: Libraries, **answers: Any) -> None:
        self._av, self._answers = av, answers

    def __getattr__(self, name: str) -> Any:
        if name in self._answers:
            return Mock(side_effect=lambda *_: self._answers[name])
        return getattr(self._av, name)


def opened(av: Any, clip: Path) -> OpenFile:
    return OpenFile(av, os.open(clip, os.O_RDONLY), QUESTION)


@pytest.fixture
def file(av, clip) -> Iterator[OpenFile]:
    made = opened(av, clip)
    yield made
    made.close()


def look(file: OpenFile) -> dict[str, Any]:
    frames = frames_of(file, [(0, 30)], None, nokey=False)
    return {**facts_of(file), "frames": frames}


@pytest.mark.parametrize(
    ("function", "answer", "why"),
    [
        ("avio_alloc_context", None, "^$"),
        ("avformat_open_input", -1, "avformat_open_input answered -1"),
        ("avformat_find_stream_info", -1, "avformat_find_stream_info answered -1"),
        ("avformat_seek_file", -1, "seeking failed"),
        ("av_read_frame", -5, "av_read_frame answered -5"),
        ("av_packet_clone", None, "^$"),
        ("avcodec_find_decoder", None, "no decoder"),
        ("avcodec_open2", -1, "the decoder cannot be opened"),
        ("avcodec_send_packet", -1, "a packet cannot be decoded"),
        ("avcodec_receive_frame", -1, "a frame cannot be decoded"),
        ("avcodec_descriptor_get", None, "the codec  was not compared"),
        ("av_get_pix_fmt_name", None, "the picture's format is not known"),
    ],
)
def test_a_function_that_fails_leaves_the_file_to_ffprobe(av, clip, function, answer, why):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((Unsure, MemoryError), match=why):  # noqa: PT012 - whichever call it is
        file = opened(Failing(av, **{function: answer}), clip)
        try:
            look(file)
        finally:
            file.close()
    assert len(os.listdir("/proc/self/fd")) == before


def change(**fields: Any) -> Callable[[Any], None]:
    return lambda target: [setattr(target, name, value) for name, value in fields.items()]


@pytest.mark.parametrize(
    ("where", "index", "fields", "why"),
    [
        ("streams", 0, {"disposition": 0x1000}, "a disposition is not known"),
        ("parameters", 0, {"width": 0}, "the picture's format is not known"),
        ("parameters", 0, {"codec_id": 0}, "the codec  was not compared|the codec none"),
    ],
)
def test_facts_that_ffprobe_may_print_otherwise_are_left_to_it(file, where, index, fields, why):
    change(**fields)(getattr(file, where)[index])
    with pytest.raises(Unsure, match=why):
        facts_of(file)


def test_facts_that_a_file_does_not_hold_are_left_out(av, clip):
    file = opened(Failing(av, av_guess_sample_aspect_ratio=Ratio(0, 1)), clip)
    file.format.duration = file.format.start_time = NO_TIME
    file.format.bit_rate = 0
    change(sample_rate=8000, format=-1, layout_order=0, profile=7)(file.parameters[1])
    change(field_order=2, profile=-99)(file.parameters[0])
    found = look(file)
    assert not {"duration", "start_time", "bit_rate"} & set(found["format"])
    picture, sound = found["streams"]
    assert not {"sample_fmt", "channel_layout"} & set(sound)
    assert (sound["sample_rate"], sound["profile"]) == ("8000", "7")
    assert not {"sample_aspect_ratio", "profile"} & set(picture)
    assert picture["field_order"] == "tt"
    assert all("sample_aspect_ratio" not in frame for frame in found["frames"])
    file.parameters[1].codec_type = -1
    assert "codec_type" not in facts_of(file)["streams"][1]
    file.close()


def test_a_broken_disk_is_no_end_of_the_file(file):
    real, file.descriptor = file.descriptor, -1
    room = ctypes.create_string_buffer(10)
    assert file._read(None, ctypes.addressof(room), 10) == libav.IO_ERROR
    assert (file._seek(None, -1, 0), file._seek(None, 5, 0), file._seek(None, 0, 2)) == (
        -22, 5, file.size,
    )  # fmt: skip
    with pytest.raises(Unsure, match="av_read_frame"):
        list(file.packets())
    file.descriptor = real


def test_packets_of_other_streams_are_passed_over_and_a_new_stream_is_left_to_ffprobe(file):
    sent: list[bytes] = []
    question = {"stream": 1, "named": "", "hashed": True}
    assert packet_lines(file, question, sent.append) == b"".join(sent).count(b"\n") > 0
    file.again()
    file.only(None)
    with file.kept(0, 3) as kept:
        assert [index for index, _ in kept] == [0, 0, 0]
    file.again()
    file.streams.pop()
    with pytest.raises(Unsure, match="a stream appeared later"):
        list(file.packets())


SOUND = {"stream_index": 0, "dts": 5, "flags": 0}


@pytest.mark.parametrize(
    ("packets", "decoded", "why"),
    [
        ([SOUND, {**SOUND, "dts": 6}], [0], ""),
        ([SOUND, {**SOUND, "dts": 4}], [0], "not in the order"),
        ([{**SOUND, "dts": NO_TIME}], [0], "not in the order"),
        ([{**SOUND, "flags": CORRUPT}], [0], "is corrupt"),
        ([SOUND], [], "a track holds no sound"),
    ],
)
def test_sound_counts_only_where_every_packet_is_as_it_should_be(
    monkeypatch, packets, decoded, why
):
    decoders = Mock(open=decoded)
    decoders.feed.return_value = decoders.flush.return_value = ["a frame"]
    monkeypatch.setattr(demuxer, "Decoders", Mock(return_value=decoders))
    file: Any = SimpleNamespace(
        streams=[Mock(discard=0), Mock(discard=0)],
        parameters=[SimpleNamespace(codec_type=1), SimpleNamespace(codec_type=0)],
        packets=lambda: [SimpleNamespace(**packet) for packet in packets],
        packet=None,
    )
    if why:
        with pytest.raises(Unsure, match=why):
            decode_sound(file)
    else:
        assert decode_sound(file) == len(packets)
    assert [stream.discard for stream in file.streams] == [0, libav.DISCARD_ALL]
    assert decoders.close.called


@pytest.mark.parametrize(
    ("sends", "receives", "frames"),
    [
        ([0], [0, 0, TRY_AGAIN], 2),
        ([TRY_AGAIN, 0], [0, TRY_AGAIN], 1),
        ([TRY_AGAIN, 0], [TRY_AGAIN, TRY_AGAIN], 0),
        ([END_OF_FILE], [0, END_OF_FILE], 1),
    ],
)
def test_a_decoder_is_fed_and_emptied_as_ffprobe_does(sends, receives, frames):
    av = Mock(**{
        "avcodec_send_packet.side_effect": sends, "avcodec_receive_frame.side_effect": receives,
    })  # fmt: skip
    kinds = [SimpleNamespace(codec_type=0), SimpleNamespace(codec_type=1)]
    decoders = Decoders(SimpleNamespace(av=av, parameters=kinds, frame=None), 0, {})  # type: ignore[arg-type]
    decoders.open = {0: Mock()}
    assert list(decoders.feed(1, None)) == []
    assert list(decoders.feed(0, None)) == [0] * frames
    assert (av.avcodec_send_packet.call_count, av.avcodec_receive_frame.call_count) == (
        len(sends), len(receives),
    )  # fmt: skip


def made(kind: str) -> bytes:
    numbers = {
        "matrix": [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], "dolby": [0, 4 << 24],
        "light": [1000, 400], "mastering": [*range(20), 1, 0], "": [],
    }  # fmt: skip
    return b"".join(number.to_bytes(4, "little", signed=True) for number in numbers[kind])


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("dolby", {"dv_bl_signal_compatibility_id": 4}),
        ("light", {"max_content": 1000, "max_average": 400}),
        ("mastering", {"red_x": "0/1", "white_point_y": "14/15"}),
        ("matrix", {"rotation": -90}),
        ("", {}),
    ],
)
def test_side_data_is_read_unless_it_is_too_short(kind, found):
    av: Any = Mock(**{"av_display_rotation_get.return_value": -90.0})
    room = ctypes.create_string_buffer(made(kind), max(1, len(made(kind))))
    held = {"data": ctypes.addressof(room), "type": 5}
    read = side_data(av, kind, SimpleNamespace(size=len(made(kind)), **held))
    assert {name: read[name] for name in found} == found
    assert ("min_luminance" in read, len(read) == 8) == (False, kind == "mastering")
    with pytest.raises(Unsure, match="there is side data 5"):
        side_data(av, kind or None, SimpleNamespace(size=len(made(kind)) - 1, **held))


def test_a_matrix_that_turns_nothing_and_luminance_alone(av):
    room = ctypes.create_string_buffer(made("mastering")[:80] + bytes(4) + b"\1\0\0\0")
    held = SimpleNamespace(data=ctypes.addressof(room), size=88, type=20)
    assert side_data(av, "mastering", held) == {
        "min_luminance": "16/17", "max_luminance": "18/19",
    }  # fmt: skip
    none: Any = Mock(**{"av_display_rotation_get.return_value": math.nan})
    assert side_data(none, "matrix", held)["rotation"] == 0
    assert (libav.text(None), libav.text(b"x")) == ("unknown", "x")


@pytest.mark.parametrize(
    ("codec", "order", "why"),
    [((59 << 16) | (36 << 8), "little", "older than"), (59 << 16, "big", "for 64 bits")],
)
def test_libraries_of_another_layout_are_not_read(monkeypatch, codec, order, why):
    monkeypatch.setattr(libav.ctypes, "CDLL", lambda _: Mock(spec=["avcodec_version"]))
    monkeypatch.setattr(sys, "byteorder", order)
    monkeypatch.setattr(Libraries, "avcodec_version", lambda _: codec, raising=False)
    with pytest.raises(Unsure, match=why):
        Libraries()


def test_a_function_that_no_library_has_is_left_to_ffprobe(av):
    with pytest.raises(Unsure, match="no library has av_none"):
        _ = av.av_none
