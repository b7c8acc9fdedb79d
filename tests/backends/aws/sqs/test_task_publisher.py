"""Publishing on AWS when a send fails or the process dies in the middle."""

import threading

import pytest

from hevcq.domain.job import Source, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.errors import Unavailable
from support.aws.breaking import Breaking, refusal
from support.processes import Killed

pytestmark = pytest.mark.aws
SOURCE = Source(bucket="uploads", key="TODO/all/a.mp4", version="v", size=1)
BOTH = ["hevc", "720p"]


@pytest.fixture
def farm(farm):
    for queue in farm.backend.queues.values():
        queue._sqs = Breaking(farm.clients.sqs)
    farm.backend.ledger.db = Breaking(farm.clients.dynamodb)
    return farm


def ready(farm) -> list[int]:
    return [farm.backend.queues[name].depth().ready for name in BOTH]


def publish(farm, **more):
    return farm.backend.task_publisher.publish(SOURCE, BOTH, **{"announced": False, **more})


def test_a_send_that_fails_fails_the_publication_and_again_sends_what_is_missing(farm):
    farm.backend.queues["720p"]._sqs.plan["send_message_batch"] = [refusal("Busy", 503)]

    with pytest.raises(Unavailable):
        publish(farm)
    publish(farm)
    publish(farm)

    assert ready(farm) == [1, 1]


@pytest.mark.parametrize(
    ("call", "begun", "sent", "in_the_end"),
    [
        ("send_message_batch", False, [0, 0], [1, 1]),
        ("update_item", False, [1, 0], [2, 1]),
        ("update_item", True, [1, 0], [1, 1]),
    ],
    ids=["before the send", "after the send", "after the send of a job that has begun"],
)
def test_a_kill_is_made_up_for_by_publishing_again(farm, call, begun, sent, in_the_end):
    for port in (farm.backend.queues["hevc"]._sqs, farm.backend.ledger.db):
        port.plan[call] = [Killed()]
    with pytest.raises(Killed):
        publish(farm)
    assert ready(farm) == sent
    if begun:
        farm.backend.ledger.claim(SOURCE, "hevc", owner="w", lease_s=60)

    publish(farm)

    assert ready(farm) == in_the_end


def test_an_announced_source_is_registered_and_nothing_is_sent(farm):
    records = publish(farm, announced=True)

    assert [record.profile for record in records] == BOTH
    assert ready(farm) == [0, 0]


def test_a_kill_between_reopening_and_sending_is_made_up_for(farm):
    ledger, task_publisher = farm.backend.ledger, farm.backend.task_publisher
    ledger.claim(SOURCE, "hevc", owner="w", lease_s=60)
    ledger.bury(job_id(SOURCE, "hevc"), 1, "why", FailureClass.DAMAGED)
    job = ledger.get(job_id(SOURCE, "hevc"))
    farm.backend.queues["hevc"]._sqs.plan["send_message_batch"] = [Killed()]
    with pytest.raises(Killed):
        task_publisher.requeue(job, who="me", why="fixed")

    assert task_publisher.requeue(job, who="me", why="fixed") is True
    assert task_publisher.requeue(job, who="me", why="fixed") is False

    (delivery,) = farm.backend.queues["hevc"].receive(5, wait_s=0, stop=threading.Event())
    assert delivery.tasks[0].job_id == job.job_id
