"""What every ledger promises of its listings: a page goes on where the one before ended."""

from __future__ import annotations

from typing import Any

from contracts.backends import World, source
from hevcq.domain.job import JobRecord, JobState
from hevcq.ports.ledger import Granted, JobFilter


def test_a_listing_goes_on_after_any_of_its_jobs(world: World) -> None:
    ledger = world.backend.ledger
    for number in range(2):
        ledger.register(source(number), ["hevc", "720p"])
        world.advance(10)
    every = list(ledger.jobs(JobFilter()))
    ids, newest = [job.job_id for job in every], every[0]

    def after(last: JobRecord, **wanted: Any) -> list[str]:
        before = (last.updated_at, last.job_id)
        states = frozenset({JobState.QUEUED})
        return [
            job.job_id for job in ledger.jobs(JobFilter(states=states, before=before, **wanted))
        ]

    for number, job in enumerate(every):
        assert after(job) == ids[number + 1 :]
    assert after(newest, updated_after=every[-1].updated_at) == ids[1:2]
    gone = newest.model_copy(update={"job_id": "0" * 32})
    assert set(ids[2:]) <= set(after(gone)), "nothing is left out"
    claimed = ledger.claim(newest.source, newest.profile, owner="a", lease_s=60)
    assert isinstance(claimed, Granted)
    assert set(ids[2:]) <= set(after(newest)), "of a job that moved since, neither"
