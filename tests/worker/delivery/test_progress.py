"""A job's progress: written as often as the ledger asks, within bounds, and ended by a lost lease."""

from unittest.mock import Mock

import pytest

from hevcq.domain.events import EventName
from hevcq.domain.job import Phase, job_id
from hevcq.errors import StaleFence, Unavailable
from hevcq.ports.encoder import EncodeProgress
from hevcq.worker.delivery.claim import ClaimedTask
from hevcq.worker.delivery.events import Reporter
from hevcq.worker.delivery.lease import Fence, Lease
from support.fakes.farm import Farm


@pytest.fixture
def reporting(tmp_path):
    farm = Farm(tmp_path)
    source = farm.submit()
    delivery = farm.receive()
    lease = Lease(farm.queue, delivery, farm.profile.queue, farm.clock, lambda: 0.5)
    farm.ledger.claim(source, "hevc", owner="here:0", lease_s=300)
    fence = Fence(farm.ledger, job_id(source, "hevc"), 1)
    claimed = ClaimedTask(delivery.tasks[0], farm.profile, lease, fence, "here:0")
    return farm, lease, Reporter(farm.context, claimed)


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


def test_progress_that_cannot_be_written_costs_nothing(reporting):
    farm, lease, reporter = reporting

    farm.ledger.progress = Mock(side_effect=Unavailable("no answer"))
    reporter.phase(Phase.PROBE)

    assert lease.alive()


def test_progress_under_a_stale_fence_ends_the_zombie_early(reporting):
    farm, lease, reporter = reporting
    farm.clock.advance(1)
    farm.ledger.interrupt(reporter._fence.job_id, 1, "x")

    reporter.phase(Phase.PROBE)

    assert lease.lost
    assert isinstance(lease.cause, StaleFence)
