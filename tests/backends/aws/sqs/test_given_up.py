"""SQS moves what was received too often to the dead letters and tells nobody: who looks does."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.backends import MAX_RECEIVES, PROFILES, VISIBILITY_S
from hevcq.domain.job import JobState, Source, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.enqueue import Queued
from hevcq.usecases.ingest.summary import IngestOutcome, IngestSummary
from hevcq.usecases.ingest.track import SWEEP_S, JobTracker
from hevcq.usecases.operations.expired_messages import GivenUp
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.scratch import Scratch
from support.aws import iam
from support.aws.values import letters, take
from support.fakes.encoder import FakeEncoder, fake_plan
from support.fakes.farm import NoHeartbeat
from support.ingest.run import NEVER

pytestmark = pytest.mark.aws
REASON = f"Given up by the queue after {MAX_RECEIVES} receives."


def given_up(farm) -> Source:
    """Upload a video, and let its message be received until SQS moves it."""
    answer = farm.clients.s3.put_object(Bucket="uploads", Key="TODO/hevc/a.mp4", Body=b"clip")
    source = Source(bucket="uploads", key="TODO/hevc/a.mp4", version=answer["VersionId"], size=4)
    farm.backend.ledger.register(source, ["hevc"])
    queue = farm.backend.queues["hevc"]
    for _ in range(MAX_RECEIVES):
        assert len(take(queue)) == 1
        farm.clock.advance(VISIBILITY_S + 1)
    assert take(queue) == []
    assert queue.depth().dead == 1
    return source


def record(farm, source: Source):
    return farm.backend.ledger.get(job_id(source, "hevc"))


def test_its_job_is_recorded_as_dead_and_the_letter_stays(farm) -> None:
    source = given_up(farm)
    assert record(farm, source).state is JobState.QUEUED

    assert GivenUp(farm.backend).look() == 1

    found = record(farm, source)
    assert (found.state, found.failure_class, found.reason) == (
        JobState.DEAD,
        FailureClass.RECEIVES,
        REASON,
    )
    assert [x.reason for x in letters(farm.backend.queues["hevc"])] == [REASON]


def test_an_ingest_that_waits_for_it_ends_with_the_reason(farm) -> None:
    source, tally = given_up(farm), IngestSummary()
    path = Path("/media/a.mp4")
    item = Item(path=path, size=4, disposition=Disposition.QUEUE, profile=PROFILES["hevc"])
    follower = JobTracker(
        farm.backend.ledger,
        None,
        tally,
        lambda _event: None,
        farm.clock,
        sweep=GivenUp(farm.backend, ["hevc"]).look,
    )
    follower.add(Queued(item, record(farm, source)))
    follower.step(NEVER)
    assert follower.open == 1

    farm.clock.advance(SWEEP_S)
    follower.step(NEVER)

    assert follower.open == 0
    (result,) = tally.results
    assert (result.outcome, result.reason) == (IngestOutcome.FAILED, REASON)


def test_moved_back_by_sqs_itself_it_is_done(farm, tmp_path) -> None:
    source, queue = given_up(farm), farm.backend.queues["hevc"]
    GivenUp(farm.backend).look()
    (dead,) = letters(queue)
    farm.put_body("hevc", dead.body)
    queue.purge(dead)

    scratch = Scratch(tmp_path / "scratch", farm.clock)
    parts = (farm.backend, FakeEncoder(), fake_plan, scratch, farm.clock)
    handler = Handler(WorkerContext(*parts, threads=1, heartbeat=NoHeartbeat), "w")
    for delivery in take(queue):
        handler.handle(ProfileQueue(PROFILES["hevc"], queue), delivery)

    assert record(farm, source).state is JobState.DONE


def test_the_worker_that_looks_needs_no_more_than_its_role_allows(farm) -> None:
    given_up(farm)
    with iam.recorded(farm.clients.sqs, farm.clients.dynamodb) as calls:
        GivenUp(farm.backend, ["hevc"]).look()

    used = {grant for call in calls for grant in iam.needed(*call)}
    policy = iam.allowed("modules/worker_service/roles.tf", "task")
    # What SNS could not deliver is an operator's business; a worker's denial there is let pass.
    missing = {g for g in used if g[1] != "subscription-dlq" and not iam.covered(g, policy)}
    assert missing == set()
    assert ("sqs:ReceiveMessage", "dlq") in used
    assert not iam.covered(("sqs:DeleteMessage", "dlq"), policy)
