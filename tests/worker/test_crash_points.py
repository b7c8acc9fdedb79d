"""A kill before and after every call of a whole job: nothing lost, twice, half made or left over."""

from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import Mock

import pytest

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Source
from hevcq.errors import EncoderFailed, LimitExceeded, SourceDamaged, Stopped
from hevcq.worker.admission import Scratch
from support.fakes.encoder import passed
from support.fakes.farm import Farm

pytestmark = pytest.mark.repeats


def _encode(farm: Farm) -> Source:
    return farm.submit()


def _not_smaller(farm: Farm) -> Source:
    farm.encoder.gates = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
    return farm.submit()


def _doubtful(farm: Farm) -> Source:
    farm.encoder.errors["encode"] = [EncoderFailed("once")]
    return farm.submit()


def _transient(farm: Farm) -> Source:
    source = _doubtful(farm)
    farm.doubt(farm.record(source).job_id)
    return source


def _poison(farm: Farm) -> Source:
    farm.encoder.errors["preflight"] = [SourceDamaged("holes")] * 9
    return farm.submit()


def _stopped(farm: Farm) -> Source:
    farm.encoder.errors["encode"] = [Stopped()]
    return farm.submit()


def _published(farm: Farm) -> Source:
    source = farm.submit()
    farm.vanish_at("store.publish:after")
    return source


def _too_late(farm: Farm) -> Source:
    """The message was held for as long as one may be before its job could be claimed."""

    farm.ledger.claim = Mock(side_effect=LimitExceeded("The message was held for too long."))
    return farm.submit()


@dataclass(frozen=True)
class Scenario:
    """A delivery that comes to the given calls, and how its job must end in spite of a kill."""

    prepare: Callable[[Farm], Source]
    sites: str
    end: JobState
    encodes: int


SCENARIOS = {
    "encode": Scenario(
        _encode,
        "queue.receive ledger.claim store.check ledger.progress scratch.job store.fetch "
        "ledger.progress#2 encoder.probe ledger.recall encoder.trim_recording store.stat "
        "ledger.progress#3 encoder.preflight encoder.encode encoder.verify store.fetch.exit "
        "store.check#2 ledger.certify store.put store.publish scratch.job.exit ledger.complete queue.ack",
        JobState.DONE,
        2,
    ),
    "not smaller": Scenario(_not_smaller, "ledger.remember ledger.skip", JobState.SKIPPED, 2),
    "doubtful": Scenario(
        _doubtful,
        "store.check#2 scratch.job#2 encoder.self_test scratch.job.exit ledger.interrupt queue.release",
        JobState.DONE,
        2,
    ),
    "transient": Scenario(_transient, "ledger.fail queue.release", JobState.DONE, 2),
    "poison": Scenario(_poison, "ledger.bury queue.bury ledger.note_letter", JobState.DEAD, 0),
    "stopped": Scenario(_stopped, "ledger.interrupt queue.release", JobState.DONE, 2),
    "published": Scenario(
        _published,
        "store.stat store.open ledger.get store.open#2 store.fetch.exit ledger.complete queue.ack",
        JobState.DONE,
        1,
    ),
    "too late": Scenario(
        _too_late, "ledger.bury_unclaimed queue.bury ledger.note_letter", JobState.DEAD, 0
    ),
}
CASES = [
    (name, f"{site}:{side}")
    for name, scenario in SCENARIOS.items()
    for site in scenario.sites.split()
    for side in ("before", "after")
    # Where nothing was received before there is nothing to lose yet.
    if (site, side) != ("queue.receive", "before")
]


def test_every_point_that_a_whole_job_comes_to_is_killed_at(tmp_path):
    came_to: set[str] = set()
    for name, scenario in SCENARIOS.items():
        farm = Farm(tmp_path / name)
        scenario.prepare(farm)
        farm.come_to(came_to.add)
        farm.handle()

    killed_at = {point for _, point in CASES}
    print(f"{len(killed_at)} points")
    assert {point.rpartition("/")[2] for point in came_to} == killed_at


@pytest.mark.parametrize(("name", "point"), CASES)
def test_a_kill_at_any_point_leaves_the_job_to_the_next_worker(tmp_path, name, point):
    farm, scenario = Farm(tmp_path), SCENARIOS[name]
    source = scenario.prepare(farm)

    farm.vanish_at(point)
    record = farm.until_settled(source)

    assert record.state is scenario.end
    depth = farm.queue.depth()
    assert (depth.ready, depth.in_flight, depth.delayed) == (0, 0, 0)
    assert depth.dead == (1 if scenario.end is JobState.DEAD else 0)
    assert farm.encoder.calls.count("encode") <= scenario.encodes
    _one_proven_rendition_or_none(farm, source, scenario.end)
    Scratch(tmp_path / "scratch", farm.clock).sweep()
    assert farm.scratch_files() == []


def _one_proven_rendition_or_none(farm: Farm, source: Source, end: JobState) -> None:
    visible = [o for o in farm.store.list("") if not o.key.endswith(".certificate.json")]
    if end is not JobState.DONE:
        assert visible == []
        return
    (rendition,) = visible
    record = farm.record(source)
    assert record.rendition.sha256 == rendition.sha256
    certificate = Certificate.parse(farm.store.content(rendition.metadata["certificate"]))
    assert certificate.rendition_sha256 == rendition.sha256
    assert len(farm.store.published) == 1
