"""A cancel on AWS that a worker keeps coming before: looked at again, and given up in the end."""

from __future__ import annotations

import pytest

from hevcq.domain.job import JobState, Source, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import Unavailable
from support.aws.breaking import Breaking

pytestmark = pytest.mark.aws
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v", size=1)
JOB = job_id(SOURCE, "hevc")


@pytest.fixture
def ledger(farm):
    found = farm.backend.ledger
    found._jobs.db = Breaking(farm.clients.dynamodb)
    found.claim(SOURCE, "hevc", owner="w", lease_s=60)
    return found


def overtaken(ledger, farm):
    """Let a heartbeat come between a look and the write that trusts it."""

    def call(real, **asked):
        farm.clock.advance(1)
        ledger._jobs.db.plan["update_item"], left = [], ledger._jobs.db.plan["update_item"]
        ledger.renew(JOB, 1, lease_s=60)
        ledger._jobs.db.plan["update_item"] = left
        return real(**asked)

    return call


def test_a_cancel_that_a_heartbeat_outdates_looks_again(farm, ledger) -> None:
    ledger._jobs.db.plan["update_item"] = [overtaken(ledger, farm)]

    assert ledger.cancel(JOB, "a person asked for it") is True

    record = ledger.get(JOB)
    assert (record.state, record.failure_class) == (JobState.DEAD, FailureClass.CANCELLED)


def test_a_cancel_that_is_always_outdated_is_unavailable_and_changes_nothing(farm, ledger) -> None:
    ledger._jobs.db.plan["update_item"] = [overtaken(ledger, farm)] * 100

    with pytest.raises(Unavailable, match="too many others"):
        ledger.cancel(JOB, "a person asked for it")

    ledger._jobs.db.plan["update_item"] = []
    assert ledger.get(JOB).state is JobState.RUNNING
