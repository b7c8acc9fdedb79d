"""Progress on DynamoDB costs a write now and then, not one for every word of the encoder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hevcq.backends.aws.dynamodb.ledger import PROGRESS_EVERY_S
from hevcq.domain.job import Phase, Source, Task, job_id
from hevcq.ports.ledger import Granted
from hevcq.worker.delivery.lease import Fence
from hevcq.worker.delivery.progress import Reporter
from support.aws.breaking import Breaking

pytestmark = pytest.mark.aws
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v", size=1)
JOB = job_id(SOURCE, "hevc")


@pytest.fixture
def reporter(farm) -> Reporter:
    ledger = farm.backend.ledger
    ledger._jobs.db = Breaking(farm.clients.dynamodb)
    claim = ledger.claim(SOURCE, "hevc", owner="w", lease_s=600)
    assert isinstance(claim, Granted)
    context = SimpleNamespace(clock=farm.clock, encode_slots=None, emit=lambda _event: None)
    lease, task = SimpleNamespace(cause=None), Task(source=SOURCE, profile="hevc")
    return Reporter(context, lease, task, Fence(ledger, JOB, claim.fence), "w")


def test_words_of_one_phase_are_written_once_in_a_while(farm, reporter) -> None:
    ledger = farm.backend.ledger
    before = ledger._jobs.db.count("update_item")

    for percent in range(10):
        reporter.percent(Phase.ENCODE, percent)
        farm.clock.advance(PROGRESS_EVERY_S / 5)

    assert ledger._jobs.db.count("update_item") - before == 2
    assert ledger.get(JOB).progress.percent == 5


def test_an_hour_of_progress_costs_120_writes(farm, reporter) -> None:
    ledger = farm.backend.ledger
    before = ledger._jobs.db.count("update_item")

    for second in range(3600):
        reporter.percent(Phase.ENCODE, second / 36)
        farm.clock.advance(1)

    assert ledger._jobs.db.count("update_item") - before == 120
