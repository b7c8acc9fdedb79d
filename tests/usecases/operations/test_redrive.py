"""`hevcq redrive`: no letter is lost between ledger and queue, and none goes round."""

import threading

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.backend import Backend
from hevcq.usecases.operations.dead_letters import (
    DeadLetterFilter,
    RedriveResult,
    find,
    purge,
    redrive,
)
from support.clips import ManualClock
from support.fakes.backend import Faulty, memory_backend


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(auto=True)


@pytest.fixture
def backend(clock: ManualClock) -> Backend:
    return memory_backend(clock)


WHY = Bury(reason="broke", failure_class=FailureClass.ENCODER)


def bury(backend: Backend, key: str) -> str:
    """Upload, claim and bury a source of "hevc" in ledger and queue; return its job id."""
    source = backend.store.add_source(key, key.encode())
    (job,) = backend.task_publisher.publish(source, ["hevc"], announced=False)
    fence = backend.ledger.claim(source, "hevc", owner="w", lease_s=60).fence
    backend.ledger.bury(job.job_id, fence, "broke", FailureClass.ENCODER)
    (delivery,) = backend.queues["hevc"].receive(1, wait_s=0, stop=threading.Event())
    backend.queues["hevc"].bury(delivery, WHY)
    return job.job_id


def results(backend: Backend, *, dry_run: bool = False) -> list[RedriveResult]:
    stop = threading.Event()
    done = redrive(backend, DeadLetterFilter(), "me", dry_run=dry_run, stop=stop)
    return [result for _, _, result in done]


def test_the_ledger_is_reopened_before_the_message_goes(backend: Backend):
    job = bury(backend, "TODO/a.mp4")
    seen: list[JobState] = []

    def look(name: str) -> None:
        if name == "redrive":
            seen.append(backend.ledger.get(job).state)

    watched = Faulty(backend.queues["hevc"], before=look)
    backend.queues["hevc"] = watched  # type: ignore[index]

    assert results(backend, dry_run=True) == [RedriveResult.WOULD_REDRIVE]
    assert (seen, backend.ledger.get(job).state) == ([], JobState.DEAD)
    assert results(backend) == [RedriveResult.REDRIVEN]
    assert seen == [JobState.QUEUED]
    assert backend.ledger.reopened == [(job, "me", "redrive")]


def test_a_kill_between_ledger_and_queue_loses_nothing(backend: Backend):
    job = bury(backend, "TODO/a.mp4")

    def die(name: str) -> None:
        if name == "redrive":
            raise KeyboardInterrupt

    real = backend.queues["hevc"]
    backend.queues["hevc"] = Faulty(real, before=die)  # type: ignore[index]
    with pytest.raises(KeyboardInterrupt):
        results(backend)
    backend.queues["hevc"] = real  # type: ignore[index]

    assert results(backend) == [RedriveResult.REDRIVEN]
    (delivery,) = real.receive(2, wait_s=0, stop=threading.Event())
    assert delivery.tasks[0].job_id == job


def test_a_letter_whose_job_was_done_meanwhile_stays(backend: Backend):
    job = bury(backend, "TODO/a.mp4")
    source = backend.ledger.get(job).source
    backend.ledger.reopen(job, who="x", why="y")
    fence = backend.ledger.claim(source, "hevc", owner="w", lease_s=60).fence
    backend.ledger.skip(job, fence, "not smaller")

    assert results(backend) == [RedriveResult.DONE_ALREADY]
    assert backend.queues["hevc"].depth().dead == 1


def test_a_letter_that_fails_again_at_once_is_not_sent_round(backend: Backend, clock: ManualClock):
    bury(backend, "TODO/a.mp4")
    queue = backend.queues["hevc"]

    def fail_again(name: str) -> None:
        if name == "redrive":
            clock.advance(1)
            (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
            queue.bury(delivery, WHY)

    backend.queues["hevc"] = Faulty(queue, after=fail_again)  # type: ignore[index]

    found = results(backend)

    assert found[0] is RedriveResult.REDRIVEN
    assert set(found[1:]) <= {RedriveResult.TWICE}
    assert queue.depth().dead == 1


def test_a_stop_leaves_the_rest(backend: Backend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hevcq.usecases.operations.dead_letters.PARALLEL", 1)
    for name in "abc":
        bury(backend, f"TODO/{name}.mp4")
    stop = threading.Event()

    assert [stop.set() for _ in redrive(backend, DeadLetterFilter(), "me", stop=stop)] == [None]
    assert backend.queues["hevc"].depth().dead == 2


def test_an_unreadable_message_goes_back_as_it_is(backend: Backend):
    queue = backend.queues["hevc"]
    queue.send_body("not a task")
    (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
    queue.bury(delivery, Bury(reason="unreadable", failure_class=FailureClass.MESSAGE))

    assert results(backend) == [RedriveResult.REDRIVEN]
    (again,) = queue.receive(1, wait_s=0, stop=threading.Event())
    assert again.body == "not a task"


def test_a_letter_without_a_job_is_not_purged_with_those_of_a_job(backend: Backend) -> None:
    job, queue = bury(backend, "TODO/a.mp4"), backend.queues["hevc"]
    queue.send_body("no task")
    (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
    queue.bury(delivery, WHY)

    gone = purge(backend.queues, DeadLetterFilter(job=job[:8]))

    assert [letter.task.job_id for _, letter, _ in gone] == [job]
    assert [letter.task for _, letter in find(backend.queues, DeadLetterFilter())] == [None]
