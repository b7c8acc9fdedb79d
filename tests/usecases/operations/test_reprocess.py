"""`hevcq retry`: what is queued again, what is only said, and what was never lost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.job import JobRecord, JobState, Source, Task, job_id
from hevcq.domain.keys import rendition_key
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.ports.backend import Backend
from hevcq.ports.catalog import PlacementState
from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find, purge
from hevcq.usecases.operations.reprocess import (
    JobChange,
    JobResult,
    ReprocessRequest,
    redrive,
    reprocess,
    reprocess_missing,
)
from support.fakes.backend import HEVC, Faulty, memory_backend
from support.fakes.store import MemoryStore
from support.ingest.run import NEVER, Bench

WHY = Bury(reason="broke", failure_class=FailureClass.ENCODER)
UNSUBSCRIBED = HEVC.model_copy(update={"name": "av1", "subscribe": False})
SUBSCRIBED = HEVC.model_copy(update={"subscribe": True})


class Inbox(MemoryStore):
    """A store that others upload to directly, as a bucket is."""

    def sources(self, prefix: str) -> Iterator[Source]:
        for (bucket, key), (version, content) in sorted(self._sources.items()):
            if key.startswith(prefix):
                yield Source(bucket=bucket, key=key, version=version, size=len(content))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.backend = memory_backend(made.clock, {"hevc": SUBSCRIBED, "av1": UNSUBSCRIBED})
    made.backend = replace(made.backend, store=Inbox(made.clock))
    made.wire()
    return made


def job_of(backend: Backend, key: str, profile: str = "hevc") -> JobRecord:
    source = backend.store.add_source(key, key.encode())
    (job,) = backend.task_publisher.publish(source, [profile], announced=False)
    return job


def dead(backend: Backend, key: str, profile: str = "hevc") -> JobRecord:
    job = job_of(backend, key, profile)
    fence = backend.ledger.claim(job.source, profile, owner="w", lease_s=60).fence
    backend.ledger.bury(job.job_id, fence, "broke", FailureClass.ENCODER)
    (delivery,) = backend.queues[profile].receive(1, wait_s=0, stop=NEVER)
    backend.queues[profile].bury(delivery, WHY)
    return job


def state(backend: Backend, job: JobRecord) -> JobState:
    return backend.ledger.get(job.job_id).state


def letters(backend: Backend) -> int:
    return sum(len(list(q.dead_letters())) for q in backend.queues.values())


def missing(
    bench: Bench, *names: str, profiles: tuple[Profile, ...] = (SUBSCRIBED, UNSUBSCRIBED)
) -> list[JobChange]:
    known = {profile.name: profile for profile in profiles}
    request = ReprocessRequest(names, who="me")
    return list(reprocess_missing(bench.backend, request, known, bench.catalog))


def test_only_the_letter_of_a_job_that_is_queued_again_goes(bench):
    for name in "ab":
        dead(bench.backend, f"TODO/all/{name}.mp4")
    before = letters(bench.backend)

    (change,) = reprocess(bench.backend, ReprocessRequest(["TODO/all/a.mp4"]), bench.catalog)
    assert change.result is JobResult.QUEUED

    assert (before, letters(bench.backend)) == (2, 1)


def test_two_at_once_queue_it_once_and_its_letter_is_left_to_the_first(bench):
    job = dead(bench.backend, "TODO/all/a.mp4")
    bench.backend.task_publisher.requeue = lambda *_, **__: False

    (done,) = reprocess(bench.backend, ReprocessRequest([job.job_id]))

    assert (done.result, done.detail) == (
        JobResult.WAITING,
        "another process queued it first",
    )
    assert letters(bench.backend) == 1


def test_one_whose_rendition_is_published_is_not_encoded_again(bench):
    source = bench.backend.store.add_source("TODO/all/a.mp4", b"a")
    key = rendition_key(source.key, "hevc", "mp4")
    bench.backend.store.put(key, b"small", metadata={"job": job_id(source, "hevc")})
    assert missing(bench, "TODO/") == []

    bench.backend.store.put(key, b"small", metadata={"job": "of another version"})
    assert [d.job.source for d in missing(bench, "TODO/")] == [source]


@pytest.mark.parametrize(
    ("there", "again"),
    [
        ("in the store", False),
        ("nowhere", True),
        ("refused", True),
        ("placed", False),
        ("placed and lost", True),
        ("undone", False),
    ],
)
def test_a_done_job_is_queued_only_where_its_rendition_is_missing(tmp_path, there, *, again):
    bench = Bench(tmp_path)
    job = bench.queue(bench.video())
    ref = bench.work(job)
    placed = bench.catalog.placement(job.job_id)
    if there != "in the store":
        bench.backend.store.delete(ref.key)
    states = {
        "refused": PlacementState.REFUSED,
        "placed": PlacementState.PLACED,
        "placed and lost": PlacementState.PLACED,
        "undone": PlacementState.UNDONE,
    }
    if there in states:
        bench.catalog.record_placements([replace(placed, state=states[there])])
    if there == "placed":
        placed.target.write_bytes(b"small")

    done = missing(bench, str(bench.media), profiles=(HEVC,))

    assert [d.result for d in done] == [JobResult.QUEUED] * again
    assert state(bench.backend, job) is (JobState.QUEUED if again else JobState.DONE)


def redriven(bench: Bench, **more) -> list[JobResult]:
    request = ReprocessRequest((), who="me", why="redrive", **more)
    return [done.result for done in redrive(bench.backend, request, DeadLetterFilter())]


def test_a_kill_between_the_queue_and_the_letter_loses_nothing(bench):
    backend = bench.backend
    job, real = dead(backend, "TODO/a.mp4").job_id, backend.queues["hevc"]

    def die(name: str) -> None:
        if name == "purge":
            raise KeyboardInterrupt

    assert redriven(bench, dry_run=True) == [JobResult.WOULD_QUEUE]
    backend.queues["hevc"] = Faulty(real, before=die)  # type: ignore[index]
    with pytest.raises(KeyboardInterrupt):
        redriven(bench)
    backend.queues["hevc"] = real  # type: ignore[index]

    assert redriven(bench) == [JobResult.QUEUED]
    assert backend.ledger.reopened == [(job, "me", "redrive")]
    sent = real.receive(3, wait_s=0, stop=NEVER)
    assert {delivery.tasks[0].job_id for delivery in sent} == {job}
    assert real.depth().dead == 0


def test_a_letter_whose_job_was_done_meanwhile_stays(bench):
    backend = bench.backend
    job = dead(backend, "TODO/a.mp4").job_id
    source = backend.ledger.get(job).source
    backend.ledger.reopen(job, who="x", why="y")
    fence = backend.ledger.claim(source, "hevc", owner="w", lease_s=60).fence
    backend.ledger.skip(job, fence, "not smaller")

    assert redriven(bench) == [JobResult.ENDED]
    assert backend.queues["hevc"].depth().dead == 1


def test_a_letter_that_fails_again_at_once_is_not_sent_round(bench):
    backend = bench.backend
    job, queue = dead(backend, "TODO/a.mp4"), backend.queues["hevc"]
    queue.send([Task(source=job.source, profile="hevc")])
    (again,) = queue.receive(1, wait_s=0, stop=NEVER)
    queue.bury(again, WHY)

    def fail_again(name: str) -> None:
        if name == "purge":
            bench.clock.advance(1)
            (delivery,) = queue.receive(1, wait_s=0, stop=NEVER)
            queue.bury(delivery, WHY)

    backend.queues["hevc"] = Faulty(queue, after=fail_again)  # type: ignore[index]

    assert redriven(bench) == [JobResult.QUEUED]
    assert queue.depth().dead == 2


def test_a_letter_without_a_job_is_neither_sent_nor_purged_with_those_of_a_job(bench):
    backend = bench.backend
    job, queue = dead(backend, "TODO/a.mp4").job_id, backend.queues["hevc"]
    queue.send_body("no task")
    (delivery,) = queue.receive(1, wait_s=0, stop=NEVER)
    queue.bury(delivery, WHY)

    assert purge(backend.queues, DeadLetterFilter(letter=job[:8])) == 1

    assert redriven(bench) == []
    assert [letter.task for _, letter in find(backend.queues, DeadLetterFilter())] == [None]
