"""A forecast that samples narrow: what cannot be sampled, Ctrl-C, the time, and when it is enough."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.cli.output.ingest_report import plan_total, sampled
from hevcq.cli.output.live import Board, scanning
from hevcq.domain.events import EventName
from hevcq.errors import DiskFull, SourceDamaged, WorkerUnfit
from hevcq.ports.encoder import Estimate
from hevcq.usecases.ingest.decide import IngestPlan
from hevcq.usecases.ingest.fit import KNOWN_WITHIN, Sampling
from support.ingest.run import NEVER, Bench, session, videos
from support.ingest.values import media_info


class Dry:
    """A dry run of some videos of 1 MB that samples for a minute; each sample takes 10 s."""

    def __init__(self, bench: Bench, videos: int = 4) -> None:
        self.bench, self.count = bench, videos
        bench.encoder.during["estimate"] = lambda: bench.clock.advance(10.0)

    def plan(self, seconds: float = 60.0, length_s: float | None = 10.0) -> IngestPlan:
        bench = self.bench
        refine = Sampling(
            bench.encoder, self.scratch, bench.clock, NEVER, bench.events.append, seconds
        )
        found = [
            replace(each, info=media_info(seconds=length_s and length_s + number))
            for number, each in enumerate(videos(bench, *(f"{n}.mp4" for n in range(self.count))))
        ]
        return session(bench, refine=refine).plan(found)

    @contextmanager
    def scratch(self, needed: int) -> Iterator[Path]:
        folder = self.bench.folder / "scratch"
        folder.mkdir()
        try:
            yield folder
        finally:
            folder.rmdir()

    @property
    def tries(self) -> int:
        return self.bench.encoder.calls.count("estimate")


@pytest.fixture
def dry(bench: Bench) -> Dry:
    return Dry(bench)


def width(plan: IngestPlan) -> float:
    assert plan.output is not None
    return (plan.output.high - plan.output.low) / (plan.output.high + plan.output.low)


def test_it_ends_as_soon_as_the_sum_is_known(dry: Dry) -> None:
    dry.count = 40
    plain = width(dry.plan(seconds=0.0))

    plan = dry.plan(seconds=1e6)

    assert dry.tries == plan.sampled < 40
    assert width(plan) <= KNOWN_WITHIN < plain
    assert plan.output is not None
    half = sum(item.size for item in plan.items) / 2
    assert sum(plan.output) / 2 == pytest.approx(half, rel=KNOWN_WITHIN)
    assert sampled(plan) == f"By samples of {plan.sampled} of 40."


def test_progress_says_what_is_known_so_far(dry: Dry) -> None:
    board, said = Board(), list[str]()
    dry.plan()

    for event in dry.bench.events:
        board.apply(event)
        if event.event is EventName.SAMPLE_PROGRESS:
            said.append(scanning(board, 0.0))

    assert said[0].startswith("Sampled 0 of 4 videos: all become ")
    assert said[-1].startswith(f"Sampled {dry.tries} of 4 videos: all become ")
    assert board.sampled == ""


def test_after_its_time_it_begins_no_further_video(dry: Dry) -> None:
    dry.bench.encoder.estimates = [Estimate(9e5, 0.5, 9), Estimate(1e5, 0.5, 9)]

    plan = dry.plan(seconds=15.0)

    assert (dry.tries, plan.sampled) == (2, 2)


def test_ctrl_c_ends_the_sampling_and_what_is_known_is_shown(dry: Dry) -> None:
    dry.bench.encoder.estimates = [Estimate(9e5, 0.5, 9)]

    def second() -> None:
        if dry.tries == 2:
            NEVER.set()

    dry.bench.encoder.during["estimate"] = second

    plan = dry.plan()

    assert (dry.tries, plan.sampled) == (2, 1)
    assert not NEVER.is_set(), "the plan goes on"
    assert not (dry.bench.folder / "scratch").exists()


@pytest.mark.parametrize("bad", [SourceDamaged("a.mp4 is damaged."), None])
def test_what_cannot_be_sampled_is_forecast_by_the_others(dry: Dry, bad) -> None:
    if bad is None:
        dry.bench.encoder.estimates = [None]
    else:
        dry.bench.encoder.errors["estimate"] = [bad]

    plan = dry.plan()

    assert plan.sampled == dry.tries - 1 > 0


def test_if_nothing_can_be_sampled_it_says_so_and_the_table_holds(dry: Dry) -> None:
    plain = dry.plan(seconds=0.0)
    dry.bench.encoder.estimates = [None] * 4

    plan = dry.plan()

    assert plan.output == plain.output
    assert sampled(plan).startswith("None of 4 could be sampled")


@pytest.mark.parametrize("error", [DiskFull("Full."), WorkerUnfit("No ffmpeg.")])
def test_a_machine_that_cannot_sample_is_an_error(dry: Dry, error: Exception) -> None:
    dry.bench.encoder.errors["estimate"] = [error]

    with pytest.raises(type(error)):
        dry.plan()


def test_nothing_is_foretold_of_a_video_whose_length_nobody_knows(dry: Dry) -> None:
    plan = dry.plan(length_s=None)

    assert dry.tries == 0
    assert all(item.output is None for item in plan.items)
    assert plan_total(plan) == "4 to encode. Not counted: 4 videos of unknown length."
