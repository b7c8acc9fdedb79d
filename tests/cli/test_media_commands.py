"""Worker, probe and verify with the real ffmpeg on tiny clips."""

import re
import threading
from base64 import b64decode
from pathlib import Path

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.domain.job import JobState
from hevcq.domain.keys import key_for_path
from support.clips import make_clip

pytestmark = pytest.mark.media


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "videos", name="a video.mp4", size="320x180")


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
        backend.store.collect(key, path, moved=lambda _n: None, stop=stop)
    return target


@pytest.mark.parametrize(("metric", "name"), [("/bin/true", "SSIM x 100"), ("", "vmaf_v0.6.1")])
def test_a_page_shows_the_rendition_beside_its_original_and_needs_no_other_file(
    hevcq, clip: Path, rendition: Path, tmp_path: Path, monkeypatch, metric: str, name: str
):
    if not metric:
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which measures, is not here")
    monkeypatch.setenv("HEVCQ_METRIC_FFMPEG", metric)
    page = tmp_path / "a video.hevc.compare.html"  # in the current folder

    ran = hevcq("compare", clip, rendition)

    assert ran.code == 0, ran.err
    text = page.read_text()
    assert name in text
    shown = re.findall(r"<h2>([^:<]*[Ff]rame[^:<]*): (\d+\.\d) at ", text)
    names = ["Worst frame", "Frame near the median", "Best frame"]
    assert [name for name, _ in shown[:3]] == names
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
    hevcq, clip: Path, monkeypatch
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
    hevcq, clip: Path, rendition: Path
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
def test_probe_of_what_is_no_video_names_the_file(hevcq, tmp_path: Path, content: bytes | None):
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
