"""Dead letters over SQS: listed without being lost, redriven by us or by SQS, killed in between."""

from __future__ import annotations

import json

import pytest

from contracts.backends import VISIBILITY_S
from hevcq.backends.aws.sqs import letter
from hevcq.domain.verdict import FailureClass
from hevcq.errors import Unavailable
from hevcq.ports.queue import Selection
from support.aws.breaking import Breaking, broken, refusal
from support.aws.values import DAMAGED, Killed, bury_many, letters, one, task

pytestmark = pytest.mark.aws


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
    queue._sqs.plan["delete_message"] = [broken()] * 3
    queue._clock.auto = True

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


def test_a_letter_that_the_service_moved_whole_is_opened(farm, queue) -> None:
    queue.send([task()])
    body = letter.write(one(queue), DAMAGED, 1.0)
    farm.put_body("hevc", body)

    moved = one(queue)

    assert moved.tasks == (task(),)
    queue.bury(moved, DAMAGED)
    (dead,) = letters(queue)
    assert dead.body == task().body(), "not wrapped twice"


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


@pytest.mark.parametrize("error", [refusal("AccessDenied", 403), refusal("QueueDoesNotExist")])
def test_a_worker_that_may_not_see_the_subscriptions_letters_counts_its_own(queue, error) -> None:
    bury_many(queue, 2)
    queue._at._urls.clear()
    queue._at._sqs = Breaking(queue._sqs.client, {"get_queue_url": [None, None, error]})

    assert queue.depth().dead == 2
    assert queue._at.undelivered == ""


def test_a_queue_service_that_does_not_answer_is_not_taken_for_an_absent_queue(queue) -> None:
    queue._at._sqs = Breaking(queue._sqs.client, {"get_queue_url": [None, None, broken()]})
    queue._at._urls.clear()

    with pytest.raises(Unavailable):
        queue.depth()


def test_closing_gives_held_letters_back_and_never_fails(queue) -> None:
    bury_many(queue, 3)
    listing = queue.dead_letters(Selection())
    dead = next(listing)
    queue._sqs.plan["change_message_visibility_batch"] = [broken()]

    queue.close()
    queue.close()

    assert queue._sqs.count("change_message_visibility_batch") == 1
    assert queue.purge(dead) is False, "hidden until its minute is over, and not lost"


def test_letters_that_come_round_again_end_a_listing(farm, queue) -> None:
    bury_many(queue, 3)
    found = []
    for dead in queue.dead_letters(Selection()):
        found.append(dead.letter_id)
        farm.clock.advance(61)
        assert len(found) < 10

    assert len(set(found)) == len(found) == 3


def test_a_letter_held_too_long_is_looked_for_again(farm, queue) -> None:
    bury_many(queue, 3)
    listing = queue.dead_letters(Selection())
    dead = next(listing)
    farm.clock.advance(61)

    assert queue.redrive(dead) is True

    assert queue.depth().dead == 2


def test_a_redrive_that_fails_keeps_the_letter(queue) -> None:
    bury_many(queue, 1)
    (dead,) = letters(queue)
    queue._sqs.plan["send_message_batch"] = [refusal("Busy", 503)]

    with pytest.raises(Unavailable):
        queue.redrive(dead)

    assert queue.redrive(dead) is True
    assert (queue.depth().ready, queue.depth().dead) == (1, 0)
