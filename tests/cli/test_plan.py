"""`hevcq profiles plan`: what would become of a file, said and as JSON, with nothing done.

Worker, probe and verify with the real ffmpeg on tiny clips.
"""

import re
import threading
from base64 import b64decode
from pathlib import Path

import pytest

from ffmpeg.chunking.numbered import ffmpeg
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.compare import curve_lines
from hevcq.domain.job import JobState
from hevcq.domain.keys import key_for_path
from hevcq.domain.quality import Aim, Probe
from hevcq.usecases.compare import curve_svg
from support.clips import make_clip

pytestmark = pytest.mark.media


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "videos", name="a video.mp4", size="320x180")


def test_a_plan_names_what_becomes_of_each_stream(hevcq, clip):
    ran = hevcq("profiles", "plan", clip, "--profile", "hevc")
    _media, line = hevcq("profiles", "plan", clip, "--profile", "hevc", "--json").lines

    assert ran.code == 0, ran.err
    assert "hevc: encode to .mp4" in ran.out
    assert "#0 video: encode hevc" in ran.out
    assert (line["type"], line["action"], line["path"]) == ("plan", "encode", str(clip))


def test_a_search_draws_size_against_quality_and_says_what_it_chose(hevcq, clip):
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
    assert f"the whole video was encoded at CRF {found['crf']:g}" in ran.out
    assert "An ingest would keep" not in ran.out
    assert found["original_kept"] is False
    assert hevcq("profiles", "plan", clip, "--quality", "75").code == ExitCode.USAGE


def test_a_search_says_that_an_ingest_would_keep_the_original(hevcq, clip):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which measures VMAF, is not here")
    small = clip.with_name("small.mp4")
    ffmpeg("-i", clip, "-an", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "38", small)
    asked = ("profiles", "plan", small, "--profile", "hevc", "--search", "--quality", "90")

    assert "  An ingest would keep the original: less than 5 %" in hevcq(*asked).out


@pytest.mark.parametrize(("larger", "notes"), [(93.4, 1), (92.9, 0)])
def test_a_larger_crf_that_seems_good_enough_says_why_it_is_not_chosen(larger, notes):
    probes = (Probe(crf=24, vmaf=94.0, size=90), Probe(crf=26, vmaf=larger, size=70))
    aim = Aim(target=93, crf=24, sampled=94.0, probes=probes, metric="vmaf_v0.6.1")
    said = "CRF 26 is not chosen: its samples differ"

    assert "\n".join(curve_lines(aim, 100)).count(said) == notes
    assert curve_svg(aim).count(said) == notes


def test_a_file_that_cannot_be_planned_keeps_no_other_from_it(hevcq, clip):
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


def test_one_drawing_shows_one_search(hevcq, clip):
    picture = clip.with_name("curve.svg")

    ran = hevcq("profiles", "plan", clip, clip, "-p", "hevc", "--search", "--svg", picture)

    assert "--svg takes one search: name one FILE and one --profile." in ran.err
    assert not picture.exists()


@pytest.fixture
def rendition(farm, hevcq, clip: Path, tmp_path: Path) -> Path:
    """The clip's rendition as a worker made it, with its certificate beside it."""
    backend, stop = farm.app.backend, threading.Event()
    source = backend.store.accept(clip, key_for_path(str(clip)), moved=lambda _n: None, stop=stop)
    (job,) = backend.task_publisher.publish(source, ["hevc"], announced=False)
    assert hevcq("worker", "hevc", "--drain", "--workers", "1").code == 0
    record = backend.ledger.get(job.job_id)
    assert record.state is JobState.DONE, record.reason
    target = tmp_path / "out" / "a video.hevc.mp4"
    target.parent.mkdir()
    for key, path in (
        (record.rendition.key, target),
        (record.rendition.certificate_key, target.with_name(f"{target.name}.certificate.json")),
    ):
        backend.store.collect(key, path, stop=stop)
    return target


@pytest.mark.parametrize(("metric", "name"), [("/bin/true", "SSIM x 100"), ("", "vmaf_v0.6.1")])
def test_a_page_shows_the_rendition_beside_its_original_and_needs_no_other_file(
    hevcq, clip, rendition, tmp_path, monkeypatch, metric, name
):
    if not metric:
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which measures, is not here")
    monkeypatch.setenv("HEVCQ_METRIC_FFMPEG", metric)
    page = tmp_path / "a video.hevc.compare.html"  # in the current folder

    ran = hevcq("compare", clip, rendition)

    assert ran.code == 0, ran.err
    text = page.read_text()
    assert name in text
    shown = re.findall(r"<h2>([^:<]*frame)[^:]*: (\d+\.\d) at ", text)
    assert [name for name, _ in shown[:3]] == ["Worst frame", "Median frame", "Best frame"]
    scores = [float(score) for _, score in shown[:3]]
    assert scores == sorted(scores)
    assert scores[0] < scores[2]
    pictures = [b64decode(each) for each in re.findall(r"base64,([^\"]+)", text)]
    assert [each[:3] for each in pictures] == [b"\xff\xd8\xff"] * 2 * len(shown)
    assert len(set(pictures)) == len(pictures)
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert hevcq("compare", clip, rendition).code == ExitCode.USAGE
    assert page.read_text() == text


def test_a_quality_that_nothing_measures_is_one_sentence_before_anything_is_queued(
    hevcq, clip, monkeypatch
):
    monkeypatch.setenv("HEVCQ_METRIC_FFMPEG", "/bin/true")

    ran = hevcq("ingest", clip, "--quality", "good")

    assert ran.code == ExitCode.UNFIT, ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith(
        "hevcq: /bin/true has no libvmaf. Run `pipx inject hevcq imageio-ffmpeg`"
    )
    (state,) = hevcq("status", "--json").lines
    assert {count for queue in state["queues"] for count in queue["jobs"].values()} == {0}


def test_a_drained_worker_leaves_a_rendition_that_check_accepts_until_it_is_another(
    hevcq, clip, rendition
):
    proof = rendition.with_name(f"{rendition.name}.certificate.json")
    command = ("check", rendition, "--source", clip)

    ran = hevcq(*command, "--json")
    *gates, verdict = ran.lines
    assert ran.code == 0, ran.out
    assert verdict == {"type": "verdict", "passed": True, "certified": True, "notices": []}
    found = {line["gate"][:2]: line["outcome"] for line in gates}
    assert found["G0"] == found["G1"] == found["G4"] == found["G9"] == "passed"

    proof.write_text(proof.read_text().replace('"passed"', '"failed"', 1))
    forged = hevcq(*command)
    assert (forged.code, forged.out) == (ExitCode.SOME_FAILED, "")
    assert "(G0)" in forged.err

    proof.unlink()
    alone = hevcq(*command)
    assert alone.code == 0, alone.out
    assert "there is no encode log" in alone.out
    assert "No certificate found." in alone.out.splitlines()[-1]

    rendition.write_bytes(rendition.read_bytes()[: rendition.stat().st_size // 2])
    cut = hevcq(*command)
    assert cut.code == ExitCode.SOME_FAILED
    assert "Verification failed" in cut.out.splitlines()[-1]


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 50, None])
def test_probe_of_what_is_no_video_names_the_file(hevcq, tmp_path, content):
    path = tmp_path / "no video.mp4"
    if content is not None:
        path.write_bytes(content)

    ran = hevcq("profiles", "plan", path)

    missing = content is None
    assert (ran.code, ran.out) == (ExitCode.USAGE if missing else ExitCode.SOME_FAILED, "")
    assert "no video.mp4" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_worker_without_ffmpeg_is_unfit_and_takes_nothing(hevcq, farm, monkeypatch):
    farm.queued("a.mp4")
    monkeypatch.setenv("HEVCQ_FFMPEG", "no-such-ffmpeg")

    for options in ([], ["--drain"]):
        ran = hevcq("worker", *options)

        assert ran.code == ExitCode.UNFIT
        assert "no-such-ffmpeg" in ran.err.splitlines()[-1]
    assert farm.app.backend.queues["hevc"].depth().ready == 1
