"""MPEG-4 in AVI whose packets are no pictures: packed B-frames of DivX, and pictures that were dropped.

ffmpeg 5.1 makes neither, so they are made here of what it encodes. In a packed file a P picture and
the B picture that is shown before it share a packet; the next packet holds a picture that is "not
coded" (N-VOP). The user data say so, which ffmpeg's filter mpeg4_unpack_bframes looks for.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ffmpeg.run.test_formats import complaints, encoded
from ffmpeg.verify.conftest import ENCODER, ffmpeg
from hevcq.errors import SourceDamaged
from support.media_facts import profile

START = b"\0\0\1\xb6"
NOT_CODED = START + int("0101000001001111", 2).to_bytes(2, "big")
"""A P picture at no later second, its time of 5 bits (25 a second), not coded, stuffing (14496-2, 6.2.5)."""
I_PICTURE, B_PICTURE = 0, 2
Chunk = tuple[bytes, bytes]


def chunks(body: bytes, at: int) -> Iterator[Chunk]:
    """Yield name and content of the chunks of a RIFF list."""
    while at + 8 <= len(body):
        size = struct.unpack_from("<I", body, at + 4)[0]
        yield body[at : at + 4], body[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def coding(packet: bytes) -> int:
    """Return how the first picture of a packet is coded; -1 if there is none."""
    at = packet.find(START)
    return packet[at + 4] >> 6 if at >= 0 else -1


def stored(found: list[Chunk]) -> bytes:
    """Return chunks as they are stored: with their size, and padded to even ones."""
    return b"".join(
        k + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for k, body in found
    )


def rewritten(source: Path, target: Path, change: Callable[[list[bytes]], None]) -> Path:
    """Write an AVI of DivX whose video packets were changed, with an index of its own."""
    data = source.read_bytes()
    own = data[data.index(b"Lavc") :][:13]
    top = list(chunks(data.replace(own, b"DivX503b1393p"), 12))
    (movi,) = (body for kind, body in top if kind == b"LIST" and body.startswith(b"movi"))
    inside = list(chunks(movi, 4))
    pictures = [body for kind, body in inside if kind == b"00dc"]
    change(pictures)
    left = iter(pictures)
    inside = [(kind, next(left) if kind == b"00dc" else body) for kind, body in inside]
    index, at = b"", 4
    for kind, body in inside:
        key = kind != b"00dc" or coding(body) == I_PICTURE
        index += struct.pack("<4s3I", kind, 0x10 if key else 0, at, len(body))
        at += 8 + len(body) + len(body) % 2
    rest = [each for each in top if each[0] not in {b"idx1", b"LIST"} or each[1][:4] == b"hdrl"]
    whole = stored([*rest, (b"LIST", b"movi" + stored(inside)), (b"idx1", index)])
    target.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(whole)) + b"AVI " + whole)
    return target


def pack(pictures: list[bytes]) -> None:
    """Put each B picture into the packet before it, as DivX does."""
    for place in range(1, len(pictures)):
        if coding(pictures[place]) == B_PICTURE:
            pictures[place - 1] += pictures[place]
            pictures[place] = NOT_CODED


def drop(pictures: list[bytes]) -> None:
    """Store three pictures as "not coded", as DivX and Xvid do with repeated ones."""
    for place in (10, 11, 20):
        pictures[place] = NOT_CODED


def divx(folder: Path, change: Callable[[list[bytes]], None], *options: str) -> Path:
    plain = folder / "plain.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=2,noise=alls=3",
           "-f", "lavfi", "-i", "sine=duration=2", "-c:v", "mpeg4", "-q:v", "3", "-g", "30", *options,
           "-vtag", "DX50", "-c:a", "libmp3lame", plain)  # fmt: skip
    return rewritten(plain, folder / "divx.avi", change)


@pytest.mark.parametrize(
    "name", ["hevc", *(pytest.param(n, marks=pytest.mark.slow) for n in ("720p", "mkv", "avi"))]
)
def test_packed_b_frames_are_encoded_picture_by_picture(name: str, tmp_path: Path) -> None:
    source = divx(tmp_path, pack, "-bf", "1")
    assert b"DivX503b1393p" in source.read_bytes()

    one = encoded(name, source, tmp_path)

    assert complaints(one.judge()) == []
    track = one.request.measured.track(0)
    assert track is not None
    assert track.tiny > 20, "packets that are not coded"
    assert (track.packets, one.request.report.frames) == (50, 50 if name != "avi" else 51)


@pytest.mark.parametrize("name", ["hevc", pytest.param("avi", marks=pytest.mark.slow)])
def test_pictures_that_are_not_coded_are_none_that_a_rendition_lacks(
    name: str, tmp_path: Path
) -> None:
    one = encoded(name, divx(tmp_path, drop, "-bf", "0"), tmp_path)

    assert complaints(one.judge()) == []
    track = one.request.measured.track(0)
    assert track is not None
    assert track.packets == 47
    if name == "hevc":
        assert one.request.report.frames == 47


def test_a_picture_that_is_lost_besides_is_still_damage(tmp_path: Path) -> None:
    source = divx(tmp_path, drop, "-bf", "0")
    content = bytearray(source.read_bytes())
    at = content.index(b"movi")
    for _ in range(31):
        at = content.index(b"00dc", at + 4)
    content[at : at + 4] = b"99xx"
    source.write_bytes(content)
    stop = threading.Event()
    info = ENCODER.probe(str(source), stop=stop)
    with pytest.raises(SourceDamaged, match="its index names 50 frames"):
        ENCODER.preflight(str(source), info, profile("hevc"), stop=stop)
