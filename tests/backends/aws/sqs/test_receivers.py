"""One worker over two SQS queues: a long poll each, no more messages than slots, none left at a stop."""

from __future__ import annotations

import pytest

from contracts.backends import PROFILES
from e2e.embedded.farm import until
from hevcq.domain.job import JobState
from hevcq.ports.ledger import JobFilter
from hevcq.util.clock import SystemClock
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.scratch import Scratch
from hevcq.worker.slot import SlotOutcome
from support.aws import iam
from support.aws.moto_server import make_farm
from support.fakes.encoder import FakeEncoder, fake_plan

pytestmark = pytest.mark.aws
VIDEOS = 4


@pytest.fixture
def farm():
    """The emulator's polls really wait, so that this farm has the machine's clock."""
    found = make_farm(PROFILES, clock=SystemClock())
    yield found
    found.backend.close()


def test_every_job_of_both_queues_is_done_and_a_stop_leaves_nothing_hidden(farm, tmp_path) -> None:
    served = [
        ProfileQueue(profile, farm.backend.queues[name]) for name, profile in PROFILES.items()
    ]
    assert {each.queue.long_poll_s for each in served} == {20.0}
    for each in served:
        each.queue.long_poll_s = 1.0
    scratch = Scratch(tmp_path / "scratch", farm.clock)
    context = WorkerContext(farm.backend, FakeEncoder(), fake_plan, scratch, farm.clock, threads=1)
    pool = WorkerPool(context, served, Numbers(slots=2, grace_s=20))
    for number in range(VIDEOS):
        key = f"TODO/all/{number}.mp4"
        farm.clients.s3.put_object(Bucket="uploads", Key=key, Body=str(number).encode())
    done = JobFilter(states=frozenset({JobState.DONE}))

    with iam.recorded(farm.clients.polls) as calls:
        pool.start()
        until(lambda: sum(1 for _ in farm.backend.ledger.jobs(done)) == 2 * VIDEOS)
        pool.ask()
        until(lambda: pool.stopped)

    assert pool.finish() is SlotOutcome.STOPPED
    asked = [params for _, name, params in calls if name == "ReceiveMessage"]
    assert {params["MaxNumberOfMessages"] for params in asked} <= {1, 2}
    assert min(params["WaitTimeSeconds"] for params in asked) >= 1
    for each in served:
        depth = each.queue.depth()
        assert (depth.ready, depth.in_flight, depth.dead) == (0, 0, 0)
