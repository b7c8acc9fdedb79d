"""Worker, probe and verify with the real ffmpeg on tiny clips."""

import threading
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


def test_a_drained_worker_leaves_a_rendition_that_verify_accepts_and_certifies(
    hevcq, clip: Path, rendition: Path
):
    ran = hevcq("check", rendition, "--source", clip, "--json")

    *gates, verdict = ran.lines
    assert ran.code == 0, ran.out
    assert verdict == {
        "type": "verdict",
        "passed": True,
        "certified": True,
        "notices": [],
    }
    assert {line["type"] for line in gates} == {"gate"}
    found = {line["gate"][:2]: line["outcome"] for line in gates}
    assert found["G0"] == found["G1"] == found["G4"] == found["G9"] == "passed"


def test_verify_without_a_certificate_says_what_it_could_not_know(
    hevcq, clip: Path, rendition: Path
):
    rendition.with_name(f"{rendition.name}.certificate.json").unlink()

    ran = hevcq("check", rendition, "--source", clip)

    assert ran.code == 0, ran.out
    assert "there is no encode log" in ran.out
    assert "No certificate found." in ran.out.splitlines()[-1]


def test_verify_refuses_a_cut_rendition(hevcq, clip: Path, rendition: Path):
    rendition.write_bytes(rendition.read_bytes()[: rendition.stat().st_size // 2])

    ran = hevcq("check", rendition, "--source", clip)

    assert ran.code == ExitCode.SOME_FAILED
    assert "Verification failed" in ran.out.splitlines()[-1]


def test_verify_refuses_a_forged_certificate(hevcq, clip: Path, rendition: Path):
    proof = rendition.with_name(f"{rendition.name}.certificate.json")
    proof.write_text(proof.read_text().replace('"passed"', '"failed"', 1))

    ran = hevcq("check", rendition, "--source", clip)

    assert (ran.code, ran.out) == (ExitCode.SOME_FAILED, "")
    assert "(G0)" in ran.err


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
