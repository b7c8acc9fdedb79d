"""What the index of a container promises and its demuxer does not find is damage."""

import re
import struct
import subprocess
import threading
from io import BytesIO
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, PROFILE, encoded, ffmpeg
from hevcq.domain.profile_sections import Preflight
from hevcq.errors import SourceDamaged
from hevcq.ffmpeg.containers import mp4
from hevcq.ffmpeg.inspect.damage import index_damage
from support.avi import open_dml
from support.rendition import box

PICTURE = "testsrc2=size=160x120:rate=24:duration=2,noise=alls=8"
SOUND = ("-f", "lavfi", "-i", "sine=duration=2")
MAKES = {
    "div3.avi": ("-c:v", "msmpeg4", "-tag:v", "DIV3", "-c:a", "mp2"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p", "-c:a", "mp2"),
    "video.wmv": ("-c:v", "wmv2", "-b:v", "800k", "-c:a", "wmav2"),
    "video.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-movflags", "+faststart"),
    "joined.mov": ("-c:v", "libx264", "-preset", "ultrafast"),
    "video.mkv": ("-c:v", "libx264", "-preset", "ultrafast"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("indexes")


def made(folder: Path, name: str) -> Path:
    target = folder / name
    if not target.exists():
        ffmpeg("-f", "lavfi", "-i", PICTURE, *SOUND, *MAKES[name], target)
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
    ffmpeg("-f", "lavfi", "-i", held, "-fps_mode", "passthrough", "-c:v", "mpeg4", path)
    preflight(path)


def spoilt_sound(folder: Path, tmp_path: Path) -> Path:
    """Make an MKV whose sound has a broken frame inside an intact packet."""
    clean = tmp_path / "clean.mkv"
    tracks = ("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "flac")
    ffmpeg("-i", made(folder, "video.mkv"), *SOUND, *tracks, clean)
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
    spoilt = spoilt_sound(folder, tmp_path)
    assert ENCODER.look(str(spoilt), stop=threading.Event())[1] is None
    with pytest.raises(SourceDamaged):
        preflight(spoilt)


def test_damage_of_a_copied_sound_is_blamed_on_the_source(folder, tmp_path):
    gates = PROFILE.gates.model_copy(update={"preflight": Preflight.OFF})
    profile = PROFILE.model_copy(update={"gates": gates})
    pair = encoded(spoilt_sound(folder, tmp_path), tmp_path, profile)
    with pytest.raises(SourceDamaged, match=r"spoilt\.mkv is damaged"):
        pair.judge()


@pytest.fixture(scope="module")
def parts(folder) -> Path:
    """Return an AVI of two parts with 24 frames each."""
    plain = folder / "plain.avi"
    mjpeg = ("-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p")
    ffmpeg("-f", "lavfi", "-i", PICTURE, *mjpeg, plain)
    return open_dml(plain, folder / "parts.avi", 24)


def test_a_sound_avi_of_several_parts_is_not_refused(parts, tmp_path):
    preflight(parts)
    content = bytearray(parts.read_bytes())
    for at in (found.start() for found in re.finditer(b"ix00", content)):
        content[at : at + 4] = b"JUNK"
    (tmp_path / "no-index.avi").write_bytes(content)
    preflight(tmp_path / "no-index.avi")


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("frame lost", "its index names 48 frames, but 47"),
        ("end lost", "its last [0-9]+ bytes are missing"),
        ("part lost", "its index names a part at byte [0-9]+, behind its end"),
    ],
)
def test_an_avi_of_several_parts_that_promises_more_than_it_has_is_damaged(
    parts, tmp_path, what, complaint
):
    content, spoilt = bytearray(parts.read_bytes()), tmp_path / "spoilt.avi"
    at = content.index(b"AVIX")
    if what == "frame lost":
        begin = content.index(b"00dc", content.index(b"00dc", at) + 4)
        length = 8 + int.from_bytes(content[begin + 4 : begin + 8], "little")
        content[begin : begin + length] = bytes(length)
        content[begin : begin + 8] = b"JUNK" + (length - 8).to_bytes(4, "little")
    else:
        del content[at - 8 if what == "part lost" else -500 :]
    spoilt.write_bytes(content)

    with pytest.raises(SourceDamaged):
        preflight(spoilt)
    info = ENCODER.probe(str(parts), stop=threading.Event())
    measured = ENCODER.measure(str(spoilt), info, stop=threading.Event())
    assert re.match(complaint, index_damage(str(spoilt), info, measured))


@pytest.fixture(scope="module")
def clusters(folder) -> Path:
    """Return a Matroska of eight clusters, its Cues in front."""
    target = folder / "clusters.mkv"
    x264 = ("-c:v", "libx264", "-g", "6", "-preset", "ultrafast", "-cluster_time_limit", "200")
    in_front = ("-cues_to_front", "1", "-reserve_index_space", "0")
    ffmpeg("-f", "lavfi", "-i", PICTURE, *x264, *in_front, target)
    return target


CLUSTER = b"\x1f\x43\xb6\x75"


def clusters_of(content: bytes) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(CLUSTER), content)]


def test_clusters_that_the_cues_name_and_the_file_does_not_have_are_damage(clusters, tmp_path):
    content, spoilt = bytearray(clusters.read_bytes()), tmp_path / "hole.mkv"
    begin, end = clusters_of(content)[3:5]
    # What overwrote it is an empty element, which every demuxer passes over without a word.
    content[begin:end] = b"\xec\x01" + (end - begin - 9).to_bytes(7, "big") + bytes(end - begin - 9)
    spoilt.write_bytes(content)
    with pytest.raises(SourceDamaged, match=r"its index names \d+ clusters, and 1 of them are not"):
        preflight(spoilt)


def test_cues_that_are_absent_stale_or_not_needed_prove_nothing(clusters, tmp_path):
    content, odd = clusters.read_bytes(), tmp_path / "odd.mkv"
    cues = content.index(b"\x1c\x53\xbb\x6b")
    stale = bytearray(content)
    for found in re.finditer(rb"\xf1[\x81-\x84]", content[cues : clusters_of(content)[0]]):
        stale[cues + found.end()] ^= 0x55
    odd.write_bytes(stale)
    preflight(odd)  # a tool moved the clusters and left the index as it was

    live = tmp_path / "live.mkv"
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", clusters, "-c", "copy", "-f", "matroska", "-"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    live.write_bytes(done.stdout)
    preflight(live)


@pytest.mark.parametrize("name", ["video.mp4", "joined.mov"])
def test_a_video_put_behind_another_is_refused_before_it_is_lost(folder, tmp_path, name):
    first = made(folder, name).read_bytes()
    both = tmp_path / name
    both.write_bytes(first * 2)
    off = PROFILE.gates.model_copy(update={"preflight": Preflight.OFF})
    for profile in (PROFILE, PROFILE.model_copy(update={"gates": off})):
        with pytest.raises(
            SourceDamaged, match=rf"second video .*from byte {len(first)}\)"
        ) as caught:
            preflight(both, profile)
    assert f"head -c {len(first)} FILE" in str(caught.value.remedy)


FTYP, MEDIA, INDEX = box(b"ftyp", b"isom\0\0\2\0"), box(b"mdat", b"m" * 90), box(b"moov", b"i" * 9)
MOVIE, FRAGMENT = FTYP + INDEX + MEDIA, box(b"moof", b"f") + MEDIA


@pytest.mark.parametrize(
    ("content", "at"),
    [
        *(
            (MOVIE + end, 0)
            for end in (b"", bytes(99_999), FTYP, MEDIA + MEDIA, b"ID3\4", FTYP[:6])
        ),
        *(
            (MOVIE + end, len(MOVIE))
            for end in (MOVIE, FTYP + MEDIA, INDEX, FTYP + INDEX + FRAGMENT)
        ),
        (MEDIA + INDEX + MEDIA + INDEX, len(MEDIA + INDEX)),
        (FTYP + INDEX + FRAGMENT * 3, 0),
        ((FTYP + INDEX + FRAGMENT) * 3, 0),
        (FTYP + INDEX + FRAGMENT + FTYP + box(b"moov", b"other"), 140),
        (b"no box at all", 0),
    ],
)
def test_what_lies_behind_a_video_is_refused_only_where_it_is_another(content, at):
    assert mp4.second_video(BytesIO(content), len(content)) == at
