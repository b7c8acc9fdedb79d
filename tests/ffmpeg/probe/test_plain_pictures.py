"""Which pictures need not be decoded to know what they are: a list of what is allowed, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hevcq.ffmpeg.probe.plain_pictures import PlainPictures, is_progressive
from support.clips import make_clip


def units(folder: Path, **options: object) -> list[bytes]:
    """Return the units of a clip's first picture."""
    clip = make_clip(folder, name="clip.mkv", audio=False, seconds=0.2, **options)
    name = "hevc" if options.get("codec") == "libx265" else "h264"
    copied = ["-c", "copy", "-frames:v", "1", "-bsf:v", f"{name}_mp4toannexb", "-f", name, "-"]
    made = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", clip, *copied], check=True, capture_output=True
    ).stdout
    return [unit.rstrip(b"\0") for unit in made.split(b"\0\0\1") if unit.strip(b"\0")]


def packet(*found: bytes) -> memoryview:
    return memoryview(b"".join(len(unit).to_bytes(4, "big") + unit for unit in found))


def avc(*headers: bytes) -> bytes:
    sequences = [unit for unit in headers if unit[0] & 31 == 7]
    pictures = [unit for unit in headers if unit[0] & 31 == 8]
    told = bytes([1, 100, 0, 30, 0xFF])
    for mask, some in ((0xE0, sequences), (0, pictures)):
        told += bytes([mask | len(some)])
        told += b"".join(len(unit).to_bytes(2, "big") + unit for unit in some)
    return told


def message(kind: int, size: int = 3) -> bytes:
    return bytes([6, kind, size]) + bytes(size) + b"\x80"


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> dict[int, bytes]:
    found = units(tmp_path_factory.mktemp("h264"))
    return {unit[0] & 31: unit for unit in found}


@pytest.fixture(scope="module")
def plain(frame) -> PlainPictures:
    return PlainPictures("h264", avc(frame[7], frame[8]))


def test_a_picture_with_an_encoders_note_and_the_known_headers_is_plain(frame, plain):
    assert plain.are_plain(packet(frame[5]))
    assert plain.are_plain(packet(b"\x09\xf0", frame[7], frame[8], frame[6], frame[5]))


@pytest.mark.parametrize("kind", [1, 4, 45, 47, 137, 144, 147, 0xFE])
def test_any_other_message_is_decoded(frame, plain, kind):
    assert not plain.are_plain(packet(message(kind), frame[5]))
    assert not plain.are_plain(packet(message(5), message(kind), frame[5]))


@pytest.mark.parametrize("kind", [2, 3, 4, 14, 15, 20, 30])
def test_any_other_unit_is_decoded(frame, plain, kind):
    assert not plain.are_plain(packet(bytes([kind, 0, 0]), frame[5]))


def test_a_message_behind_a_plain_one_in_the_same_unit_is_seen(frame, plain):
    both = bytes([6, 5, 1, 0, 4, 1, 0, 0x80])
    assert not plain.are_plain(packet(both, frame[5]))


def test_another_sequence_is_decoded(frame, plain):
    assert not plain.are_plain(packet(frame[7][:-1] + b"\x00\x01", frame[5]))


def test_interlaced_h264_is_not_plain(tmp_path):
    found = {unit[0] & 31: unit for unit in units(tmp_path, extra=("-flags", "+ildct+ilme"))}
    assert not is_progressive(found[7])
    plain = PlainPictures("h264", avc(found[7], found[8]))
    assert not plain.are_plain(packet(found[5]))


@pytest.mark.parametrize(
    ("profile", "order", "whole"),
    [
        (66, "10101", True),  # order 0 with its number of bits
        (66, "10100", False),
        (66, "0111", True),  # order 2 has none
        (66, "0101", False),  # order 1 is long
        (100, "10101", True),
        (244, "10101", True),
    ],
)
def test_whole_frames_are_found_behind_every_kind_of_header(profile, order, whole):
    chroma = {66: "", 100: "0101100", 244: "0010001100"}[profile]
    order, frames = order[:-1], order[-1]
    bits = f"{profile:08b}{0:016b}1{chroma}1{order}{'1011'}{frames}"
    sequence = bytes([7]) + int(f"{bits:0<64}", 2).to_bytes(8, "big")
    assert is_progressive(sequence) is whole
    scaled = bits.replace(f"1{chroma}1", f"1{chroma[:-1]}11", 1)
    assert not chroma or not is_progressive(
        bytes([7]) + int(f"{scaled:0<64}", 2).to_bytes(8, "big")
    )


def test_two_sequences_or_none_or_another_codec_are_not_plain(frame):
    for codec, header in (
        ("h264", avc(frame[7], frame[7], frame[8])),
        ("h264", avc(frame[8])),
        ("h264", b"\0\0\1" + frame[7]),
        ("h264", b""),
        ("mpeg4", avc(frame[7], frame[8])),
    ):
        assert not PlainPictures(codec, header).are_plain(packet(frame[5]))


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_packet_that_is_cut_is_not_plain(frame, plain, cut):
    whole = packet(frame[6], frame[5])
    assert not plain.are_plain(whole[:-cut])
    assert not plain.are_plain(memoryview(bytes(whole) + b"\0" * cut))
    assert not plain.are_plain(memoryview(b""))


def test_hevc_is_plain_without_messages_about_the_picture(tmp_path):
    found = units(tmp_path, codec="libx265", extra=("-x265-params", "log-level=none"))
    kinds = {unit[0] >> 1 & 63: unit for unit in found}
    header = bytes([1]) + bytes(20) + b"\xff"
    arrays = [kinds[32], kinds[33], kinds[34], kinds[39]]
    header += bytes([len(arrays)])
    for unit in arrays:
        header += bytes([unit[0] >> 1, 0, 1]) + len(unit).to_bytes(2, "big") + unit
    plain = PlainPictures("hevc", header)
    picture = next(unit for kind, unit in kinds.items() if kind < 32)
    assert plain.are_plain(packet(picture))
    assert plain.are_plain(packet(kinds[33], kinds[39], picture))
    for other in (
        bytes([39 << 1, 1, 4, 1, 0, 0x80]),
        bytes([62 << 1, 1, 0]),
        bytes([39 << 1, 1, 1, 0]),
    ):
        assert not plain.are_plain(packet(other, picture))
    upper = bytes([picture[0], picture[1] | 8]) + picture[2:]
    assert not plain.are_plain(packet(upper))
    told = header.replace(kinds[39], kinds[39][:2] + bytes([137]) + kinds[39][3:])
    assert not PlainPictures("hevc", told).are_plain(packet(picture))


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from(["h264", "hevc"]))
def test_no_header_and_no_packet_is_a_crash(header, data, codec):
    PlainPictures(codec, b"\1" + header).are_plain(memoryview(data))
