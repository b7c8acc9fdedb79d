"""MPEG-4 in AVI whose packets are no pictures: packed B-frames of DivX, and pictures that were dropped.

ffmpeg 5.1 makes neither, so they are made here of what it encodes. In a packed file a P picture and
the B picture that is shown before it share a packet; the next packet holds a picture that is "not
coded" (N-VOP). The user data say so, which ffmpeg's filter mpeg4_unpack_bframes looks for.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ffmpeg.run.test_formats import complaints, encoded
from ffmpeg.verify.conftest import ENCODER, ffmpeg
from hevcq.errors import SourceDamaged
from support.avi import drop, pack, rewritten
from support.media_facts import profile


def divx(folder: Path, change: Callable[[list[bytes]], None], *options: str) -> Path:
    plain = folder / "plain.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=2,noise=alls=3",
           "-f", "lavfi", "-i", "sine=duration=2", "-c:v", "mpeg4", "-q:v", "3", "-g", "30", *options,
           "-vtag", "DX50", "-c:a", "libmp3lame", plain)  # fmt: skip
    return rewritten(plain, folder / "divx.avi", change)


@pytest.mark.parametrize(
    "name", ["hevc", *(pytest.param(n, marks=pytest.mark.slow) for n in ("720p", "mkv", "avi"))]
)
def test_packed_b_frames_are_encoded_picture_by_picture(name, tmp_path):
    source = divx(tmp_path, pack, "-bf", "1")
    assert b"DivX503b1393p" in source.read_bytes()

    one = encoded(name, source, tmp_path)

    assert complaints(one.judge()) == []
    track = one.request.measured.track(0)
    assert track is not None
    assert track.tiny > 20, "packets that are not coded"
    assert (track.packets, one.request.report.frames) == (50, 50 if name != "avi" else 51)


@pytest.mark.parametrize("name", ["hevc", pytest.param("avi", marks=pytest.mark.slow)])
def test_pictures_that_are_not_coded_are_none_that_a_rendition_lacks(name, tmp_path):
    one = encoded(name, divx(tmp_path, drop, "-bf", "0"), tmp_path)

    assert complaints(one.judge()) == []
    track = one.request.measured.track(0)
    assert track is not None
    assert track.packets == 47
    if name == "hevc":
        assert one.request.report.frames == 47


def test_a_picture_that_is_lost_besides_is_still_damage(tmp_path):
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


def remuxed(source: Path, name: str) -> Path:
    """Copy an AVI into another container, as many did with their downloads."""
    target = source.with_name(name)
    ffmpeg("-fflags", "+genpts", "-i", source, "-c", "copy", target)
    return target


@pytest.mark.parametrize("name", ["mp4", pytest.param("mkv", marks=pytest.mark.slow)])
def test_packed_b_frames_in_another_container_get_the_times_that_its_packets_have(name, tmp_path):
    """The decoder takes the time of the picture behind for the first B picture; MP4 then refused both."""
    source = remuxed(divx(tmp_path, pack, "-bf", "1"), f"packed.{name}")

    one = encoded("hevc", source, tmp_path)

    assert complaints(one.judge()) == []
    assert one.request.report.frames == 50
    assert [number for number, _ in one.request.plan.video.retimed] == [1]
    before = one.request.measured.track(0)
    after = ENCODER.measure(str(one.request.output), one.output, stop=threading.Event()).track(0)
    assert before is not None
    assert after is not None
    ticks = one.request.info.streams[0].tick, one.output.streams[0].tick
    assert [t * ticks[0] for t in before.times] == [t * ticks[1] for t in after.times]
