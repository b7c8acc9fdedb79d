"""`hevcq profiles plan`: what would become of a file, said and as JSON, with nothing done."""

from pathlib import Path

import pytest

from ffmpeg.chunking.numbered import ffmpeg
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.compare import curve_lines, curve_svg
from hevcq.domain.quality import Aim, Probe
from support.clips import make_clip

pytestmark = pytest.mark.media

SPLITTING = """
name: small
description: splits even short videos
video: {codec: hevc, crf: 28}
chunking: {mode: always, target_s: 0.8}
"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "videos", name="a video.mp4", size="320x180")


@pytest.fixture
def splitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "small.yaml").write_text(SPLITTING)
    monkeypatch.setenv("HEVCQ_PROFILES_DIR", str(folder))


def test_a_short_video_is_planned_in_one_piece_and_the_reason_is_reported(hevcq, clip: Path):
    ran = hevcq("profiles", "plan", clip, "--profile", "hevc")
    _media, line = hevcq("profiles", "plan", clip, "--profile", "hevc", "--json").lines

    assert ran.code == 0, ran.err
    assert "hevc: encode to .mp4" in ran.out
    assert "#0 video: encode hevc" in ran.out
    assert "in one piece" not in ran.out
    asked = hevcq("profiles", "plan", clip, "--profile", "hevc", "--verbose").out
    assert "in one piece (too_short)" in asked
    assert (line["type"], line["action"], line["path"]) == ("plan", "encode", str(clip))
    assert (line["chunks"], line["whole"]["reason"]) == ([], "too_short")


def test_a_search_draws_size_against_quality_and_says_what_it_chose(hevcq, clip: Path):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which measures VMAF, is not here")
    picture = clip.with_name("curve.svg")
    asked = ("profiles", "plan", clip, "--profile", "hevc", "--search", "--quality", "75")

    ran = hevcq(*asked, "--svg", picture)
    (found,) = hevcq(*asked, "--json").lines

    assert ran.code == 0, ran.err
    assert ran.out.count("chosen for 75") == 1
    tried = ran.out.count("  CRF ")
    assert tried > len(found["probes"])  # the next one begins where the first one ended
    chosen = next(line for line in ran.out.splitlines() if "chosen" in line)
    assert found["probes"][0]["crf"] == found["crf"]
    assert f"CRF {found['crf']:g}" in chosen
    assert picture.read_text().count("<circle") == tried
    assert all(each["size"] > 0 for each in found["probes"])
    assert found["within"] == 0
    assert f"all of it was encoded at CRF {found['crf']:g}" in ran.out
    assert "An ingest would keep" not in ran.out
    assert found["original_kept"] is False
    assert hevcq("profiles", "plan", clip, "--quality", "75").code == ExitCode.USAGE


def test_a_search_says_that_an_ingest_would_keep_the_original(hevcq, clip: Path):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which measures VMAF, is not here")
    small = clip.with_name("small.mp4")
    ffmpeg("-i", clip, "-an", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "38", small)
    asked = ("profiles", "plan", small, "--profile", "hevc", "--search", "--quality", "90")

    assert "  An ingest would keep the original: less than 5 %" in hevcq(*asked).out
    assert hevcq(*asked, "--json").lines[0]["original_kept"] is True


@pytest.mark.parametrize(("larger", "notes"), [(93.4, 1), (92.9, 0)])
def test_a_larger_crf_that_seems_good_enough_says_why_it_is_not_chosen(larger: float, notes: int):
    probes = (Probe(crf=24, vmaf=94.0, size=90), Probe(crf=26, vmaf=larger, size=70))
    aim = Aim(target=93, crf=24, sampled=94.0, probes=probes, metric="vmaf_v0.6.1")
    said = "CRF 26 is not chosen: its samples differ"

    assert "\n".join(curve_lines(aim, 100)).count(said) == notes
    assert curve_svg(aim).count(said) == notes


def test_a_file_that_cannot_be_planned_keeps_no_other_from_it(hevcq, clip: Path):
    text = clip.with_name("a.mp4")
    text.write_text("no video")

    ran = hevcq("profiles", "plan", text, clip)

    assert ran.code == ExitCode.SOME_FAILED, ran.err
    assert f"{text}:\n  cannot be planned: {text} is a text file" in ran.out
    assert "\nhevc: encode to .mp4" in ran.out
    failed, _media, planned = hevcq("profiles", "plan", text, clip, "--json").lines
    assert (failed["action"], failed["reason"]) == ("fail", "SourceUnreadable")
    assert planned["action"] == "encode"
    assert hevcq("profiles", "plan", text).code != ExitCode.OK
    beside_nothing = hevcq("profiles", "plan", clip.with_name("none.mp4"), clip)
    assert beside_nothing.code == ExitCode.SOME_FAILED
    assert "none.mp4 is not there" in beside_nothing.out
    assert "\nhevc: encode to .mp4" in beside_nothing.out


@pytest.mark.usefixtures("splitting")
def test_the_chunks_of_a_video_that_is_split_are_counted_and_in_json_listed(hevcq, tmp_path: Path):
    folder = tmp_path / "videos"
    folder.mkdir()
    keyed = make_keyed(folder / "keyed.mp4")

    ran = hevcq("profiles", "plan", keyed, "-p", "small")
    _media, line = hevcq("profiles", "plan", keyed, "-p", "small", "--json").lines

    chunks = line["chunks"]
    assert ran.code == 0, ran.err
    assert line["whole"] is None
    assert len(chunks) > 1
    assert f"in {len(chunks)} chunks\n" in ran.out
    assert sum(chunk["frames"] for chunk in chunks) == 75
    assert sum(chunk["cost"] for chunk in chunks) == pytest.approx(1, abs=1e-4)
    assert [chunk["index"] for chunk in chunks] == list(range(len(chunks)))


def make_keyed(target: Path) -> Path:
    """Make 3 s with a key frame each 0.2 s."""
    lavfi = "testsrc2=size=160x120:rate=25:duration=3"
    options = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", lavfi, *options, target)
    return target


def test_a_ladder_is_listed_with_the_sizes_to_expect(hevcq, clip: Path):
    ran = hevcq("profiles", "plan", clip, "--profile", "hls")
    _media, line = hevcq("profiles", "plan", clip, "--profile", "hls", "--json").lines

    assert ran.code == 0, ran.err
    assert "hls: encode to an HLS ladder\n" in ran.out
    assert "at most 0.4 Mbit/s" in ran.out
    assert "1 rungs" not in ran.out
    assert line["extension"] == "m3u8"
    assert [rung["name"] for rung in line["rungs"]] == ["v180", "v144"]
    assert all(0 < rung["bytes"] <= rung["most_bytes"] for rung in line["rungs"])
    assert line["whole"]["reason"] == "too_short"


def test_a_bad_file_does_not_stop_a_search_of_the_rest(hevcq, clip: Path):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which measures VMAF, is not here")
    bad = clip.with_name("bad.mp4")
    bad.write_bytes(b"no video")

    ran = hevcq("profiles", "plan", bad, clip, "--profile", "hevc", "--search", "--quality", "75")

    assert ran.code == ExitCode.SOME_FAILED
    assert "bad.mp4, hevc: cannot be searched:" in ran.out
    assert f"{clip}, hevc: vmaf" in ran.out


def test_one_drawing_shows_one_search(hevcq, clip: Path):
    picture = clip.with_name("curve.svg")

    ran = hevcq("profiles", "plan", clip, clip, "-p", "hevc", "--search", "--svg", picture)

    assert "--svg draws one search: name one FILE, and one --profile." in ran.err
    assert not picture.exists()
