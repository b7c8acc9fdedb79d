"""A recording with ragged ends is trimmed to its whole pictures, and nothing else is touched."""

import subprocess
import threading
from pathlib import Path

import pytest
from benchmarks.fidelity import ordinary, spliced
from benchmarks.fidelity.served import named

from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.errors import SourceDamaged
from hevcq.ports.encoder import TrimmedSource
from support.rendition import ENCODER

STOP = threading.Event()
PROFILE = Profile(name="p", description="d", video=VideoRecipe(codec="hevc", crf=28))


def recording(name: str, folder: Path) -> Path:
    path = ordinary.make(named(name), folder)
    assert path is not None
    return path


def trimmed(path: Path, folder: Path) -> TrimmedSource | None:
    folder.mkdir(exist_ok=True)
    info = ENCODER.probe(str(path), stop=STOP)
    return ENCODER.trim_recording(str(path), info, folder, stop=STOP)


def pictures(path: Path) -> tuple[list[str], str]:
    """Return the MD5 of each decoded picture, and what the decoder complained of."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-f", "framemd5", "-"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    return [line.rpartition(",")[2] for line in lines], done.stderr


def preflight(path: Path) -> None:
    info = ENCODER.probe(str(path), stop=STOP)
    ENCODER.preflight(str(path), info, PROFILE, stop=STOP)


@pytest.mark.parametrize(
    ("name", "lost", "said"),
    [
        ("recording-cut.ts", 1, 2),
        ("recording-cut-mpeg2.ts", 1, 2),
        ("recording-torn-end.ts", 1, 1),
    ],
)
def test_whole_pictures_are_kept_and_the_others_counted(tmp_path, name, lost, said) -> None:
    source = recording(name, tmp_path)
    with pytest.raises(SourceDamaged):
        preflight(source)

    made = trimmed(source, tmp_path / "scratch")

    assert made is not None
    before, _ = pictures(source)
    after, complaints = pictures(made.path)
    assert complaints == ""
    assert len(before) - lost <= len(after) <= len(before)
    left = iter(before)
    assert all(picture in left for picture in after), "the same pictures in the same order"
    assert len(made.notices) == said
    preflight(made.path)


@pytest.mark.parametrize(
    "name", ["recording-whole.ts", "recording-clock-wrap.ts", "avchd-psf.mts", "mp3.mp4"]
)
def test_a_recording_with_whole_ends_is_taken_as_it_is(tmp_path, name) -> None:
    assert trimmed(recording(name, tmp_path), tmp_path / "scratch") is None
    assert not list((tmp_path / "scratch").iterdir())


def test_damage_in_the_middle_stays_damage(tmp_path) -> None:
    source = recording("recording-cut.ts", tmp_path)
    data = bytearray(source.read_bytes())
    middle = len(data) // 2 // spliced.TS_PACKET * spliced.TS_PACKET
    del data[middle : middle + 40 * spliced.TS_PACKET]
    source.write_bytes(data)

    made = trimmed(source, tmp_path / "scratch")

    assert made is not None
    _, complaints = pictures(made.path)
    assert complaints != "", "which ends an encode, and G1"
