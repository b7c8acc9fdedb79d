"""The worker over the real embedded backend: only the encoder is a fake."""

import threading

import pytest

from hevcq.backends.embedded.factory import open_embedded
from hevcq.domain.events import EventName
from hevcq.domain.job import JobState
from hevcq.domain.keys import key_for_path
from hevcq.settings.model import Settings
from hevcq.util.clock import SystemClock
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.scratch import Scratch
from support.fakes.backend import HEVC
from support.fakes.encoder import FakeEncoder, fake_plan

PROFILES = {"hevc": HEVC, "other": HEVC.model_copy(update={"name": "other"})}
VIDEOS = 8


@pytest.fixture
def opened(tmp_path):
    clock = SystemClock()
    settings = Settings(data_dir=tmp_path / "data")
    opened = open_embedded(settings, PROFILES, clock)
    yield opened.backend
    opened.backend.close()


def kit_of(backend, tmp_path, **parts) -> WorkerContext:
    clock = SystemClock()
    scratch = Scratch(tmp_path / "data" / "scratch", clock)
    return WorkerContext(backend, FakeEncoder(), fake_plan, scratch, clock, **parts)


def ingest(backend, tmp_path) -> None:
    for number in range(VIDEOS):
        path = tmp_path / f"video {number}.mp4"
        path.write_bytes(b"clip" * 100 + bytes([number]))
        source = backend.store.accept(
            path, key_for_path(str(path)), moved=lambda _n: None, stop=threading.Event()
        )
        backend.task_publisher.publish(source, list(PROFILES), announced=False)


def run_until(pool: WorkerPool, done: threading.Event) -> None:
    pool.start()
    try:
        assert done.wait(30)
    finally:
        pool.insist()
        for thread in pool._threads:
            thread.join(10)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_pool_makes_every_rendition_of_two_profiles_once(opened, tmp_path, slots):
    ingest(opened, tmp_path)
    ended, done = [], threading.Event()

    def watch(event):
        if event.kind is EventName.JOB_DONE:
            ended.append((event.job_id, event.profile))
            if len(ended) == VIDEOS * len(PROFILES):
                done.set()

    served = [ProfileQueue(profile, opened.queues[name]) for name, profile in PROFILES.items()]
    pool = WorkerPool(kit_of(opened, tmp_path, on_event=watch), served, Numbers(slots=slots))

    run_until(pool, done)

    assert pool.finish().value == "stopped"
    assert len(set(ended)) == VIDEOS * len(PROFILES)
    assert opened.ledger.counts() == {(n, JobState.DONE): VIDEOS for n in PROFILES}
    for name, queue in opened.queues.items():
        depth = queue.depth()
        assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, 0), name
    visible = [o for o in opened.store.list("DONE/") if not o.key.endswith(".json")]
    assert len(visible) == VIDEOS * len(PROFILES)


def test_work_that_is_interrupted_is_ready_again_at_once(opened, tmp_path):
    ingest(opened, tmp_path)
    begun = threading.Event()
    context = kit_of(opened, tmp_path)
    pool = WorkerPool(context, [ProfileQueue(HEVC, opened.queues["hevc"])], Numbers())
    lease_of = pool.workers[0]._handler

    def encode():
        begun.set()
        assert lease_of._lease.stop.wait(20)

    context.encoder.during["encode"] = encode

    run_until(pool, begun)

    assert pool.finish().value == "stopped"
    assert opened.queues["hevc"].depth().ready == VIDEOS
    assert opened.ledger.counts()["hevc", JobState.QUEUED] == VIDEOS
