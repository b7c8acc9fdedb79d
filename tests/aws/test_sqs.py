"""What SQS alone can do to a queue: lost replies, throttles, the 12 hours, and its own redrive."""

from __future__ import annotations

import json
import threading

import pytest

from aws.breaking import Breaking, broken, refusal
from aws.moto_server import make_farm
from contracts.backends import PROFILES, VISIBILITY_S
from hevcq.aws import letter
from hevcq.domain.job import Source, Task
from hevcq.domain.profile import MAX_VISIBILITY_S
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import ConfigError, LeaseLost, Unavailable
from hevcq.ports.queue import Selection

pytestmark = pytest.mark.aws
DAMAGED = Bury(reason="it is damaged é", failure_class=FailureClass.DAMAGED, tail=("last line",))


class Killed(BaseException):
    """A kill -9 at this very call."""


@pytest.fixture
def farm():
    found = make_farm(PROFILES)
    found.clock.auto = True
    yield found
    found.backend.close()


@pytest.fixture
def queue(farm):
    found = farm.backend.queues["hevc"]
    found._sqs = found._desk._sqs = Breaking(farm.clients.sqs)
    found._polls = Breaking(farm.clients.polls)
    return found


def task(number: int = 0, *, group: str = "") -> Task:
    source = Source(bucket="uploads", key=f"TODO/all/{number}.mp4", version="v", size=1)
    return Task(source=source, profile="hevc", group=group)


def take(queue, limit: int = 10):
    return queue.receive(limit, wait_s=0, stop=threading.Event())


def one(queue):
    (delivery,) = take(queue)
    return delivery


def letters(queue):
    return list(queue.dead_letters(Selection()))


def bury_many(queue, count: int) -> None:
    queue.send([task(number) for number in range(count)])
    while found := take(queue):
        for delivery in found:
            queue.bury(delivery, DAMAGED)


def test_a_lease_is_not_extended_past_twelve_hours_from_its_receive(farm, queue) -> None:
    queue.send([task()])
    delivery = one(queue)
    queue.extend(delivery, MAX_VISIBILITY_S - 100)
    farm.clock.advance(MAX_VISIBILITY_S - 200)
    asked = queue._sqs.count("change_message_visibility")

    with pytest.raises(LeaseLost, match="12 hours"):
        queue.extend(delivery, VISIBILITY_S * 3)

    assert queue._sqs.count("change_message_visibility") == asked
    assert queue.extend(delivery, 100) == farm.clock.monotonic() + 100


def test_a_release_near_the_twelve_hours_waits_only_as_long_as_is_left(farm, queue) -> None:
    queue.send([task()])
    delivery = one(queue)
    queue.extend(delivery, MAX_VISIBILITY_S - 100)
    farm.clock.advance(MAX_VISIBILITY_S - 200)

    assert queue.release(delivery, delay_s=3600) is True

    assert queue._sqs.calls[-1][1]["VisibilityTimeout"] == 200 - 30


def test_a_stale_receipt_does_not_disturb_the_new_owner_although_sqs_would_take_it(
    farm, queue
) -> None:
    queue.send([task()])
    old = one(queue)
    farm.clock.advance(VISIBILITY_S + 1)
    new = one(queue)
    calls = len(queue._sqs.calls)

    with pytest.raises(LeaseLost):
        queue.extend(old, 60)
    assert [queue.ack(old), queue.release(old), queue.bury(old, DAMAGED)] == [False] * 3

    assert len(queue._sqs.calls) == calls, "SQS is not even asked"
    assert queue.ack(new) is True


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "MessageNotInflight"])
def test_a_receipt_that_sqs_refuses_is_a_lost_lease(queue, code: str) -> None:
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["change_message_visibility"] = [refusal(code)]

    with pytest.raises(LeaseLost):
        queue.extend(delivery, 60)

    assert queue.ack(delivery) is False


@pytest.mark.parametrize("error", [refusal("RequestThrottled"), refusal("Any", 503), broken()])
def test_a_failing_heartbeat_is_unavailable_and_the_lease_stays_until_its_deadline(
    farm, queue, error
) -> None:
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["change_message_visibility"] = [error]

    with pytest.raises(Unavailable):
        queue.extend(delivery, 60)

    assert queue.extend(delivery, 60) == farm.clock.monotonic() + 60


@pytest.mark.parametrize("how", [broken(), ("after", broken())])
def test_an_acknowledgement_without_an_answer_is_sent_again(queue, how) -> None:
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["delete_message"] = [how]

    assert queue.ack(delivery) is True

    assert queue._sqs.count("delete_message") == 2
    assert queue.depth().in_flight == 0


def test_a_settling_that_never_got_through_leaves_the_receipt_live(queue) -> None:
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["delete_message"] = [broken()] * 2

    with pytest.raises(Unavailable):
        queue.ack(delivery)

    assert queue.ack(delivery) is True


def test_a_receive_without_an_answer_is_not_repeated_by_itself(queue) -> None:
    queue.send([task()])
    queue._polls.plan["receive_message"] = [("after", broken())]

    with pytest.raises(Unavailable):
        take(queue)

    assert queue._polls.count("receive_message") == 1


def test_a_receive_asks_for_no_more_than_is_free_and_never_waits_over_20_s(queue) -> None:
    queue._polls.plan["receive_message"] = [lambda _real, **asked: {}] * 3

    queue.receive(3, wait_s=0.2, stop=threading.Event())
    queue.receive(30, wait_s=500, stop=threading.Event())

    asked = [(c["MaxNumberOfMessages"], c["WaitTimeSeconds"]) for _, c in queue._polls.calls]
    assert asked == [(3, 1), (10, 20)]


def test_a_set_stop_asks_for_nothing(queue) -> None:
    stop = threading.Event()
    stop.set()

    assert queue.receive(1, wait_s=20, stop=stop) == []
    assert queue.receive(0, wait_s=20, stop=threading.Event()) == []
    assert queue._polls.calls == []


def test_a_slow_answer_is_counted_from_the_end_of_the_poll(farm, queue) -> None:
    queue.send([task()])
    began = farm.clock.monotonic()

    def slow(real, **asked):
        found = real(**asked)
        farm.clock.advance(45)
        return found

    queue._polls.plan["receive_message"] = [slow]

    assert one(queue).deadline == began + VISIBILITY_S


def test_a_kill_between_letter_and_delete_loses_nothing(farm, queue) -> None:
    queue.send([task()])
    first = one(queue)
    queue._sqs.plan["delete_message"] = [Killed()]
    with pytest.raises(Killed):
        queue.bury(first, DAMAGED)

    farm.clock.advance(VISIBILITY_S + 1)
    again = one(queue)
    assert queue.bury(again, DAMAGED) is True

    found = letters(queue)
    assert [x.task for x in found] == [task(), task()], "known by their job"
    assert again.message_id == first.message_id


def test_a_letter_whose_message_could_not_be_deleted_is_still_buried(queue) -> None:
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["delete_message"] = [broken()] * 2

    assert queue.bury(delivery, DAMAGED) is True

    assert len(letters(queue)) == 1


def test_a_kill_between_redriven_message_and_its_letter_loses_nothing(farm, queue) -> None:
    bury_many(queue, 1)
    (dead,) = letters(queue)
    queue._sqs.plan["delete_message"] = [Killed()]
    with pytest.raises(Killed):
        queue.redrive(dead)
    farm.clock.advance(61)

    assert one(queue).tasks == (task(),)
    assert len(letters(queue)) == 1


def test_a_list_of_letters_can_be_redriven_afterwards(queue) -> None:
    bury_many(queue, 25)

    assert [queue.redrive(dead) for dead in letters(queue)] == [True] * 25

    assert (queue.depth().ready, queue.depth().dead) == (25, 0)


def test_a_listing_that_ends_early_gives_everything_back(queue) -> None:
    bury_many(queue, 12)
    listing = queue.dead_letters(Selection())
    next(listing)
    listing.close()

    assert len(letters(queue)) == 12
    assert len(letters(queue)) == 12


def test_letters_are_held_no_longer_than_a_minute_by_a_process_that_dies(farm, queue) -> None:
    bury_many(queue, 3)
    listing = queue.dead_letters(Selection())
    next(listing)
    queue._desk._held.clear()
    other = farm.clients.sqs.receive_message(QueueUrl=queue._at.dead)
    assert other.get("Messages", []) == []

    farm.clock.advance(61)

    assert len(letters(queue)) == 3


def test_a_letter_carries_its_facts_as_attributes_too(farm, queue) -> None:
    bury_many(queue, 1)

    answer = farm.clients.sqs.receive_message(
        QueueUrl=queue._at.dead, MessageAttributeNames=["All"]
    )
    (message,) = answer["Messages"]

    facts = {name: a["StringValue"] for name, a in message["MessageAttributes"].items()}
    assert facts["hevcq_class"] == "damaged"
    assert facts["hevcq_reason"] == "it is damaged é"
    assert (facts["hevcq_attempts"], facts["hevcq_job"]) == ("1", task().job_id)
    assert letter.read(message["Body"]).tail == ("last line",)


def test_what_sns_could_not_deliver_is_a_dead_letter_of_the_profile(farm, queue) -> None:
    farm.clients.sqs.send_message(
        QueueUrl=farm.url("hevcq-hevc-subscription-dlq"),
        MessageBody=task().body(),
        MessageAttributes={"ErrorMessage": {"DataType": "String", "StringValue": "denied"}},
    )

    (dead,) = letters(queue)

    assert (dead.failure_class, dead.task) == (FailureClass.NETWORK, task())
    assert "SNS could not deliver it: denied" in dead.reason
    assert queue.depth().dead == 1
    assert queue.redrive(dead) is True
    assert one(queue).tasks == (task(),)


def test_the_whole_queue_goes_back_by_the_services_own_move(queue) -> None:
    bury_many(queue, 2)
    queue._polls.plan["start_message_move_task"] = [lambda _real, **asked: {"TaskHandle": "t"}]

    assert queue.redrive_all() == 2

    (asked,) = [c for name, c in queue._polls.calls if name == "start_message_move_task"]
    assert asked["SourceArn"].endswith(":hevcq-hevc-dlq")
    assert asked["DestinationArn"].endswith(":hevcq-hevc")


@pytest.mark.parametrize("error", [None, refusal("AWS.SimpleQueueService.UnsupportedOperation")])
def test_where_there_is_no_move_the_letters_go_back_one_by_one(queue, error) -> None:
    bury_many(queue, 12)
    queue._polls.plan["start_message_move_task"] = [error]

    assert queue.redrive_all() == 12

    assert (queue.depth().ready, queue.depth().dead) == (12, 0)


def test_a_move_that_is_refused_is_an_error_and_not_a_second_redrive(queue) -> None:
    bury_many(queue, 1)
    queue._polls.plan["start_message_move_task"] = [refusal("AccessDenied", 403)]

    with pytest.raises(Unavailable, match="denied"):
        queue.redrive_all()

    assert queue.depth().dead == 1


def test_a_letter_that_the_service_moved_whole_is_opened(farm, queue) -> None:
    queue.send([task()])
    body = letter.write(one(queue), DAMAGED, 1.0)
    farm.put_body("hevc", body)

    moved = one(queue)

    assert moved.tasks == (task(),)
    queue.bury(moved, DAMAGED)
    (dead,) = letters(queue)
    assert dead.body == task().body(), "not wrapped twice"


def test_fair_share_groups_go_out_as_sqs_takes_them(queue) -> None:
    queue.send([task(1, group="film-1"), task(2, group="ein Film"), task(3)])

    (sent,) = [c["Entries"] for name, c in queue._sqs.calls if name == "send_message_batch"]
    groups = [entry.get("MessageGroupId") for entry in sent]
    assert groups[0] == "film-1"
    assert len(groups[1]) == 64
    assert groups[2] is None
    assert len(take(queue)) == 3


def test_a_batch_that_sqs_takes_in_part_is_an_error(queue) -> None:
    def part(_real, **asked):
        return {"Successful": [], "Failed": [{"Id": "0", "Code": "Busy", "SenderFault": False}]}

    queue._sqs.plan["send_message_batch"] = [part]

    with pytest.raises(Unavailable, match="took 1 of 2 messages for hevcq-hevc: Busy"):
        queue.send([task(1), task(2)])


def test_a_queue_that_is_not_there_is_one_sentence(farm, queue) -> None:
    farm.clients.sqs.delete_queue(QueueUrl=queue._at.main)

    with pytest.raises(ConfigError, match="does not exist in this account and region"):
        take(queue)


def test_a_raw_event_in_the_dead_letters_shows_its_job(farm, queue) -> None:
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": "uploads"},
            "object": {"key": "TODO/all/0.mp4", "size": 1, "versionId": "v"},
        },
    }
    farm.put_body("hevc", json.dumps({"Records": [record]}))
    queue.bury(one(queue), DAMAGED)

    (dead,) = letters(queue)

    assert dead.task == task()
