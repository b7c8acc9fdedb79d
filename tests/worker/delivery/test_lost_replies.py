"""Every call of every port fails once: its request is lost, or its effect happened and its reply is."""

from unittest.mock import Mock

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Source, job_id
from hevcq.domain.verdict import Done, Release, RetryIn
from hevcq.errors import EncoderFailed, SourceDamaged, StaleFence, Stopped, Unavailable
from hevcq.worker.delivery.claim import LedgerTransitions
from hevcq.worker.delivery.lease import Fence
from support.fakes.backend import Outage
from support.fakes.encoder import passed
from support.fakes.farm import Farm
from support.fakes.videofarm import VideoFarm

CALLS = {
    "ledger": "claim progress recall remember complete skip fail interrupt bury get",
    "store": "check fetch stat put publish free_bytes",
    "queue": "ack release bury",
}
CASES = [
    (port, call, side)
    for port, calls in CALLS.items()
    for call in calls.split()
    for side in ("before", "after")
]


WHOLE = {"fetch", "publish"}
"""Calls that move a whole file: their adapters repeat parts of them, the handler does not, so that
each that fails is a counted failure, of which a job has two to spare."""


LIVES = ("plain", "not smaller", "transient", "poison", "stopped")


ENDS = {"not smaller": JobState.SKIPPED, "poison": JobState.DEAD}


def _submitted(farm: Farm, life: str) -> Source:
    if life == "not smaller":
        farm.encoder.gates = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
    if life == "transient":
        farm.encoder.errors["encode"] = [EncoderFailed("once")]
    if life == "poison":
        farm.encoder.errors["preflight"] = [SourceDamaged("holes")] * 9
    if life == "stopped":
        farm.encoder.errors["encode"] = [Stopped()]
    return farm.submit()


@pytest.mark.repeats
@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize(("port", "call", "side"), CASES)
@pytest.mark.parametrize("times", [1, 4])
def test_no_lost_request_or_reply_loses_or_doubles_a_job(tmp_path, port, call, side, life, times):
    farm = Farm(tmp_path)
    if call in WHOLE:
        times = min(times, 1 if life == "transient" else 2)
    source = _submitted(farm, life)
    farm.break_port(port, side, Outage(call, times))

    record = farm.until_settled(source)

    assert record.state is ENDS.get(life, JobState.DONE)
    depth = farm.queue.depth()
    assert depth.ready + depth.in_flight + depth.delayed == 0
    assert depth.dead == (1 if record.state is JobState.DEAD else 0)
    visible = [o for o in farm.store.list("DONE/") if not o.key.endswith(".json")]
    assert len(visible) == (1 if record.state is JobState.DONE else 0)
    assert len(farm.store.published) == len(visible)
    assert farm.scratch_files() == []


@pytest.mark.repeats
@pytest.mark.parametrize("call", ["complete", "skip", "fail", "interrupt", "bury", "publish"])
def test_a_transition_whose_reply_was_lost_is_not_made_twice(tmp_path, call):
    farm = Farm(tmp_path)
    life = {"skip": "not smaller", "fail": "transient", "interrupt": "stopped", "bury": "poison"}
    source = _submitted(farm, life.get(call, "plain"))
    farm.doubt(farm.record(source).job_id)
    outage = Outage(call, 1)
    farm.break_port("store" if call == "publish" else "ledger", "after", outage)

    handled = farm.handle()

    assert outage.left == 0
    assert handled.settled, "the effect was recognised, so the delivery is settled at once"
    assert farm.record(source).failures == (1 if call == "fail" else 0)
    assert [s for _, s in farm.ledger.history].count(farm.state(source)) == 1
    assert call not in {"complete", "publish"} or farm.encoder.calls.count("encode") == 1


@pytest.mark.parametrize("same_end", [True, False])
def test_an_end_without_an_answer_is_not_ours_if_another_attempt_took_over(tmp_path, same_end):
    farm = Farm(tmp_path)
    source, skip, tried = farm.submit(), farm.ledger.skip, []
    job = farm.record(source).job_id

    def claimed() -> int:
        return farm.ledger.claim(source, "hevc", owner=f"{farm.clock.now()}", lease_s=1.0).fence

    def overtaken(*asked: object) -> None:
        if tried:
            return skip(*asked)
        tried.append(asked)
        farm.clock.advance(2.0)
        fence = claimed()
        if same_end:
            skip(job, fence, "by another")
        raise Unavailable("no answer")

    ours = LedgerTransitions(farm.context, Mock(), Fence(farm.ledger, job, claimed()))
    farm.ledger.skip = overtaken

    with pytest.raises(StaleFence):
        ours.skip("by us")


def lost(port, call, *, times=1, happened=True):
    """Let the next calls of a port end without an answer."""
    real, left = getattr(port, call), [times]

    def without_answer(*args, **more):
        if left[0]:
            left[0] -= 1
            if happened:
                real(*args, **more)
            raise Unavailable("no answer")
        return real(*args, **more)

    setattr(port, call, without_answer)


@pytest.mark.parametrize("there", [None, "another job", "other bytes"])
def test_a_publication_that_did_not_happen_is_not_taken_for_one(tmp_path, there):
    farm = Farm(tmp_path)
    source = farm.submit()
    if there is not None:
        owner = "somebody else's" if there == "another job" else job_id(source, "hevc")
        farm.store.put(farm.key(source), b"what is there", metadata={"job": owner})
    lost(farm.store, "publish", happened=False)

    assert isinstance(farm.handle().verdict, RetryIn)
    assert farm.state(source) is JobState.QUEUED
    assert farm.store.published == []


def test_a_video_whose_chunks_could_not_be_queued_is_looked_at_again_soon(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.submit()
    queue = farm.context.backend.queues["hevc"]
    lost(queue, "send", times=3, happened=False)

    handled = farm.handle()

    assert isinstance(handled.verdict, Release)
    assert farm.state(source) is JobState.SPLIT
    assert not farm.record(source).split.announced
    assert farm.until_settled(source).state is JobState.DONE
    assert farm.encoder.calls.count("keyframes") == 1, "it was not split again"


def test_work_that_cannot_be_swept_keeps_no_video_from_being_done(tmp_path):
    farm = VideoFarm(tmp_path)
    source = farm.chunked()
    lost(farm.store, "list", happened=False)

    assert isinstance(farm.handle().verdict, Done)

    assert farm.state(source) is JobState.DONE
    assert farm.kept(source) != [], "a later sweep removes it"
