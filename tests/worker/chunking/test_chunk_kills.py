"""A kill before and after every call of split, chunk and join, and every call of every port failing once."""

from collections.abc import Callable
from dataclasses import dataclass

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
    """A delivery that comes to the given calls, and how its job must end in spite of a kill."""

    prepare: Callable[[VideoFarm], Source]
    sites: str
    end: JobState = JobState.DONE
    chunk_encodes: int = CHUNKS + 1
    letters: int = 0


SCENARIOS = {
    "split": Scenario(
        _job,
        "ledger.claim store.check ledger.progress scratch.job store.fetch ledger.progress#2 "
        "encoder.probe ledger.recall encoder.trim_recording store.stat ledger.progress#3 "
        "encoder.preflight ledger.get encoder.keyframes store.put ledger.split ledger.subjobs "
        "queue.send ledger.mark_enqueued store.fetch.exit scratch.job.exit queue.ack",
        chunk_encodes=CHUNKS,
    ),
    "split again": Scenario(
        _announced_again,
        "ledger.claim ledger.subjobs queue.send ledger.mark_enqueued queue.ack",
        chunk_encodes=CHUNKS,
    ),
    "chunk": Scenario(
        lambda farm: farm.split(),
        "queue.receive ledger.get ledger.claim_subjob store.check store.open scratch.job "
        "store.stream ledger.progress encoder.encode_chunk store.stream.exit store.check#2 "
        "ledger.progress#2 ledger.get#2 store.put store.publish scratch.job.exit ledger.complete "
        "ledger.subjobs queue.ack",
    ),
    "last chunk": Scenario(_last_chunk, "ledger.complete ledger.subjobs queue.send queue.ack"),
    "join": Scenario(
        _join,
        "queue.receive ledger.get ledger.claim_subjob store.check store.open ledger.subjobs store.stat "
        "scratch.job ledger.progress store.collect store.collect#2 store.collect#3 store.open#2 "
        "store.open#3 store.fetch ledger.progress#2 ledger.get#2 encoder.join ledger.progress#3 "
        "ledger.get#3 encoder.verify store.fetch.exit store.check#2 ledger.certify store.put "
        "store.publish ledger.complete store.list store.delete store.delete#2 store.delete#3 "
        "ledger.forget_subjobs scratch.job.exit queue.ack",
        chunk_encodes=CHUNKS,
    ),
    "not smaller": Scenario(
        _not_smaller,
        "ledger.remember ledger.skip store.list store.delete queue.ack",
        JobState.SKIPPED,
        chunk_encodes=CHUNKS,
    ),
    "poison": Scenario(
        _poison,
        "ledger.bury ledger.bury#2 store.list ledger.get#2 store.delete queue.bury ledger.note_letter",
        JobState.DEAD,
        2,
        letters=1,
    ),
    "lost part": Scenario(
        _lost_part,
        "store.collect#2 store.delete ledger.reopen ledger.subjobs#2 queue.send ledger.mark_enqueued "
        "scratch.job#2 encoder.self_test ledger.fail queue.release",
        chunk_encodes=CHUNKS + 1,
    ),
    "never fits": Scenario(
        _fits_once_no_more,
        "ledger.interrupt ledger.abandon_split store.list store.delete ledger.forget_subjobs queue.release",
    ),
}


CASES = [
    (name, f"{site}:{side}")
    for name, scenario in SCENARIOS.items()
    for site in scenario.sites.split()
    for side in ("before", "after")
    # Before the first receive there is nothing to lose yet, and one part cannot be collected.
    if (site, side) != ("queue.receive", "before")
    if (name, site, side) != ("lost part", "store.collect#2", "after")
]


def costs_at_most_one_chunk(farm: VideoFarm, name: str, point: str) -> Source:
    """Kill a worker at a point of a scenario; the job ends as it must, over whichever backend."""
    scenario = SCENARIOS[name]
    source = scenario.prepare(farm)

    farm.vanish_at(point)
    record = farm.until_settled(source, rounds=120)

    assert record.state is scenario.end
    assert farm.ledger.counts() == {("hevc", scenario.end): 1}
    assert farm.quiet()
    assert len(farm.letters()) == scenario.letters
    assert farm.encoder.calls.count("encode_chunk") <= scenario.chunk_encodes
    _one_proven_rendition_or_none(farm, source, scenario.end)
    Scratch(farm.folder / "scratch", farm.clock).sweep()
    assert farm.scratch_files() == []
    return source


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


@pytest.mark.repeats
def test_every_point_that_a_split_video_comes_to_is_killed_at(tmp_path):
    came_to: set[str] = set()
    killed_at: set[str] = set()
    for name, scenario in SCENARIOS.items():
        farm = VideoFarm(tmp_path / name)
        scenario.prepare(farm)
        points: list[str] = []
        farm.come_to(points.append)
        farm.handle()
        wanted = {point for of, point in CASES if of == name}
        came_to.update(points)
        killed_at.update(point for point in points if point.rpartition("/")[2] in wanted)

    print(f"{len(killed_at)} points")
    assert killed_at == came_to


@pytest.mark.repeats
@pytest.mark.parametrize(("name", "point"), CASES)
def test_a_kill_at_any_point_costs_at_most_one_chunk_and_loses_nothing(tmp_path, name, point):
    farm = VideoFarm(tmp_path)

    source = costs_at_most_one_chunk(farm, name, point)

    published = [key for key, _, _ in farm.store.published].count(farm.key(source))
    assert published == (SCENARIOS[name].end is JobState.DONE)


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
