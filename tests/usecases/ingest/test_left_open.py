"""An ingest that does not wait to the end: what is finished is placed, and the rest is counted."""

import threading

import pytest

from hevcq.ports.catalog import PlacementState
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.ingest.decide import Disposition
from hevcq.usecases.ingest.track import IngestOutcome
from support.ingest.run import NEVER, Bench, session, videos


def test_what_is_finished_is_put_in_place_once_and_the_rest_stays_queued(bench: Bench) -> None:
    ingest = session(bench)
    plan = ingest.plan(videos(bench, "a.mp4", "b.mp4"))
    for item in plan.of(Disposition.QUEUE):
        ingest.uploader.submit([[item]])
        ingest.uploader.step([item], NEVER)
    first, second = bench.backend.ledger.jobs(JobFilter())
    bench.work(first)

    again = session(bench)
    again.collect_finished(NEVER)

    states = {p.job_id: p.state for p in bench.catalog.placements()}
    assert states == {
        first.job_id: PlacementState.PLACED,
        second.job_id: PlacementState.WAITING,
    }
    assert not again.open


def test_nothing_is_put_in_place_once_a_stop_is_asked_for(bench: Bench) -> None:
    ingest = session(bench)
    (item,) = ingest.plan(videos(bench, "a.mp4")).of(Disposition.QUEUE)
    ingest.uploader.step([item], NEVER)
    (job,) = bench.backend.ledger.jobs(JobFilter())
    bench.work(job)
    (stop := threading.Event()).set()

    again = session(bench)
    again.collect_finished(stop)

    (placement,) = bench.catalog.placements()
    assert placement.state is PlacementState.WAITING
    assert again.summary.counts() == {}


@pytest.mark.parametrize(
    ("queued", "outcome"), [(True, IngestOutcome.QUEUED), (False, IngestOutcome.OPEN)]
)
def test_what_is_left_open_is_counted_as_it_was_asked_for(
    bench: Bench, outcome: IngestOutcome, *, queued: bool
) -> None:
    ingest = session(bench)
    (item,) = ingest.plan(videos(bench, "a.mp4")).of(Disposition.QUEUE)
    ingest.uploader.step([item], NEVER)
    assert ingest.open

    ingest.finish(queued=queued)

    assert ingest.summary.counts() == {outcome: 1}
