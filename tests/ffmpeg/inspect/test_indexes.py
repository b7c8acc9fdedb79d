"""What the index of a container promises and its demuxer does not find is damage."""

from __future__ import annotations

import struct
import subprocess
import threading
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, PROFILE, encoded
from hevcq.domain.certificate import Outcome
from hevcq.domain.profile import Preflight
from hevcq.errors import SourceDamaged
from hevcq.ffmpeg.inspect.preflight import index_damage

PICTURE = "testsrc2=size=160x120:rate=24:duration=2,noise=alls=8"
MAKES = {
    "div3.avi": ("-c:v", "msmpeg4", "-tag:v", "DIV3", "-c:a", "mp2"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p", "-c:a", "mp2"),
    "video.wmv": ("-c:v", "wmv2", "-b:v", "800k", "-c:a", "wmav2"),
    "video.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-movflags", "+faststart"),
    "video.mkv": ("-c:v", "libx264", "-preset", "ultrafast"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("indexes")


def made(folder: Path, name: str) -> Path:
    target = folder / name
    if not target.exists():
        sound = ["-f", "lavfi", "-i", "sine=duration=2"]
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", PICTURE, *sound]
        subprocess.run([*command, *MAKES[name], target], check=True, timeout=60)
    return target


def preflight(path: Path, profile=PROFILE) -> None:
    stop = threading.Event()
    info = ENCODER.probe(str(path), stop=stop)
    ENCODER.preflight(str(path), info, profile, stop=stop)


def avi_frame(content: bytes, number: int) -> tuple[int, int]:
    """Return where the chunk of a frame begins in an AVI, and its length with its head."""
    at = content.find(b"movi")
    for _ in range(number + 1):
        at = content.find(b"00dc", at + 4)
    return at, 8 + int.from_bytes(content[at + 4 : at + 8], "little")


def wmv_packet(content: bytes, number: int) -> tuple[int, int]:
    facts = content.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    data = content.find(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"))
    (size,) = struct.unpack_from("<I", content, facts + 92)
    return data + 50 + number * size, size


@pytest.mark.parametrize("name", MAKES)
def test_a_sound_file_promises_no_more_than_it_has(folder, name):
    preflight(made(folder, name))


@pytest.mark.parametrize("cut", [False, True], ids=["zeroed", "cut out"])
@pytest.mark.parametrize("name", ["div3.avi", "mjpeg.avi", "video.wmv"])
def test_a_lost_piece_of_an_old_container_is_damage(folder, tmp_path, name, cut):
    content = bytearray(made(folder, name).read_bytes())
    find = wmv_packet if name.endswith("wmv") else avi_frame
    begin, length = find(bytes(content), 20)
    if cut:
        del content[begin : begin + length + length % 2]
    else:
        content[begin : begin + length] = bytes(length)
    spoilt = tmp_path / name
    spoilt.write_bytes(content)
    with pytest.raises(SourceDamaged, match=r"missing|broken|its index names 48 frames, but 47"):
        preflight(spoilt)


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "mjpeg.avi"])
def test_a_file_without_its_last_bytes_is_damaged(folder, tmp_path, name):
    content = made(folder, name).read_bytes()
    spoilt = tmp_path / name
    spoilt.write_bytes(content[:-60])
    with pytest.raises(SourceDamaged):
        preflight(spoilt)
    info = ENCODER.probe(str(made(folder, name)), stop=threading.Event())
    measured = ENCODER.measure(str(made(folder, name)), info, stop=threading.Event())
    assert index_damage(str(spoilt), info, measured) == "its last 60 bytes are missing"


def test_frames_that_repeat_the_one_before_are_not_missed(tmp_path):
    """An AVI holds a held picture as empty chunks, which its index names and no demuxer returns."""
    path = tmp_path / "held.avi"
    held = f"{PICTURE},select=not(between(n\\,20\\,30))"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", held, "-fps_mode", "passthrough"]
    subprocess.run([*command, "-c:v", "mpeg4", path], check=True, timeout=60)
    preflight(path)


def spoilt_sound(folder: Path, tmp_path: Path) -> Path:
    """Make an MKV whose sound has a broken frame inside an intact packet."""
    clean = tmp_path / "clean.mkv"
    sound = ["-f", "lavfi", "-i", "sine=duration=2", "-c:a", "flac", "-c:v", "copy"]
    command = ["ffmpeg", "-v", "error", "-i", made(folder, "video.mkv"), *sound, "-map", "0:v"]
    subprocess.run([*command, "-map", "1:a", clean], check=True, timeout=60)
    shown = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "a", "-show_entries", "packet=pos,size",
         "-of", "csv=p=0", clean],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout.splitlines()  # fmt: skip
    size, begin = (int(word) for word in shown[len(shown) // 2].split(",")[:2])
    content = bytearray(clean.read_bytes())
    # The head of the Matroska block stays; the sound's frame loses its sync code.
    content[begin + 8 : begin + size] = bytes(size - 8)
    target = tmp_path / "spoilt.mkv"
    target.write_bytes(content)
    return target


def test_a_sound_that_does_not_decode_is_found_before_the_encode(folder, tmp_path):
    with pytest.raises(SourceDamaged):
        preflight(spoilt_sound(folder, tmp_path))


def test_damage_of_a_copied_sound_is_blamed_on_the_source(folder, tmp_path):
    gates = PROFILE.gates.model_copy(update={"preflight": Preflight.OFF})
    profile = PROFILE.model_copy(update={"gates": gates})
    pair = encoded(spoilt_sound(folder, tmp_path), tmp_path, profile)
    with pytest.raises(SourceDamaged, match=r"spoilt\.mkv is damaged"):
        pair.judge()


def test_damage_of_the_picture_alone_is_not_blamed_on_the_source(folder, tmp_path):
    pair = encoded(made(folder, "video.mkv"), tmp_path)
    content = bytearray(pair.good.read_bytes())
    begin = len(content) // 3
    content[begin : begin + 3] = bytes(byte ^ 0xFF for byte in content[begin : begin + 3])
    spoilt = tmp_path / "spoilt-output.mkv"
    spoilt.write_bytes(content)
    assert pair.judge(spoilt)[-1].outcome is Outcome.FAILED
