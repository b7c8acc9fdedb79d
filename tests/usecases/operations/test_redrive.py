"""`hevcq redrive`: no letter is lost between ledger and queue, and none goes round."""

import threading

import pytest

from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.backend import Backend
from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find, purge
from hevcq.usecases.operations.reprocess import JobResult, ReprocessRequest, redrive
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


def results(backend: Backend, *, dry_run: bool = False) -> list[JobResult]:
    request = ReprocessRequest((), who="me", why="redrive", dry_run=dry_run)
    return [done.result for done in redrive(backend, request, DeadLetterFilter())]


def test_a_kill_between_the_queue_and_the_letter_loses_nothing(backend: Backend):
    job, real = bury(backend, "TODO/a.mp4"), backend.queues["hevc"]

    def die(name: str) -> None:
        if name == "purge":
            raise KeyboardInterrupt

    assert results(backend, dry_run=True) == [JobResult.WOULD_QUEUE]
    backend.queues["hevc"] = Faulty(real, before=die)  # type: ignore[index]
    with pytest.raises(KeyboardInterrupt):
        results(backend)
    backend.queues["hevc"] = real  # type: ignore[index]

    assert results(backend) == [JobResult.QUEUED]
    assert backend.ledger.reopened == [(job, "me", "redrive")]
    sent = real.receive(3, wait_s=0, stop=threading.Event())
    assert {delivery.tasks[0].job_id for delivery in sent} == {job}
    assert real.depth().dead == 0


def test_a_letter_whose_job_was_done_meanwhile_stays(backend: Backend):
    job = bury(backend, "TODO/a.mp4")
    source = backend.ledger.get(job).source
    backend.ledger.reopen(job, who="x", why="y")
    fence = backend.ledger.claim(source, "hevc", owner="w", lease_s=60).fence
    backend.ledger.skip(job, fence, "not smaller")

    assert results(backend) == [JobResult.ENDED]
    assert backend.queues["hevc"].depth().dead == 1


def test_a_letter_that_fails_again_at_once_is_not_sent_round(backend: Backend, clock: ManualClock):
    bury(backend, "TODO/a.mp4")
    queue = backend.queues["hevc"]

    def fail_again(name: str) -> None:
        if name == "purge":
            clock.advance(1)
            (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
            queue.bury(delivery, WHY)

    backend.queues["hevc"] = Faulty(queue, after=fail_again)  # type: ignore[index]

    assert results(backend) == [JobResult.QUEUED]
    assert queue.depth().dead == 1


def test_a_letter_without_a_job_is_neither_sent_nor_purged_with_those_of_a_job(backend: Backend):
    job, queue = bury(backend, "TODO/a.mp4"), backend.queues["hevc"]
    queue.send_body("no task")
    (delivery,) = queue.receive(1, wait_s=0, stop=threading.Event())
    queue.bury(delivery, WHY)

    assert purge(backend.queues, DeadLetterFilter(letter=job[:8])) == 1

    assert results(backend) == []
    assert [letter.task for _, letter in find(backend.queues, DeadLetterFilter())] == [None]
