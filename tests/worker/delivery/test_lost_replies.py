"""Every call of every port fails once: its request is lost, or its effect happened and its reply is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Source
from hevcq.errors import EncoderFailed, SourceDamaged, Stopped, Unavailable
from support.fakes.backend import Faulty
from support.fakes.encoder import passed
from support.fakes.farm import Farm

pytestmark = pytest.mark.repeats

CALLS = {
    "ledger": [
        "claim",
        "progress",
        "recall",
        "remember",
        "complete",
        "skip",
        "fail",
        "interrupt",
        "bury",
        "get",
    ],
    "store": ["check", "fetch", "stat", "put", "publish", "free_bytes"],
    "queue": ["ack", "release", "bury"],
}
CASES = [
    (port, call, side)
    for port, calls in CALLS.items()
    for call in calls
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


class _Outage:
    """Raises Unavailable for the first `times` calls of one method."""

    def __init__(self, call: str, times: int) -> None:
        self.call, self.left, self.hit = call, times, 0

    def __call__(self, name: str) -> None:
        if name == self.call and self.left:
            self.left -= 1
            self.hit += 1
            raise Unavailable(f"{name} got no answer.")


def _break(farm: Farm, port: str, side: str, outage: _Outage) -> None:
    whole = farm.context.backend
    if port == "queue":
        queues = {n: Faulty(q, **{side: outage}) for n, q in whole.queues.items()}
        farm.with_context(backend=replace(whole, queues=queues))
    else:
        farm.with_context(
            backend=replace(whole, **{port: Faulty(getattr(whole, port), **{side: outage})})
        )


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize(("port", "call", "side"), CASES)
@pytest.mark.parametrize("times", [1, 2, 4])
def test_no_lost_request_or_reply_loses_or_doubles_a_job(tmp_path, port, call, side, life, times):
    farm = Farm(tmp_path)
    if call in WHOLE:
        times = min(times, 1 if life == "transient" else 2)
    outage = _Outage(call, times)
    source = _submitted(farm, life)
    _break(farm, port, side, outage)

    record = farm.until_settled(source)

    assert record.state is ENDS.get(life, JobState.DONE)
    depth = farm.queue.depth()
    assert depth.ready + depth.in_flight + depth.delayed == 0
    assert depth.dead == (1 if record.state is JobState.DEAD else 0)
    visible = [o for o in farm.store.list("DONE/") if not o.key.endswith(".json")]
    assert len(visible) == (1 if record.state is JobState.DONE else 0)
    assert len(farm.store.published) == len(visible)
    assert farm.scratch_files() == []


@pytest.mark.parametrize("call", ["complete", "skip", "fail", "interrupt", "bury"])
def test_a_transition_whose_reply_was_lost_is_not_made_twice(tmp_path, call):
    farm = Farm(tmp_path)
    life = {"skip": "not smaller", "fail": "transient", "interrupt": "stopped", "bury": "poison"}
    source = _submitted(farm, life.get(call, "plain"))
    farm.doubt(farm.record(source).job_id)
    outage = _Outage(call, 1)
    _break(farm, "ledger", "after", outage)

    handled = farm.handle()

    assert outage.hit == 1
    assert handled.settled, "the effect was recognised, so the delivery is settled at once"
    assert farm.record(source).failures == (1 if call == "fail" else 0)
    assert [s for _, s in farm.ledger.history].count(farm.state(source)) == 1


def test_a_publication_whose_reply_was_lost_is_recognised_by_its_digest(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    _break(farm, "store", "after", _Outage("publish", 1))

    farm.handle()

    record = farm.record(source)
    assert (record.state, record.failures, record.fence) == (JobState.DONE, 0, 1)
    assert farm.encoder.calls.count("encode") == 1


def test_a_service_that_stays_away_costs_counted_failures_and_ends_with_its_class(tmp_path):
    farm = Farm(tmp_path)
    farm.submit()
    _break(farm, "store", "before", _Outage("fetch", 99))

    for _ in range(20):
        farm.handle()
        farm.clock.advance(200)

    (letter,) = farm.letters()
    assert letter.failure_class.value == "network"
    assert "fetch got no answer" in letter.reason
