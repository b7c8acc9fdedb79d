"""A kill at every crash point of split, chunk and join, and every call of every port failing once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from fakes.backend import Faulty
from fakes.encoder import passed
from fakes.filmfarm import CHUNKS, EmbeddedFilmFarm, FilmFarm
from hevcq.domain.certificate import Certificate, Gate, GateResult, Outcome
from hevcq.domain.job import JobState, Source
from hevcq.errors import PartUnfit, SourceDamaged, Unavailable
from hevcq.worker.faults import SPLIT_POINTS
from hevcq.worker.scratch import Scratch

pytestmark = pytest.mark.repeats


def _job(farm: FilmFarm) -> Source:
    return farm.submit()


def _announced_again(farm: FilmFarm) -> Source:
    source = farm.submit()
    assert farm.killed_at("before-send-chunks")
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    return source


def _published_part(farm: FilmFarm) -> Source:
    source = farm.split()
    assert farm.killed_at("after-publish-part")
    for _ in range(CHUNKS - 1):
        farm.receive()
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
    return source


def _last_chunk(farm: FilmFarm) -> Source:
    source = farm.split()
    for _ in range(CHUNKS - 1):
        farm.handle()
    return source


def _join(farm: FilmFarm) -> Source:
    return farm.chunked()


def _not_smaller(farm: FilmFarm) -> Source:
    farm.encoder.gates = passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
    return farm.chunked()


def _poison(farm: FilmFarm) -> Source:
    source = farm.split()
    farm.encoder.errors["encode_chunk"] = [SourceDamaged("holes")] * 9
    return source


def _lost_part(farm: FilmFarm) -> Source:
    source = farm.chunked()
    farm.store.delete(farm.chunks(source)[1].rendition.key)
    return source


def _never_fits(farm: FilmFarm) -> Source:
    source = farm.chunked()
    farm.encoder.errors["join"] = [PartUnfit("never")] * 9
    return source


def _fits_once_no_more(farm: FilmFarm) -> Source:
    source = _never_fits(farm)
    # The first of them is not counted.
    for _ in range(1 + 2):
        farm.handle()
        farm.clock.advance(100)
    return source


@dataclass(frozen=True)
class Scenario:
    """A delivery that meets the given steps, and how its job must end in spite of a kill."""

    prepare: Callable[[FilmFarm], Source]
    steps: str
    end: JobState = JobState.DONE
    chunk_encodes: int = CHUNKS + 1
    letters: int = 0


SCENARIOS = {
    "split": Scenario(
        _job,
        "claim check fetch probe hash-source preflight look keyframes put-plan split count "
        "send-chunks announce ack",
        chunk_encodes=CHUNKS,
    ),
    "split again": Scenario(
        _announced_again, "claim count send-chunks announce ack", chunk_encodes=CHUNKS
    ),
    "chunk": Scenario(
        lambda farm: farm.split(),
        "look claim check read-plan stat-part fetch encode-chunk recheck hash-part put-report "
        "publish-part complete count ack",
    ),
    "found part": Scenario(
        _published_part,
        "stat-part read-report hash-found-part complete count ack",
        chunk_encodes=CHUNKS,
    ),
    "last chunk": Scenario(_last_chunk, "complete count send-join ack"),
    "join": Scenario(
        _join,
        "look claim check read-plan count stat collect-parts read-plan fetch join verify recheck "
        "hash-output put-certificate publish end-complete sweep ack",
        chunk_encodes=CHUNKS,
    ),
    "not smaller": Scenario(
        _not_smaller, "remember end-skip sweep ack", JobState.SKIPPED, chunk_encodes=CHUNKS
    ),
    "poison": Scenario(_poison, "bury end-bury bury-delivery", JobState.DEAD, 2, letters=1),
    "lost part": Scenario(
        _lost_part, "collect-parts redo send-chunks announce fail", chunk_encodes=CHUNKS + 1
    ),
    "never fits": Scenario(_fits_once_no_more, "interrupt end-unsplit sweep release"),
}
CASES = [
    (name, f"{side}-{step}")
    for name, scenario in SCENARIOS.items()
    for step in scenario.steps.split()
    for side in ("before", "after")
]


def costs_at_most_one_chunk(farm: FilmFarm, name: str, point: str) -> Source:
    """Kill a worker at a point of a scenario; the job ends as it must, over whichever backend."""
    scenario = SCENARIOS[name]
    source = scenario.prepare(farm)

    if (name, point) != ("lost part", "after-collect-parts"):
        assert farm.killed_at(point), "the scenario does not meet the point"
    farm.clock.advance(farm.profile.queue.visibility_s + 1)
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


def _one_proven_rendition_or_none(farm: FilmFarm, source: Source, end: JobState) -> None:
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


@pytest.mark.parametrize(("name", "point"), CASES)
def test_the_same_kills_over_the_embedded_backend(tmp_path, name, point):
    farm = EmbeddedFilmFarm(tmp_path)

    costs_at_most_one_chunk(farm, name, point)

    farm.opened.close()


def test_every_point_that_only_split_jobs_have_is_killed_at_somewhere():
    assert set(SPLIT_POINTS) <= {point for _, point in CASES}


@pytest.mark.parametrize(("name", "point"), CASES)
def test_a_kill_at_any_point_costs_at_most_one_chunk_and_loses_nothing(tmp_path, name, point):
    farm = FilmFarm(tmp_path)

    source = costs_at_most_one_chunk(farm, name, point)

    published = [key for key, _, _ in farm.store.published].count(farm.key(source))
    assert published == (SCENARIOS[name].end is JobState.DONE)


CALLS = {
    "ledger": [
        "claim",
        "claim_part",
        "split",
        "announce",
        "parts",
        "complete",
        "get",
        "progress",
        "forget_parts",
        "bury",
        "fail",
        "unsplit",
        "reopen",
        "interrupt",
    ],
    "store": [
        "check",
        "fetch",
        "stream",
        "stat",
        "put",
        "publish",
        "open",
        "collect",
        "list",
        "delete",
    ],
    "queue": ["ack", "release", "bury", "send"],
}
LIVES: dict[str, Callable[[FilmFarm], Source]] = {
    "plain": _job,
    "poison": _poison,
    "lost part": _lost_part,
    "never fits": _never_fits,
}


class _Outage:
    def __init__(self, call: str, times: int) -> None:
        self.call, self.left = call, times

    def __call__(self, name: str) -> None:
        if name == self.call and self.left:
            self.left -= 1
            raise Unavailable(f"{name} got no answer.")


def _break(farm: FilmFarm, port: str, side: str, outage: _Outage) -> None:
    whole = farm.kit.backend
    if port == "queue":
        queues = {n: Faulty(q, **{side: outage}) for n, q in whole.queues.items()}
        farm.with_kit(backend=replace(whole, queues=queues))
    else:
        broken = Faulty(getattr(whole, port), **{side: outage})
        farm.with_kit(backend=replace(whole, **{port: broken}))


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(
    ("port", "call"), [(port, call) for port, calls in CALLS.items() for call in calls]
)
def test_no_lost_request_or_reply_loses_or_doubles_a_film(tmp_path, port, call, side, times, life):
    farm = FilmFarm(tmp_path)
    source = LIVES[life](farm)
    if call in {"fetch", "stream", "publish", "open", "collect"}:
        # Calls that move a whole file are not repeated: each costs one of three failures, and a
        # join that misses a part has spent one of them before it fetches.
        short = life == "never fits" or (life, call) == ("lost part", "fetch")
        times = min(times, 1 if short else 2)
    _break(farm, port, side, _Outage(call, times))

    record = farm.until_settled(source, rounds=200)

    assert record.state is (JobState.DEAD if life == "poison" else JobState.DONE)
    depth = farm.queue.depth()
    assert depth.ready + depth.in_flight + depth.delayed == 0
    assert depth.dead == (1 if life == "poison" else 0)
    assert farm.renditions() == ([] if life == "poison" else [farm.key(source)])
    assert farm.scratch_files() == []
