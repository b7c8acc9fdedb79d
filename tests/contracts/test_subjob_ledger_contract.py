"""What every ledger promises about split jobs and their parts (ports/ledger.py), over every backend."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.backends import World, source
from hevcq.domain.job import (
    SETTLED,
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Split,
    job_id,
    subjob_id,
)
from hevcq.domain.verdict import FailureClass
from hevcq.errors import StaleFence
from hevcq.ports.ledger import Granted, JobFilter

LEASE_S = 60
JOB = job_id(source(), "hevc")
FRAMES = (100, 50, 25)
NAME = "0123456789abcdef-1"
RENDITION = RenditionRef(key="DONE/hevc/a.mp4", size=5, sha256="ab" * 32, certificate_key="c.json")
PART = RenditionRef(key="work/a/0.mkv", size=7, sha256="cd" * 32, certificate_key="work/a/0.json")
HALF = Progress(phase=Phase.ENCODE, percent=50.0, speed=2.0, eta_s=7.5)
FIRST = subjob_id(JOB, NAME, 0)


def split_of(name: str = NAME) -> Split:
    return Split(name=name, chunks=3, frames=175, seconds=7.0, plan_sha256="ef" * 32)


def granted(world: World, owner: str = "a") -> Granted:
    found = world.ledger.claim(source(), "hevc", owner=owner, lease_s=LEASE_S)
    assert isinstance(found, Granted)
    return found


def part(world: World, name: str = FIRST, owner: str = "a") -> Granted:
    found = world.ledger.claim_subjob(name, owner=owner, lease_s=LEASE_S)
    assert isinstance(found, Granted)
    return found


def record(world: World, name: str = JOB) -> JobRecord:
    return world.ledger.get(name)


@pytest.fixture
def split(world: World) -> int:
    """A split job; its fence."""
    fence = granted(world).fence
    world.ledger.split(JOB, fence, split_of(), FRAMES)
    return fence


def test_a_split_job_says_how_and_has_no_worker(world, split):
    job = record(world)

    assert (job.state, job.fence, job.owner, job.lease_until) == (JobState.SPLIT, split, "", 0.0)
    assert job.split == split_of()
    assert job.subjob is None


def test_a_split_job_has_queued_parts_in_order_and_the_join_last(world, split):
    parts = world.ledger.subjobs(JOB)

    assert [(p.subjob.chunk, p.subjob.frames) for p in parts if p.subjob] == [
        (0, 100),
        (1, 50),
        (2, 25),
        (None, 0),
    ]
    assert [p.job_id for p in parts] == [subjob_id(JOB, NAME, n) for n in (0, 1, 2, None)]
    assert {(p.state, p.source, p.profile) for p in parts} == {(JobState.QUEUED, source(), "hevc")}


def test_a_split_under_a_stale_fence_is_refused_and_makes_no_parts(world):
    fence = granted(world).fence

    with pytest.raises(StaleFence):
        world.ledger.split(JOB, fence + 1, split_of(), FRAMES)

    assert record(world).state is JobState.RUNNING
    assert world.ledger.subjobs(JOB) == []


def test_a_claim_of_a_split_job_says_that_it_is_split(world, split):
    found = world.ledger.claim(source(), "hevc", owner="b", lease_s=LEASE_S)

    assert found.state is JobState.SPLIT
    assert found == record(world)


def test_who_split_a_job_has_no_more_say_over_it(world, split):
    before = record(world)
    for call in (
        lambda: world.ledger.renew(JOB, split, lease_s=LEASE_S),
        lambda: world.ledger.progress(JOB, split, HALF),
        lambda: world.ledger.fail(JOB, split, "it failed", FailureClass.ENCODER),
        lambda: world.ledger.interrupt(JOB, split, "stopped"),
    ):
        with pytest.raises(StaleFence):
            call()
        assert record(world) == before


def test_the_announcement_of_a_split_is_kept_and_that_of_another_is_not(world, split):
    world.ledger.mark_enqueued(JOB, "another-9")
    assert record(world).split == split_of()

    world.ledger.mark_enqueued(JOB, NAME)
    world.ledger.mark_enqueued(JOB, NAME)

    assert record(world).split == split_of().model_copy(update={"announced": True})


def test_parts_are_in_no_listing_and_no_count(world, split):
    part(world)
    ledger = world.ledger

    assert [job.job_id for job in ledger.jobs(JobFilter())] == [JOB]
    assert list(ledger.jobs(JobFilter(states=frozenset({JobState.QUEUED, JobState.RUNNING})))) == []
    assert [job.job_id for job in ledger.jobs(JobFilter(source_key=source().key))] == [JOB]
    assert ledger.counts() == {("hevc", JobState.SPLIT): 1}


def test_a_part_is_claimed_once_while_its_lease_lives(world, split):
    first = part(world)
    again = world.ledger.claim_subjob(FIRST, owner="b", lease_s=LEASE_S)

    assert (first.fence, first.failures, first.crashes) == (1, 0, 0)
    assert again.state is JobState.RUNNING
    assert record(world, FIRST).owner == "a"


def test_a_part_whose_worker_vanished_is_granted_again_and_counts_a_crash(world, split):
    part(world)
    world.advance(LEASE_S + 1)

    second = part(world, owner="b")

    assert (second.fence, second.crashes) == (2, 1)
    with pytest.raises(StaleFence):
        world.ledger.complete(FIRST, 1, PART, cpu_s=1.0)


def test_a_part_that_is_done_keeps_its_object_and_is_settled(world, split):
    world.ledger.complete(FIRST, part(world).fence, PART, cpu_s=2.5)

    first, *others = world.ledger.subjobs(JOB)
    assert (first.state, first.rendition, first.cpu_s) == (JobState.DONE, PART, 2.5)
    assert {p.state for p in others} == {JobState.QUEUED}
    assert world.ledger.claim_subjob(FIRST, owner="b", lease_s=LEASE_S).state in SETTLED


def test_failures_interruptions_and_burials_count_for_a_part_alone(world, split):
    world.ledger.fail(FIRST, part(world).fence, "once", FailureClass.ENCODER)
    world.ledger.interrupt(FIRST, part(world).fence, "stopped")
    third = part(world)
    assert (third.fence, third.failures, third.crashes) == (3, 1, 0)

    world.ledger.bury(FIRST, third.fence, "for good", FailureClass.ENCODER)

    dead = record(world, FIRST)
    assert (dead.state, dead.reason, dead.failure_class) == (
        JobState.DEAD,
        "for good",
        FailureClass.ENCODER,
    )
    job = record(world)
    assert (job.state, job.failures, job.crashes) == (JobState.SPLIT, 0, 0)


def test_a_split_job_is_certified_under_its_own_fence_alone(world, split):
    with pytest.raises(StaleFence):
        world.ledger.certify(JOB, split - 1, "ef" * 32)

    world.ledger.certify(JOB, split, "ef" * 32)

    assert record(world).certified("ef" * 32)
    assert record(world).state is JobState.SPLIT


@pytest.mark.parametrize("end", ["complete", "skip", "bury"])
def test_a_split_job_ends_under_its_own_fence_alone(world, split, end):
    ends: dict[str, Callable[[int], None]] = {
        "complete": lambda fence: world.ledger.complete(JOB, fence, RENDITION, cpu_s=9.0),
        "skip": lambda fence: world.ledger.skip(JOB, fence, "not smaller"),
        "bury": lambda fence: world.ledger.bury(JOB, fence, "chunk 1", FailureClass.DAMAGED),
    }
    with pytest.raises(StaleFence):
        ends[end](split - 1)
    with pytest.raises(StaleFence):
        ends[end](split + 1)

    ends[end](split)

    wanted = {"complete": JobState.DONE, "skip": JobState.SKIPPED, "bury": JobState.DEAD}
    assert record(world).state is wanted[end]
    assert world.ledger.subjobs(JOB) == []
    with pytest.raises(StaleFence):
        ends[end](split)


def test_of_two_parts_that_end_a_job_at_once_one_alone_does(world, split):
    def bury(number: int) -> bool:
        try:
            world.ledger.bury(JOB, split, f"chunk {number}", FailureClass.ENCODER)
        except StaleFence:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(bury, range(4)))

    assert won.count(True) == 1
    assert record(world).reason == f"chunk {won.index(True)}"


def test_of_all_parts_that_end_at_once_one_at_least_sees_the_set_complete(world, split):
    names = [subjob_id(JOB, NAME, n) for n in range(3)]
    fences = [part(world, name, owner=f"w{n}").fence for n, name in enumerate(names)]

    def finish(number: int) -> bool:
        world.ledger.complete(names[number], fences[number], PART, cpu_s=1.0)
        return all(p.state is JobState.DONE for p in world.ledger.subjobs(JOB)[:-1])

    with ThreadPoolExecutor(3) as pool:
        saw = list(pool.map(finish, range(3)))

    assert any(saw)


def test_a_split_that_is_given_up_is_queued_to_be_encoded_whole(world, split):
    with pytest.raises(StaleFence):
        world.ledger.abandon_split(JOB, split + 1, "its parts do not fit")

    world.ledger.abandon_split(JOB, split, "its parts do not fit")

    job = record(world)
    assert (job.state, job.do_not_split_reason, job.split) == (
        JobState.QUEUED,
        "its parts do not fit",
        None,
    )
    assert (job.failures, job.crashes) == (0, 0)
    assert world.ledger.subjobs(JOB) == []
    assert granted(world, "b").fence == split + 1
    with pytest.raises(StaleFence):
        world.ledger.abandon_split(JOB, split, "twice")


def test_a_second_split_has_parts_of_its_own(world, split):
    zombie = part(world)
    world.ledger.bury(JOB, split, "broken", FailureClass.ENCODER)
    assert world.ledger.reopen(JOB, who="a person", why="repaired")
    assert record(world).split is None
    fence = granted(world, "b").fence

    world.ledger.split(JOB, fence, split_of("0123456789abcdef-2"), (90, 60, 25))

    ids = {p.job_id for p in world.ledger.subjobs(JOB)}
    assert FIRST not in ids
    with contextlib.suppress(StaleFence):
        world.ledger.complete(FIRST, zombie.fence, PART, cpu_s=1.0)
    assert {p.state for p in world.ledger.subjobs(JOB)} == {JobState.QUEUED}


def test_a_split_job_is_not_given_up_by_the_queue_nor_reopened(world, split):
    assert not world.ledger.bury_unclaimed(JOB, "received too often", FailureClass.RECEIVES)
    assert not world.ledger.reopen(JOB, who="a person", why="impatient")
    assert record(world).state is JobState.SPLIT


def test_forgetting_parts_leaves_their_job_alone_and_those_of_a_split_job(world, split):
    world.ledger.forget_subjobs(JOB)
    assert len(world.ledger.subjobs(JOB)) == len(FRAMES) + 1
    world.ledger.complete(JOB, split, RENDITION, cpu_s=9.0)

    world.ledger.forget_subjobs(JOB)
    world.ledger.forget_subjobs(JOB)

    assert record(world).state is JobState.DONE
    assert [job.job_id for job in world.ledger.jobs(JobFilter())] == [JOB]
