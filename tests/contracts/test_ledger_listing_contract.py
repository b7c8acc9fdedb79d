"""What every ledger tells of many jobs, and remembers of bytes (ports/ledger.py)."""

from __future__ import annotations

from contracts.backends import BULK, World, source
from hevcq.domain.job import JobState, job_id
from hevcq.ports.ledger import Granted, JobFilter


def test_jobs_are_listed_newest_change_first_by_every_given_condition(world: World) -> None:
    ledger = world.backend.ledger
    for name in ("x/1", "x/2", "y/3"):
        ledger.register(source(name), ["hevc", "720p"])
        world.advance(10)
    fence = ledger.claim(source("x/1"), "hevc", owner="a", lease_s=60)
    assert isinstance(fence, Granted)
    ledger.skip(job_id(source("x/1"), "hevc"), fence.fence, "small")
    middle = ledger.get(job_id(source("x/2"), "hevc"))
    assert middle is not None

    def listed(**wanted: object) -> list[tuple[str, str]]:
        return [(r.source.key[9:-4], r.profile) for r in ledger.jobs(JobFilter(**wanted))]

    every = listed()
    assert len(every) == 6
    assert every[0] == ("x/1", "hevc")
    assert set(every[1:3]) == {("y/3", "hevc"), ("y/3", "720p")}
    assert listed(states=frozenset({JobState.SKIPPED, JobState.DEAD})) == [("x/1", "hevc")]
    assert len(listed(states=frozenset({JobState.SKIPPED, JobState.QUEUED}))) == 6
    assert listed(profile="720p") == [("y/3", "720p"), ("x/2", "720p"), ("x/1", "720p")]
    assert set(listed(source_key=source("x/2").key)) == {("x/2", "hevc"), ("x/2", "720p")}
    assert len(listed(key_prefix="TODO/all/x/")) == 4
    assert listed(key_prefix="TODO/all/_/") == []
    newer = listed(updated_after=middle.updated_at)
    assert set(newer) == {("x/1", "hevc"), ("y/3", "hevc"), ("y/3", "720p")}
    assert listed(profile="720p", states=frozenset({JobState.SKIPPED})) == []


def test_jobs_are_counted_by_profile_and_state(world: World) -> None:
    for number in range(3):
        world.backend.ledger.register(source(number), ["hevc", "720p"])
    world.backend.ledger.claim(source(1), "hevc", owner="a", lease_s=60)

    counts = {key: count for key, count in world.backend.ledger.counts().items() if count}

    assert counts == {
        ("hevc", JobState.QUEUED): 2,
        ("hevc", JobState.RUNNING): 1,
        ("720p", JobState.QUEUED): 3,
    }


def test_listing_pages_through_many_jobs_without_loading_them_all(world: World) -> None:
    world.needs(BULK)
    total = 100_000
    world.register_many((source(number), "hevc") for number in range(total))

    listing = world.backend.ledger.jobs(JobFilter(states=frozenset({JobState.QUEUED})))
    seen = {next(listing).job_id for _ in range(5_000)}

    assert len(seen) == 5_000, "no job comes twice across pages"
    assert world.backend.ledger.counts() == {("hevc", JobState.QUEUED): total}
