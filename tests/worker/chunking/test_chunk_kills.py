"""A kill before and after every call of split, chunk and join, and every call of every port failing once."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

import pytest

from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Source
from hevcq.errors import PartUnfit, SourceDamaged
from hevcq.worker.admission import Scratch
from support.fakes.backend import Outage
from support.fakes.encoder import passed
from support.fakes.videofarm import CHUNKS, VideoFarm


def _job(farm: VideoFarm) -> Source:
    return farm.submit()


def _announced_again(farm: VideoFarm) -> Source:
    source = farm.submit()
    farm.vanish_at("queue.send:before")
    return source


def _last_chunk(farm: VideoFarm) -> Source:
    source = farm.split()
    for _ in range(CHUNKS - 1):
        farm.handle()
    return source


def _join(farm: VideoFarm) -> Source:
    return farm.chunked()


def _not_smaller(farm: VideoFarm) -> Source:
    farm.encoder.gates = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
    return farm.chunked()


def _poison(farm: VideoFarm) -> Source:
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")] * 9
    return source


def _lost_part(farm: VideoFarm) -> Source:
    source = farm.chunked()
    farm.store.delete(farm.chunks(source)[1].rendition.key)
    return source


def _never_fits(farm: VideoFarm) -> Source:
    source = farm.chunked()
    farm.encoder.errors["join"] = [PartUnfit("never")] * 9
    return source


def _fits_once_no_more(farm: VideoFarm) -> Source:
    source = _never_fits(farm)
    # The first of them is not counted.
    for _ in range(1 + 2):
        farm.handle()
        farm.clock.advance(100)
    return source


@dataclass(frozen=True)
class Scenario:
    """A delivery of a worker, and how its job must end wherever that worker is killed."""

    prepare: Callable[[VideoFarm], Source]
    end: JobState = JobState.DONE
    chunk_encodes: int = CHUNKS + 1
    like: str = ""
    """The scenario with which its way begins: there, workers were killed already."""


SCENARIOS = {
    "split": Scenario(_job, chunk_encodes=CHUNKS),
    "split again": Scenario(_announced_again, chunk_encodes=CHUNKS),
    "chunk": Scenario(lambda farm: farm.split()),
    "last chunk": Scenario(_last_chunk, like="chunk"),
    "join": Scenario(_join, chunk_encodes=CHUNKS),
    "not smaller": Scenario(_not_smaller, JobState.SKIPPED, CHUNKS, "join"),
    "poison": Scenario(_poison, JobState.DEAD, 2, "chunk"),
    "lost part": Scenario(_lost_part, like="join"),
    "never fits": Scenario(_fits_once_no_more, like="join"),
}


@pytest.mark.repeats
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_point_costs_at_most_one_chunk_and_loses_nothing(tmp_path, name):
    scenario = SCENARIOS[name]
    before = _points(tmp_path / "before", SCENARIOS[scenario.like]) if scenario.like else []
    points = [*dropwhile(before.__contains__, _points(tmp_path / "points", scenario))]
    assert points

    for number, point in enumerate(points):
        farm = VideoFarm(tmp_path / f"{number}")
        source = scenario.prepare(farm)
        farm.vanish_at(point)
        record = farm.until_settled(source, rounds=120)

        assert record.state is scenario.end, point
        assert farm.ledger.counts() == {("hevc", scenario.end): 1}, point
        assert farm.quiet(), point
        assert len(farm.letters()) == (scenario.end is JobState.DEAD), point
        assert farm.encoder.calls.count("encode_chunk") <= scenario.chunk_encodes, point
        _one_proven_rendition_or_none(farm, source, scenario.end)
        Scratch(farm.folder / "scratch", farm.clock).sweep()
        assert farm.scratch_files() == [], point
        published = [key for key, _, _ in farm.store.published].count(farm.key(source))
        assert published == (scenario.end is JobState.DONE), point


def _points(folder: Path, scenario: Scenario) -> list[str]:
    """Return the points that the next delivery of a scenario comes to, in their order."""
    farm, came_to = VideoFarm(folder), list[str]()
    scenario.prepare(farm)
    farm.come_to(came_to.append)
    farm.handle()
    return list(dict.fromkeys(came_to))


def _one_proven_rendition_or_none(farm: VideoFarm, source: Source, end: JobState) -> None:
    if end is not JobState.DONE:
        assert farm.renditions() == []
        return
    assert farm.renditions() == [farm.key(source)]
    rendition = farm.record(source).rendition
    with farm.store.open(rendition.certificate_key) as stream:
        certificate = Certificate.parse(stream.read())
    assert certificate.rendition_sha256 == rendition.sha256
    assert farm.store.stat(rendition.key).sha256 == rendition.sha256
    assert farm.kept(source) == []


CALLS = {
    "ledger": "claim claim_subjob split mark_enqueued subjobs complete get progress forget_subjobs "
    "bury fail abandon_split reopen interrupt",
    "store": "check fetch stream stat put publish open collect list delete",
    "queue": "ack release bury send",
}
LOST = [
    (port, call, side)
    for port, calls in CALLS.items()
    for call in calls.split()
    for side in ("before", "after")
]


LIVES: dict[str, Callable[[VideoFarm], Source]] = {"plain": _job, "poison": _poison}


@pytest.mark.repeats
@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize(("port", "call", "side"), LOST)
def test_no_lost_request_or_reply_loses_or_doubles_a_video(tmp_path, port, call, side, times, life):
    farm = VideoFarm(tmp_path)
    source = LIVES[life](farm)
    if call in {"fetch", "stream", "publish", "open", "collect"}:
        # Calls that move a whole file are not repeated: each costs one of three failures.
        times = min(times, 2)
    farm.break_port(port, side, Outage(call, times))

    record = farm.until_settled(source, rounds=200)

    assert record.state is (JobState.DEAD if life == "poison" else JobState.DONE)
    depth = farm.queue.depth()
    assert depth.ready + depth.in_flight + depth.delayed == 0
    assert depth.dead == (1 if life == "poison" else 0)
    assert farm.renditions() == ([] if life == "poison" else [farm.key(source)])
    assert farm.scratch_files() == []
