"""Tests that a planted bug asked for: without them it would have survived, or cost an encode."""

import threading
from types import SimpleNamespace

from contracts.backends import PROFILES
from hevcq.backends.embedded.factory import open_embedded
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Source, Task, job_id
from hevcq.domain.profile import Bounds
from hevcq.domain.verdict import Abandon, FailureClass, Skipped
from hevcq.errors import Unavailable
from hevcq.ffmpeg.process.child import Finished
from hevcq.ffmpeg.run.messages import decode_errors
from hevcq.ffmpeg.verify import decode as verify_decode
from hevcq.ffmpeg.verify.picture import (
    THUMB_HEIGHT,
    THUMB_WIDTH,
    Sample,
    freeze_problem,
)
from hevcq.settings.model import Settings
from hevcq.worker.delivery.lease import MAX_MARGIN_S, Fence, Lease
from support.clips import ManualClock
from support.fakes.backend import HEVC
from support.fakes.encoder import INFO, passed
from support.fakes.farm import Farm
from support.fakes.queue import MemoryQueue

SIZE = THUMB_WIDTH * THUMB_HEIGHT
DARK, GREY = bytes(SIZE), bytes([40]) * SIZE


def test_a_lease_that_runs_out_behind_the_last_step_leaves_the_message_alone(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    ended = "encode/ledger.complete:after"
    farm.come_to(lambda point: farm.clock.advance(5_000) if point == ended else None)

    handled = farm.handle()

    assert isinstance(handled.verdict, Abandon)
    assert not handled.settled
    assert farm.state(source) is JobState.DONE


def test_a_video_that_was_not_worth_it_is_not_encoded_again_under_another_name(tmp_path):
    farm = Farm(tmp_path)
    farm.encoder.gates = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
    first, second = farm.submit("a.mp4"), farm.submit("b.mp4")
    assert isinstance(farm.handle().verdict, Skipped)
    assert isinstance(farm.handle().verdict, Skipped)

    assert farm.encoder.calls.count("encode") == 1
    assert {farm.state(first), farm.state(second)} == {JobState.SKIPPED}


def test_the_length_of_a_video_is_what_was_measured_whatever_its_header_says(tmp_path):
    farm, asked = Farm(tmp_path), []
    farm.encoder.info = INFO.model_copy(update={"duration_s": 5_000.0})
    farm.encoder.measured_s = 10.0
    encode = farm.encoder.encode
    farm.encoder.encode = lambda request, **more: (asked.append(request), encode(request, **more))[
        1
    ]
    farm.submit()
    farm.handle()

    assert [request.duration_s for request in asked] == [10.0]


def test_a_claim_runs_from_when_its_renewal_was_sent_not_from_its_late_reply():
    clock, numbers = ManualClock(), HEVC.queue
    queue = MemoryQueue("hevc", clock, visibility_s=numbers.visibility_s)
    source = Source(bucket="uploads", key="TODO/all/a.mp4", version="v1", size=4)
    queue.send([Task(source=source, profile="hevc")])
    (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
    lease = Lease(queue, delivery, numbers, clock, lambda: 0.5)
    answers = [lambda: clock.advance(20), _fail]
    ledger = SimpleNamespace(renew=lambda *_, **__: answers.pop(0)())
    sent = clock.monotonic()
    lease.hold(Fence(ledger, "job", 1), claimed_at=sent)

    lease.beat(clock.monotonic())
    clock.advance(1)
    lease.beat(clock.monotonic())

    assert lease.deadline == sent + numbers.visibility_s - MAX_MARGIN_S


def _fail() -> None:
    raise Unavailable("no answer")


def test_a_release_after_a_failure_keeps_the_failure_counted(tmp_path):
    opened = open_embedded(Settings(data_dir=tmp_path / "data"), PROFILES, ManualClock())
    ledger = opened.backend.ledger
    source = Source(bucket="library", key="TODO/all/a.mp4", version="v1", size=4)
    job = job_id(source, "hevc")

    def claim():
        return ledger.claim(source, "hevc", owner="here", lease_s=60)

    ledger.fail(job, claim().fence, "it broke", FailureClass.ENCODER)
    ledger.interrupt(job, claim().fence, "the worker was stopped")
    assert claim().failures == 1
    opened.close()


def test_the_full_decode_asks_for_every_picture_and_every_sound(monkeypatch, tmp_path):
    seen = []

    def stream_child(argv, **_):
        seen.append(argv)
        return Finished(0, b"", (), 0.1, 0.1)

    monkeypatch.setattr(verify_decode, "stream_child", stream_child)
    recipe = SimpleNamespace(bounds=Bounds())
    request = SimpleNamespace(output=tmp_path / "x.mkv", info=INFO, profile=recipe)
    verify_decode.decode_problems(
        SimpleNamespace(ffmpeg="ffmpeg", sandboxed=False),
        request,
        threading.Event(),
        None,
        deadline_s=1,
    )

    (argv,) = seen
    maps = [argv[place + 1] for place, word in enumerate(argv) if word == "-map"]
    assert maps == ["0:v?", "0:a?"]
    assert "-threads" not in argv


def test_a_decoder_that_fails_without_a_word_is_a_complaint():
    assert decode_errors((), 0) == ()
    assert decode_errors((), 69) == ("decoding ended with exit code 69",)


def test_an_output_that_stands_still_while_the_source_moves_is_reported():
    moving = Sample(1.0, 1.0, ((DARK, DARK), (GREY, GREY)))
    stuck = Sample(2.0, 1.0, ((DARK, DARK), (GREY, DARK)))

    assert freeze_problem([moving]) == ""
    assert "stands still at 0:00:02.0" in freeze_problem([moving, stuck])
