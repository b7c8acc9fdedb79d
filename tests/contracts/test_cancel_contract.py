"""Cancelling a job (ports/ledger.py), over every backend: whoever holds it is refused."""

from __future__ import annotations

import pytest

from contracts.backends import World, source
from contracts.test_ledger_contract import ENDINGS, FENCED, JOB, claim, granted, job
from hevcq.domain.job import JobState, Split, part_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.ports.ledger import AlreadySettled, Granted

WHY = "Cancelled by ana."
SPLIT = Split(name="d-1", chunks=2, frames=20, seconds=2.0, plan_sha256="0" * 64)


def cancelled(world: World) -> None:
    assert world.backend.ledger.cancel(JOB, WHY)
    assert (job(world).state, job(world).reason) == (JobState.DEAD, WHY)
    assert job(world).failure_class is FailureClass.CANCELLED
    assert (job(world).owner, job(world).progress, job(world).lease_until) == ("", None, 0.0)
    assert job(world).finished_at is not None
    assert isinstance(claim(world, "late"), AlreadySettled)


def test_a_job_that_waits_is_cancelled(world: World) -> None:
    world.backend.ledger.register(source(), ["hevc"])

    cancelled(world)
    assert world.backend.ledger.counts() == {("hevc", JobState.DEAD): 1}


@pytest.mark.parametrize("call", FENCED)
def test_who_holds_a_cancelled_job_under_a_live_lease_is_refused(world: World, call: str) -> None:
    fence = granted(world).fence

    cancelled(world)
    with pytest.raises(StaleFence):
        FENCED[call](world, fence)
    assert job(world).reason == WHY


def test_a_split_job_is_cancelled_and_its_parts_cannot_end_it_any_more(world: World) -> None:
    ledger, fence = world.backend.ledger, granted(world).fence
    ledger.split(JOB, fence, SPLIT, [10, 10])

    cancelled(world)
    assert ledger.parts(JOB) == []
    for call in ("complete", "skip", "bury"):
        with pytest.raises(StaleFence):
            ENDINGS[call](world, fence)


@pytest.mark.parametrize("call", ["complete", "skip", "bury"])
def test_a_job_that_ended_stays_as_it_is(world: World, call: str) -> None:
    ENDINGS[call](world, granted(world).fence)
    before = job(world)

    assert not world.backend.ledger.cancel(JOB, WHY)
    assert job(world) == before


def test_a_job_nobody_knows_and_a_part_are_not_cancelled(world: World) -> None:
    ledger = world.backend.ledger
    assert not ledger.cancel("0" * 32, WHY)
    ledger.split(JOB, granted(world).fence, SPLIT, [10, 10])

    assert not ledger.cancel(part_id(JOB, SPLIT.name, 0), WHY)
    assert job(world).state is JobState.SPLIT


def test_a_cancelled_job_can_be_queued_again_under_a_higher_fence(world: World) -> None:
    fence = granted(world).fence
    cancelled(world)

    assert world.backend.ledger.reopen(JOB, who="ana", why="wanted after all")
    found = claim(world, "b")
    assert isinstance(found, Granted)
    assert found.fence > fence
