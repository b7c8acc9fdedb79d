"""Redriving over SQS: its own move of a whole queue, the letters it cannot move, lost replies."""

from __future__ import annotations

import threading
from dataclasses import replace

import boto3
import pytest
from botocore.stub import Stubber

from aws.breaking import broken
from aws.emulator import REGION
from aws.values import DAMAGED, letters, take, task
from hevcq.errors import Unavailable
from hevcq.ports.queue import Moving
from hevcq.usecases.dead_letters import Wanted
from hevcq.usecases.redrive import Moved, Order, Redriven, Result, redrive, redrive_whole

pytestmark = pytest.mark.aws
NEVER = threading.Event()
ORDER = Order(Wanted(("hevc",)), who="me")


def bury(queue, count: int) -> None:
    queue.send([task(number) for number in range(count)])
    for delivery in take(queue):
        queue.bury(delivery, DAMAGED)


def started(_real, **_asked):
    return {"TaskHandle": "t"}


def test_the_rate_goes_to_the_service_and_never_above_its_largest(queue) -> None:
    queue._polls.plan["start_message_move_task"] = [started] * 3

    assert all(queue.hand_back(rate=rate) for rate in (0.0, 20.7, 9_000.0))

    asked = [c for name, c in queue._polls.calls if name == "start_message_move_task"]
    rates = [each.get("MaxNumberOfMessagesPerSecond") for each in asked]
    assert rates == [None, 20, 500]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([], None),
        (
            [
                {
                    "Status": "RUNNING",
                    "ApproximateNumberOfMessagesMoved": 3,
                    "ApproximateNumberOfMessagesToMove": 10,
                }
            ],
            Moving(3, 7, going_on=True),
        ),
        (
            [{"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 10}],
            Moving(10, None, going_on=False),
        ),
        (
            [{"Status": "FAILED", "FailureReason": "AccessDenied"}],
            Moving(0, None, going_on=False, failure="AccessDenied"),
        ),
    ],
)
def test_how_far_a_move_is_comes_from_the_service(queue, answer, expected) -> None:
    queue._sqs.plan["list_message_move_tasks"] = [lambda _real, **_asked: {"Results": answer}]

    assert queue.moving() == expected


def test_what_sns_could_not_deliver_goes_back_one_by_one_after_the_move(farm, queue) -> None:
    bury(queue, 2)
    url = farm.url("hevcq-hevc-subscription-dlq")
    farm.clients.sqs.send_message(QueueUrl=url, MessageBody=task(7).body())

    def moved(_real, **_asked):
        for letter in [each for each in letters(queue) if each.task != task(7)]:
            queue.redrive(letter)
        farm.clock.advance(1)
        return {"TaskHandle": "t"}

    done = {"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 2}
    queue._polls.plan["start_message_move_task"] = [moved]
    queue._sqs.plan["list_message_move_tasks"] = [lambda _real, **_asked: {"Results": [done]}]
    farm.clock.advance(1)

    found = list(redrive_whole(farm.backend, ORDER, clock=farm.clock, stop=NEVER))

    assert [type(each) for each in found] == [Moved, Redriven]
    assert found[1].letter.task == task(7)
    assert (queue.depth().ready, queue.depth().dead) == (3, 0)


@pytest.fixture
def stubbed(queue):
    """A client that answers as the service's own model says, and refuses any other question.

    The emulator has no moves: what is asked and answered is held to botocore's description.
    """
    client = boto3.client(
        "sqs", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )
    with Stubber(client) as stub:
        queue._polls.plan["start_message_move_task"] = [
            lambda _real, **asked: client.start_message_move_task(**asked)
        ]
        queue._sqs.plan["list_message_move_tasks"] = [
            lambda _real, **asked: client.list_message_move_tasks(**asked)
        ] * 9
        yield stub


def arns(farm) -> dict[str, str]:
    asked = {"hevcq-hevc-dlq": "SourceArn", "hevcq-hevc": "DestinationArn"}
    found = {}
    for name, argument in asked.items():
        answer = farm.clients.sqs.get_queue_attributes(
            QueueUrl=farm.url(name), AttributeNames=["QueueArn"]
        )
        found[argument] = answer["Attributes"]["QueueArn"]
    return found


def test_a_whole_queue_is_moved_by_sqs_and_its_progress_is_listed(farm, queue, stubbed) -> None:
    bury(queue, 3)
    farm.clock.advance(1)
    where = arns(farm)
    steps = [("RUNNING", 1), ("RUNNING", 2), ("COMPLETED", 3)]
    stubbed.add_response(
        "start_message_move_task",
        {"TaskHandle": "t"},
        {**where, "MaxNumberOfMessagesPerSecond": 5},
    )
    for status, count in steps:
        result = {
            "Status": status,
            "ApproximateNumberOfMessagesMoved": count,
            "ApproximateNumberOfMessagesToMove": 3,
        }
        stubbed.add_response(
            "list_message_move_tasks",
            {"Results": [result]},
            {"SourceArn": where["SourceArn"], "MaxResults": 1},
        )
    whole = redrive_whole(farm.backend, replace(ORDER, rate=5.0), clock=farm.clock, stop=NEVER)

    seen = [next(whole)]
    for letter in letters(queue):
        queue.purge(letter)  # the service has moved them by now
    seen += list(whole)

    assert seen == [
        Moved("hevc", Moving(count, 3 - count, going_on=status == "RUNNING"))
        for status, count in steps
    ]
    stubbed.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("AWS.SimpleQueueService.UnsupportedOperation", 400),
        ("UnsupportedOperation", 400),
        ("InvalidAction", 400),
        ("InternalFailure", 500),
    ],
)
def test_a_service_without_moves_sends_back_message_by_message(
    farm, queue, stubbed, code, status
) -> None:
    bury(queue, 3)
    farm.clock.advance(1)
    stubbed.add_client_error("start_message_move_task", code, http_status_code=status)

    found = list(redrive_whole(farm.backend, ORDER, clock=farm.clock, stop=NEVER))

    assert [each.result for each in found] == [Result.REDRIVEN] * 3
    assert (queue.depth().ready, queue.depth().dead) == (3, 0)
    assert queue._sqs.count("list_message_move_tasks") == 0


def test_a_move_that_is_denied_is_an_error_and_moves_nothing(farm, queue, stubbed) -> None:
    bury(queue, 2)
    stubbed.add_client_error("start_message_move_task", "AccessDenied", http_status_code=403)

    with pytest.raises(Unavailable, match="access is denied"):
        list(redrive_whole(farm.backend, ORDER, clock=farm.clock, stop=NEVER))

    assert (queue.depth().ready, queue.depth().dead) == (0, 2)


def test_a_move_that_fails_midway_says_why_and_the_rest_is_still_there(
    farm, queue, stubbed
) -> None:
    bury(queue, 2)
    stubbed.add_response("start_message_move_task", {"TaskHandle": "t"}, arns(farm))
    failed = {"Status": "FAILED", "FailureReason": "CouldNotAssumeRole"}
    stubbed.add_response("list_message_move_tasks", {"Results": [failed]})

    with pytest.raises(Unavailable, match="CouldNotAssumeRole"):
        list(redrive_whole(farm.backend, ORDER, clock=farm.clock, stop=NEVER))

    assert queue.depth().dead == 2


@pytest.mark.parametrize("call", ["send_message_batch", "delete_message"])
@pytest.mark.parametrize("lost", [broken(), ("after", broken())])
def test_a_reply_lost_midway_loses_no_letter_and_the_next_run_sends_the_rest(
    farm, queue, call, lost
) -> None:
    bury(queue, 4)
    queue._sqs.plan[call] = [None, lost]
    with pytest.raises(Unavailable):
        list(redrive(farm.backend, ORDER, clock=farm.clock, stop=NEVER))
    farm.clock.advance(61)

    again = list(redrive(farm.backend, ORDER, clock=farm.clock, stop=NEVER))

    assert {each.result for each in again} == {Result.REDRIVEN}
    sent = {each.tasks[0].job_id for each in take(queue)}
    assert sent == {task(number).job_id for number in range(4)}
    assert queue.depth().dead == 0
