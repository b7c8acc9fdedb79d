"""What redrive, retry and verify promise, over the memory ports and a fake encoder."""

import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from cli.redriving import WHY, bury
from hevcq.domain.certificate import REQUIRED, Certificate, Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Task
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import SourceUnreadable, Stopped, UsageError
from hevcq.ports.backend import Backend
from hevcq.usecases.operations.dead_letters import (
    DeadLetterFilter,
    RedriveRequest,
    RedriveResult,
    redrive,
)
from hevcq.usecases.verify_files import NO_LOG, VerifyFilesRequest, sha256, verify_files
from support.clips import ManualClock
from support.fakes.backend import HEVC, Faulty
from support.fakes.encoder import FakeEncoder, passed


def order(**changes: object) -> RedriveRequest:
    return RedriveRequest(DeadLetterFilter(), who="me", **changes)


def results(backend: Backend, clock: ManualClock, wanted: RedriveRequest) -> list[RedriveResult]:
    stop = threading.Event()
    return [done.result for done in redrive(backend, wanted, clock=clock, stop=stop)]


def test_the_ledger_is_reopened_before_the_message_goes(backend: Backend, clock: ManualClock):
    job = bury(backend, "TODO/a.mp4")
    seen: list[JobState] = []

    def look(name: str) -> None:
        if name == "redrive":
            seen.append(backend.ledger.get(job).state)

    watched = Faulty(backend.queues["hevc"], before=look)
    backend.queues["hevc"] = watched  # type: ignore[index]

    assert results(backend, clock, order()) == [RedriveResult.REDRIVEN]
    assert seen == [JobState.QUEUED]
    assert backend.ledger.reopened == [(job, "me", "redrive")]


def test_a_kill_between_ledger_and_queue_loses_nothing(backend: Backend, clock: ManualClock):
    job = bury(backend, "TODO/a.mp4")

    def die(name: str) -> None:
        if name == "redrive":
            raise KeyboardInterrupt

    real = backend.queues["hevc"]
    backend.queues["hevc"] = Faulty(real, before=die)  # type: ignore[index]
    with pytest.raises(KeyboardInterrupt):
        results(backend, clock, order())
    backend.queues["hevc"] = real  # type: ignore[index]

    assert results(backend, clock, order()) == [RedriveResult.REDRIVEN]
    (delivery,) = real.receive(2, wait_s=0, stop=threading.Event())
    assert delivery.tasks[0].job_id == job


def test_a_letter_whose_job_was_done_meanwhile_stays(backend: Backend, clock: ManualClock):
    job = bury(backend, "TODO/a.mp4")
    source = backend.ledger.get(job).source
    backend.ledger.reopen(job, who="x", why="y")
    fence = backend.ledger.claim(source, "hevc", owner="w", lease_s=60).fence
    backend.ledger.skip(job, fence, "not smaller")

    assert results(backend, clock, order()) == [RedriveResult.DONE_ALREADY]
    assert backend.queues["hevc"].depth().dead == 1


def test_a_letter_that_fails_again_at_once_is_not_sent_round(backend: Backend, clock: ManualClock):
    bury(backend, "TODO/a.mp4")
    queue = backend.queues["hevc"]

    def fail_again(name: str) -> None:
        if name == "redrive":
            clock.advance(1)
            (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
            queue.bury(delivery, WHY)

    backend.queues["hevc"] = Faulty(queue, after=fail_again)  # type: ignore[index]

    found = results(backend, clock, order())

    assert found[0] is RedriveResult.REDRIVEN
    assert set(found[1:]) <= {RedriveResult.TWICE}
    assert queue.depth().dead == 1


def test_an_unreadable_message_goes_back_as_it_is(backend: Backend, clock: ManualClock):
    queue = backend.queues["hevc"]
    queue.send_body("not a task")
    (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
    queue.bury(delivery, Bury(reason="unreadable", failure_class=FailureClass.MESSAGE))

    assert results(backend, clock, order()) == [RedriveResult.REDRIVEN]
    (again,) = queue.receive(1, wait_s=0, stop=threading.Event())
    assert again.body == "not a task"


def test_the_rate_is_kept(backend: Backend, clock: ManualClock):
    for number in range(3):
        bury(backend, f"TODO/{number}.mp4")
    start = clock.monotonic()

    assert len(results(backend, clock, order(rate=0.5))) == 3

    assert clock.monotonic() - start == pytest.approx(6.0)


def test_a_stop_ends_it_between_two_letters(backend: Backend, clock: ManualClock):
    for number in range(3):
        bury(backend, f"TODO/{number}.mp4")
    stop = threading.Event()

    done = []
    for each in redrive(backend, order(), clock=clock, stop=stop):
        done.append(each)
        stop.set()

    assert len(done) == 1
    assert backend.queues["hevc"].depth().dead == 2


@pytest.fixture
def videos(tmp_path: Path) -> tuple[Path, Path]:
    source, rendition = tmp_path / "a.mp4", tmp_path / "a.hevc.mp4"
    source.write_bytes(b"source" * 100)
    rendition.write_bytes(b"rendition")
    return source, rendition


def certify(source: Path, rendition: Path) -> Certificate:
    stop = threading.Event()
    task = Task.model_validate(
        {
            "source": {"bucket": "b", "key": "TODO/a.mp4", "version": "1", "size": 600},
            "profile": "hevc",
        }
    )
    return Certificate(
        job_id=task.job_id,
        fence=1,
        source=task.source,
        source_sha256=sha256(source, stop),
        rendition_key="DONE/hevc/a.mp4.mp4",
        rendition_sha256=sha256(rendition, stop),
        rendition_size=9,
        profile="hevc",
        revision=HEVC.revision,
        ffmpeg="ffmpeg",
        arguments=("ffmpeg",),
        gates=tuple(GateResult(gate=gate, outcome=Outcome.PASSED) for gate in REQUIRED),
        hevcq_version="0",
        made_at=1.0,
    )


def check(pair: VerifyFilesRequest, encoder: FakeEncoder, stop: threading.Event | None = None):
    stop = stop or threading.Event()
    return verify_files(
        encoder, pair, on_progress=lambda _p: None, stop=stop, scratch=lambda _: nullcontext(Path())
    )


def test_without_a_certificate_the_encode_log_is_said_to_be_unknown(videos):
    report = check(VerifyFilesRequest(*videos, HEVC), FakeEncoder())

    first = report.gates[0]
    assert (first.gate, first.outcome, first.detail) == (Gate.G1, Outcome.UNKNOWN, NO_LOG)
    assert report.passed


def test_with_its_certificate_both_digests_are_compared(videos):
    report = check(VerifyFilesRequest(*videos, HEVC, certify(*videos)), FakeEncoder())

    outcomes = {result.gate: result.outcome for result in report.gates}
    assert outcomes[Gate.G0] is outcomes[Gate.G9] is outcomes[Gate.G1] is Outcome.PASSED
    assert report.passed


def pictured(digest: str) -> GateResult:
    return GateResult(gate=Gate.G8, outcome=Outcome.PASSED, digest=digest)


@pytest.mark.parametrize(
    ("now", "build", "said"),
    [
        ("aa", "ffmpeg version fake", "every frame is the certified one"),
        ("bb", "ffmpeg version fake", "its picture is not the certified one"),
        ("bb", "ffmpeg version 9", ""),
        ("", "ffmpeg version fake", ""),
    ],
    ids=["tags changed", "another picture", "another build", "not compared"],
)
def test_a_file_with_other_bytes_is_told_whether_it_shows_the_certified_picture(
    videos, now: str, build: str, said: str
):
    gates = (*(GateResult(gate=g, outcome=Outcome.PASSED) for g in REQUIRED[:-1]), pictured("aa"))
    certificate = certify(*videos).model_copy(update={"gates": gates, "ffmpeg": build})
    encoder = FakeEncoder()
    encoder.gates = passed(pictured(now))
    assert check(VerifyFilesRequest(*videos, HEVC, certificate), encoder).notices == ()
    videos[1].write_bytes(b"one bit more")

    report = check(VerifyFilesRequest(*videos, HEVC, certificate), encoder)

    assert said in " ".join(report.notices)
    assert bool(report.notices) is bool(said)
    assert not report.passed


@pytest.mark.parametrize(("which", "gate"), [(0, Gate.G0), (1, Gate.G9)])
def test_other_bytes_than_the_certificate_names_do_not_pass(videos, which: int, gate: Gate):
    certificate = certify(*videos)
    videos[which].write_bytes(b"one bit more")

    report = check(VerifyFilesRequest(*videos, HEVC, certificate), FakeEncoder())

    assert not report.passed
    (failed,) = [r.gate for r in report.gates if r.outcome is Outcome.FAILED]
    assert failed is gate


@pytest.mark.parametrize(
    "outcome", [Outcome.FAILED, Outcome.UNKNOWN, Outcome.REVIEW, Outcome.NOT_SMALLER]
)
def test_any_gate_that_does_not_pass_fails_the_pair(videos, outcome: Outcome):
    encoder = FakeEncoder()
    encoder.gates = passed(GateResult(gate=Gate.G4, outcome=outcome, detail="why"))

    assert not check(VerifyFilesRequest(*videos, HEVC), encoder).passed


def test_a_source_the_profile_would_skip_is_a_usage_error(videos):
    skipping = HEVC.model_copy(
        update={"video": HEVC.video.model_copy(update={"skip_codecs": ("h264",)})}
    )

    with pytest.raises(UsageError, match=r"would not encode .*a\.mp4"):
        check(VerifyFilesRequest(*videos, skipping), FakeEncoder())


def test_a_rendition_that_is_gone_is_named(videos):
    certificate = certify(*videos)
    videos[1].unlink()

    with pytest.raises(SourceUnreadable, match=r"Cannot read .*a\.hevc\.mp4"):
        check(VerifyFilesRequest(*videos, HEVC, certificate), FakeEncoder())


def test_a_stop_ends_the_digest(videos):
    stop = threading.Event()
    stop.set()

    with pytest.raises(Stopped):
        sha256(videos[0], stop)
