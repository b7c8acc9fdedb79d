"""Redriving over SQS: in parallel, what SNS could not deliver, lost replies."""

from __future__ import annotations

import threading

import pytest

from hevcq.errors import Unavailable
from hevcq.usecases.operations.dead_letters import (
    DeadLetterFilter,
    RedriveRequest,
    RedriveResult,
    redrive,
)
from support.aws.breaking import broken
from support.aws.values import DAMAGED, letters, take, task

pytestmark = pytest.mark.aws
NEVER = threading.Event()
ORDER = RedriveRequest(DeadLetterFilter(("hevc",)), who="me")


def bury(queue, count: int) -> None:
    queue.send([task(number) for number in range(count)])
    while batch := take(queue):
        for delivery in batch:
            queue.bury(delivery, DAMAGED)


def send_back(farm) -> list[RedriveResult]:
    return [each.result for each in redrive(farm.backend, ORDER, clock=farm.clock, stop=NEVER)]


def test_a_queue_of_several_batches_goes_back_whole_and_each_letter_once(farm, queue) -> None:
    bury(queue, 25)
    url = farm.url("hevcq-hevc-subscription-dlq")
    farm.clients.sqs.send_message(QueueUrl=url, MessageBody=task(99).body())

    assert send_back(farm) == [RedriveResult.REDRIVEN] * 26

    assert (queue.depth().ready, queue.depth().dead) == (26, 0)
    assert queue._sqs.count("delete_message") == 25 + 26, "25 burials, 26 letters"
    jobs = []
    while batch := take(queue):
        jobs += [delivery.tasks[0].job_id for delivery in batch]
    assert sorted(jobs) == sorted(task(number).job_id for number in (*range(25), 99))


def test_letters_go_back_at_the_same_time(farm, queue) -> None:
    bury(queue, 2)
    together = threading.Barrier(2, timeout=30)

    def meet(real, **asked):
        together.wait()
        return real(**asked)

    queue._sqs.plan["send_message_batch"] = [meet, meet]

    assert send_back(farm) == [RedriveResult.REDRIVEN] * 2


@pytest.mark.parametrize("call", ["send_message_batch", "delete_message"])
@pytest.mark.parametrize("lost", [broken(), ("after", broken())])
def test_a_reply_lost_midway_loses_no_letter_and_the_next_run_sends_the_rest(
    farm, queue, call, lost
) -> None:
    bury(queue, 4)
    queue._sqs.plan[call] = [None, lost]
    told = []
    with pytest.raises(Unavailable):
        told += redrive(farm.backend, ORDER, clock=farm.clock, stop=NEVER)
    farm.clock.advance(61)

    again = send_back(farm)

    assert set(again) <= {RedriveResult.REDRIVEN}
    sent = {each.tasks[0].job_id for each in take(queue)}
    assert sent == {task(number).job_id for number in range(4)}
    assert letters(queue) == []
    assert queue.depth().dead == 0
