"""Specification of the task publisher (ports/queue.py), run over every backend."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.backends import World, source, task
from hevcq.domain.job import JobState, job_id
from hevcq.errors import HevcqError
from hevcq.ports.ledger import Granted, JobFilter
from hevcq.ports.queue import Delivery


def take(world: World, queue: str) -> list[Delivery]:
    return world.backend.queues[queue].receive(10, wait_s=0, stop=threading.Event())


def publish(world: World, name: object = 1, profiles: tuple[str, ...] = ("hevc", "720p")):
    return world.backend.task_publisher.publish(source(name), profiles, announced=False)


def settle(world: World, profile: str = "hevc") -> None:
    claim = world.ledger.claim(source(), profile, owner="a", lease_s=60)
    assert isinstance(claim, Granted)
    world.ledger.skip(job_id(source(), profile), claim.fence, "small")


def test_every_named_profile_gets_the_source_once(world):
    jobs = publish(world)

    assert [(j.profile, j.state, j.source) for j in jobs] == [
        ("hevc", JobState.QUEUED, source()),
        ("720p", JobState.QUEUED, source()),
    ]
    for profile in ("hevc", "720p"):
        (delivery,) = take(world, profile)
        assert delivery.tasks == (task(profile=profile),)


def test_what_was_asked_for_goes_with_the_message_to_any_other_worker(world):
    asked = (27.5, 90.0)
    world.backend.queues["hevc"].send([task().model_copy(update={"asked": asked})])

    (delivery,) = take(world, "hevc")

    assert delivery.tasks[0].asked == asked
    assert delivery.tasks[0].as_whole_job().asked == asked


def test_a_profile_that_is_not_named_gets_nothing(world):
    publish(world, profiles=("720p",))

    assert take(world, "hevc") == []
    assert world.ledger.get(job_id(source(), "hevc")) is None


@pytest.mark.parametrize("state", ["queued", "running", "settled"])
def test_a_job_that_is_known_is_not_queued_again(world, state):
    publish(world)
    assert len(take(world, "hevc")) == 1
    if state == "running":
        world.ledger.claim(source(), "hevc", owner="a", lease_s=60)
    if state == "settled":
        settle(world)

    (again,) = publish(world, profiles=("hevc",))

    expected = {"queued": "queued", "running": "running", "settled": "skipped"}[state]
    assert again.state == expected
    assert take(world, "hevc") == []


def test_only_the_profile_that_is_new_is_queued(world):
    publish(world, profiles=("hevc",))
    take(world, "hevc")

    jobs = publish(world)

    assert len(jobs) == 2
    assert take(world, "hevc") == []
    assert len(take(world, "720p")) == 1


def test_an_unknown_profile_fails_the_whole_publication(world):
    with pytest.raises(HevcqError):
        publish(world, profiles=("hevc", "nonsense"))

    assert take(world, "hevc") == []
    assert list(world.ledger.jobs(JobFilter())) == []


def test_the_same_source_published_by_two_at_once_is_queued_once(world):
    for number in range(10):
        barrier = threading.Barrier(2)

        def run(number: int = number, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            publish(world, number, ("hevc",))

        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(run) for _ in range(2)]:
                future.result()

    found: list[Delivery] = []
    while batch := take(world, "hevc"):
        found += batch
    # A second message of a job is harmless (the ledger settles it) but must not be the rule.
    assert {d.tasks[0].job_id for d in found} == {task(n).job_id for n in range(10)}
    assert len(list(world.ledger.jobs(JobFilter()))) == 10


def test_a_settled_job_is_requeued_with_its_task(world):
    publish(world, profiles=("hevc",))
    world.backend.queues["hevc"].ack(take(world, "hevc")[0])
    settle(world)
    (job,) = world.ledger.jobs(JobFilter())

    assert world.backend.task_publisher.requeue(job, who="me", why="again") is True

    (delivery,) = take(world, "hevc")
    assert (delivery.tasks, delivery.attempt) == ((task(),), 1)
    reopened = world.ledger.get(job.job_id)
    assert reopened.state is JobState.QUEUED


def test_a_job_that_is_not_settled_is_not_requeued(world):
    (job,) = publish(world, profiles=("hevc",))
    take(world, "hevc")

    assert world.backend.task_publisher.requeue(job, who="me", why="again") is False

    assert take(world, "hevc") == []
