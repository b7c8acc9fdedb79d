"""The libraries called in this process: whatever they answer, facts or `Unsure`, and all is freed."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from hevcq.ffmpeg.inputs import DEMUXERS
from hevcq.ffmpeg.probe import demuxer, libav
from hevcq.ffmpeg.probe.demuxer import facts_of, frames_of, packet_lines
from hevcq.ffmpeg.probe.libav import Libraries, OpenFile, Ratio, Unsure
from support.clips import make_clip

AGAIN = libav.TRY_AGAIN
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
        answer = self._answers
        return (lambda *_: answer[name]) if name in answer else getattr(self._av, name)


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


@pytest.mark.parametrize(
    ("where", "name", "value", "why"),
    [
        ("streams", "disposition", 0x1000, "a disposition is not known"),
        ("parameters", "width", 0, "the picture's format is not known"),
        ("parameters", "codec_id", 0, "the codec  was not compared|the codec none"),
    ],
)
def test_facts_that_ffprobe_may_print_otherwise_are_left_to_it(file, where, name, value, why):
    setattr(getattr(file, where)[0], name, value)
    with pytest.raises(Unsure, match=why):
        facts_of(file)


def test_facts_that_a_file_does_not_hold_are_left_out(av, clip):
    file = opened(Failing(av, av_guess_sample_aspect_ratio=Ratio(0, 1)), clip)
    picture, sound = file.parameters
    file.format.duration = file.format.start_time = libav.NO_TIME
    file.format.bit_rate = sound.layout_order = 0
    sound.format, sound.profile, picture.profile, picture.field_order = -1, 7, -99, 2
    found = look(file)
    assert not {"duration", "start_time", "bit_rate"} & set(found["format"])
    first, second = found["streams"]
    assert not {"sample_fmt", "channel_layout"} & set(second)
    assert not {"sample_aspect_ratio", "profile"} & set(first)
    assert (first["field_order"], second["profile"]) == ("tt", "7")
    assert all("sample_aspect_ratio" not in frame for frame in found["frames"])
    sound.codec_type = -1
    assert "codec_type" not in facts_of(file)["streams"][1]
    file.close()


def test_a_broken_disk_is_no_end_of_the_file(file):
    real, file.descriptor = file.descriptor, -1
    room = ctypes.create_string_buffer(10)
    assert file._read(None, ctypes.addressof(room), 10) == libav.IO_ERROR
    asked = (file._seek(None, at, how) for at, how in ((-1, 0), (5, 0), (0, 2)))
    assert list(asked) == [-22, 5, file.size]
    file.descriptor = real
    file.again()
    with pytest.raises(Unsure, match="av_read_frame"):
        list(file.packets())  # though avformat took it for the end


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


@pytest.mark.parametrize(
    ("times", "flags", "decoded", "why"),
    [
        ([5, 6], 0, [0], ""), ([5, 4], 0, [0], "not in the order"), ([5], 0, [], "holds no sound"),
        ([libav.NO_TIME], 0, [0], "not in the order"), ([5], libav.CORRUPT, [0], "is corrupt"),
    ],
)  # fmt: skip
def test_sound_counts_only_where_every_packet_is_as_it_should_be(
    monkeypatch, times, flags, decoded, why
):
    decoders = Mock(open=decoded)
    decoders.feed.return_value = decoders.flush.return_value = ["a frame"]
    monkeypatch.setattr(demuxer, "Decoders", Mock(return_value=decoders))
    packets = [SimpleNamespace(stream_index=0, dts=time, flags=flags) for time in times]
    kinds = [SimpleNamespace(codec_type=kind) for kind in (1, 0)]
    file: Any = Mock(streams=[Mock(discard=0), Mock(discard=0)], parameters=kinds)
    file.packets.return_value = packets
    with pytest.raises(Unsure, match=why) if why else nullcontext():
        assert demuxer.decode_sound(file) == len(packets)
    assert [stream.discard for stream in file.streams] == [0, libav.DISCARD_ALL]
    assert decoders.close.called


@pytest.mark.parametrize(
    ("sends", "receives", "frames"),
    [
        ([0], [0, 0, AGAIN], 2), ([AGAIN, 0], [0, AGAIN], 1), ([AGAIN, 0], [AGAIN, AGAIN], 0),
        ([libav.END_OF_FILE], [0, libav.END_OF_FILE], 1),
    ],
)  # fmt: skip
def test_a_decoder_is_fed_and_emptied_as_ffprobe_does(sends, receives, frames):
    send, receive = Mock(side_effect=sends), Mock(side_effect=receives)
    kinds = [SimpleNamespace(codec_type=0), SimpleNamespace(codec_type=1)]
    file: Any = Mock(parameters=kinds)
    file.av.avcodec_send_packet, file.av.avcodec_receive_frame = send, receive
    decoders = libav.Decoders(file, 0, {})
    decoders.open = {0: Mock()}
    assert (list(decoders.feed(1, None)), list(decoders.feed(0, None))) == ([], [0] * frames)
    assert (send.call_count, receive.call_count) == (len(sends), len(receives))


@pytest.mark.parametrize(
    ("kind", "numbers", "found"),
    [
        ("dolby", [0, 4 << 24], {"dv_bl_signal_compatibility_id": 4}),
        ("light", [1000, 400], {"max_content": 1000, "max_average": 400}),
        ("mastering", [*range(20), 1, 0], {"red_x": "0/1", "white_point_y": "14/15"}),
        ("mastering", [*range(20), 0, 1], {"min_luminance": "16/17", "max_luminance": "18/19"}),
        ("matrix", [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], {"rotation": -90}),
        ("matrix", [0] * 9, {"rotation": 0}),
        ("", [], {}),
    ],
)
def test_side_data_is_read_unless_it_is_too_short(kind, numbers, found):
    turned = found.get("rotation") or math.nan
    av: Any = Mock(**{"av_display_rotation_get.return_value": turned})
    stored = b"".join(number.to_bytes(4, "little", signed=True) for number in numbers)
    room = ctypes.create_string_buffer(stored, len(stored) + 1)
    data = SimpleNamespace(data=ctypes.addressof(room), type=5, size=len(stored))
    read = libav.side_data(av, kind, data)
    assert {name: read[name] for name in found} == found
    assert len(read) == (
        8 if "red_x" in found else 2 if found.get("rotation", 1) != 1 else len(found)
    )
    data.size -= 1
    with pytest.raises(Unsure, match="there is side data 5"):
        libav.side_data(av, kind or None, data)


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
