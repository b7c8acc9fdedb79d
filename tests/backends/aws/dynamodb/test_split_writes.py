"""A split is written part by part on DynamoDB: what a lost reply or a kill in the middle leaves."""

from __future__ import annotations

import pytest

from contracts.backends import PROFILES
from hevcq.domain.job import JobState, Source, Split, job_id
from hevcq.errors import StaleFence, Unavailable
from hevcq.ports.ledger import Granted
from support.aws.breaking import Breaking, broken
from support.aws.moto_server import make_farm
from support.aws.values import Killed

pytestmark = pytest.mark.aws
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v", size=1)
JOB = job_id(SOURCE, "hevc")
FRAMES = [50, 50, 20]


def split_named(name: str) -> Split:
    return Split(name=name, chunks=3, frames=120, seconds=4.8, plan_sha256="0" * 64)


@pytest.fixture
def ledger():
    farm = make_farm(PROFILES)
    found = farm.backend.ledger
    found._jobs.db = found._listing._db = Breaking(farm.clients.dynamodb)
    yield found
    farm.backend.close()


def claim(ledger) -> int:
    granted = ledger.claim(SOURCE, "hevc", owner="w", lease_s=60)
    assert isinstance(granted, Granted)
    return granted.fence


def twice(real, **asked):
    """Do what botocore does when the answer is lost: send the same request again."""
    real(**asked)
    return real(**asked)


def test_a_part_whose_answer_was_lost_is_put_in_once(ledger) -> None:
    fence = claim(ledger)
    ledger._jobs.db.plan["put_item"] = [twice, None, twice]

    ledger.split(JOB, fence, split_named("s-1"), FRAMES)

    assert ledger.get(JOB).state is JobState.SPLIT
    assert [part.part.frames for part in ledger.parts(JOB)] == [*FRAMES, 0]


@pytest.mark.parametrize("number", range(4))
def test_a_kill_between_two_parts_leaves_a_running_job_that_nobody_calls_split(
    ledger, number: int
) -> None:
    fence = claim(ledger)
    ledger._jobs.db.plan["put_item"] = [None] * number + [Killed()]

    with pytest.raises(Killed):
        ledger.split(JOB, fence, split_named("s-1"), FRAMES)

    assert ledger.get(JOB).state is JobState.RUNNING
    assert ledger.parts(JOB) == []
    ledger.split(JOB, fence, split_named("s-2"), FRAMES)
    assert {part.part.split for part in ledger.parts(JOB)} == {"s-2"}


def test_a_part_that_could_not_be_put_in_leaves_the_job_as_it_was(ledger) -> None:
    fence = claim(ledger)
    ledger._jobs.db.plan["put_item"] = [broken()]

    with pytest.raises(Unavailable):
        ledger.split(JOB, fence, split_named("s-1"), FRAMES)

    assert ledger.get(JOB).state is JobState.RUNNING


@pytest.mark.parametrize("ended", [False, True])
def test_who_has_no_say_over_a_job_puts_in_no_part(ledger, ended: bool) -> None:
    fence = claim(ledger)
    if ended:
        ledger.skip(JOB, fence, "not worth it")
    puts = ledger._jobs.db.count("put_item")

    with pytest.raises(StaleFence):
        ledger.split(JOB, fence + (not ended), split_named("s-1"), FRAMES)

    assert ledger._jobs.db.count("put_item") == puts
