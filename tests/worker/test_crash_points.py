"""A kill before and after every call of a whole job: nothing lost, twice, half made or left over."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
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
    """A delivery of a worker, and how its job must end wherever that worker is killed."""

    prepare: Callable[[Farm], Source]
    end: JobState = JobState.DONE
    encodes: int = 2


SCENARIOS = {
    "encode": Scenario(_encode),
    "not smaller": Scenario(_not_smaller, JobState.SKIPPED),
    "doubtful": Scenario(_doubtful),
    "transient": Scenario(_transient),
    "poison": Scenario(_poison, JobState.DEAD, 0),
    "stopped": Scenario(_stopped),
    "published": Scenario(_published, encodes=1),
    "too late": Scenario(_too_late, JobState.DEAD, 0),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_point_leaves_the_job_to_the_next_worker(tmp_path, name):
    """At each point that the delivery comes to, from where it takes another way than a plain encode."""
    plain = _points(tmp_path / "plain", SCENARIOS["encode"]) if name != "encode" else []
    points = [*dropwhile(plain.__contains__, _points(tmp_path / "points", SCENARIOS[name]))]
    assert points
    for number, point in enumerate(points):
        farm, scenario = Farm(tmp_path / f"{number}"), SCENARIOS[name]
        source = scenario.prepare(farm)

        farm.vanish_at(point)
        record = farm.until_settled(source)

        assert record.state is scenario.end, point
        depth = farm.queue.depth()
        assert (depth.ready, depth.in_flight, depth.delayed) == (0, 0, 0), point
        assert depth.dead == (1 if scenario.end is JobState.DEAD else 0), point
        assert farm.encoder.calls.count("encode") <= scenario.encodes, point
        _one_proven_rendition_or_none(farm, source, scenario.end)
        Scratch(farm.folder / "scratch", farm.clock).sweep()
        assert farm.scratch_files() == [], point


def _points(folder: Path, scenario: Scenario) -> list[str]:
    """Return the points that the next delivery of a scenario comes to, in their order."""
    farm, came_to = Farm(folder), list[str]()
    scenario.prepare(farm)
    farm.come_to(came_to.append)
    farm.handle()
    return list(dict.fromkeys(came_to))


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
