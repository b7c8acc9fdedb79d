"""The small parts: digests, fitness, progress, crash points."""

from __future__ import annotations

import pytest

from hevcq.domain.events import EventName
from hevcq.domain.job import Phase, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import LeaseLost, SourceGone, SourceUnreadable, StaleFence, Unavailable
from hevcq.ports.encoder import EncodeProgress
from hevcq.worker.delivery.fault_attribution import SUSPECT, CircuitBreaker
from hevcq.worker.delivery.inputs import sha256_file
from hevcq.worker.delivery.lease import Fence, Lease
from hevcq.worker.delivery.progress import Reporter
from support.fakes.farm import Farm


def test_a_lost_lease_ends_the_hashing(tmp_path):
    path = tmp_path / "video"
    path.write_bytes(b"x")

    def lost():
        raise LeaseLost

    with pytest.raises(LeaseLost):
        sha256_file(path, lost)


def test_what_cannot_be_hashed_is_named(tmp_path):
    with pytest.raises(SourceGone):
        sha256_file(tmp_path / "none", lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / "none", lambda: None, missing=Unavailable)
    with pytest.raises(SourceUnreadable):
        sha256_file(tmp_path, lambda: None)
    with pytest.raises(Unavailable):
        sha256_file(tmp_path / ("n" * 300), lambda: None)


@pytest.mark.parametrize("failure_class", list(FailureClass))
def test_only_failures_that_may_be_the_machines_make_it_sick(failure_class):
    fitness = CircuitBreaker(sick_after=2)
    fitness.failed("a", failure_class)

    assert fitness.failed("b", failure_class) is (failure_class in SUSPECT)


def test_a_success_in_between_shows_that_the_worker_can_encode():
    fitness = CircuitBreaker(sick_after=2)
    fitness.failed("a", FailureClass.ENCODER)
    fitness.succeeded()

    assert not fitness.failed("b", FailureClass.ENCODER)
    assert not fitness.failed("b", FailureClass.ENCODER), "the same job counts once"
    assert fitness.failed("c", FailureClass.ENCODER)


@pytest.fixture
def reporting(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    delivery = farm.receive()
    lease = Lease(farm.queue, delivery, farm.profile.queue, farm.clock, lambda: 0.5)
    farm.ledger.claim(source, "hevc", owner="here:0", lease_s=300)
    fence = Fence(farm.ledger, job_id(source, "hevc"), 1)
    return farm, lease, Reporter(farm.context, lease, delivery.tasks[0], fence, "here:0")


@pytest.mark.parametrize("every_s", [5.0, 30.0])
def test_the_ledger_hears_of_a_phase_as_often_as_it_asks_and_the_display_always(reporting, every_s):
    farm, _lease, reporter = reporting
    written = []
    farm.ledger.progress_every_s = every_s
    farm.ledger.progress = lambda _job, _fence, progress: written.append(progress.percent)

    for percent in range(10):
        reporter.percent(Phase.ENCODE, percent)
        farm.clock.advance(every_s / 2)

    assert written == [0, 2, 4, 6, 8]
    assert [e.kind for e in farm.events] == [EventName.JOB_PROGRESS] * 10


def test_the_end_is_forecast_from_the_speed_and_percent_stays_within_bounds(reporting):
    farm, _lease, reporter = reporting
    report = reporter.encoding(Phase.ENCODE, 100.0)
    report(EncodeProgress(fraction=0.25, out_time_s=25, frame=1, speed=2.5, size=1))
    report(EncodeProgress(fraction=1.7, out_time_s=170, frame=1, speed=2.5, size=1))
    report(EncodeProgress(fraction=-1, out_time_s=0, frame=0, speed=None, size=0))

    progress = [event.progress for event in farm.events]
    assert (progress[0].percent, progress[0].eta_s) == (25, 30)
    assert (progress[1].percent, progress[1].eta_s) == (100, 0)
    assert (progress[2].percent, progress[2].eta_s) == (0, None)


def test_a_transfer_of_nothing_is_complete(reporting):
    farm, _lease, reporter = reporting
    reporter.moved(Phase.FETCH, 0)(0)
    reporter.moved(Phase.FETCH, 200)(50)

    assert [event.progress.percent for event in farm.events] == [100, 25]


def test_progress_that_cannot_be_written_costs_nothing(reporting):
    farm, lease, reporter = reporting

    def down(*_args):
        raise Unavailable("no answer")

    farm.ledger.progress = down
    reporter.phase(Phase.PROBE)

    assert lease.alive()


def test_progress_under_a_stale_fence_ends_the_zombie_early(reporting):
    farm, lease, reporter = reporting
    farm.clock.advance(1)
    farm.ledger.interrupt(reporter._fence.job_id, 1, "x")

    reporter.phase(Phase.PROBE)

    assert lease.lost
    assert isinstance(lease.cause, StaleFence)


def test_a_job_that_must_end_reports_no_more(reporting):
    farm, lease, reporter = reporting
    lease.end(LeaseLost())
    reporter.phase(Phase.PROBE)

    assert farm.events == []
