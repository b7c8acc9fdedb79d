"""What SQS alone can do to a queue: lost replies, throttles, late answers and the 12 hours."""

import threading

import pytest

from contracts.backends import VISIBILITY_S
from hevcq.domain.profile import MAX_VISIBILITY_S
from hevcq.errors import LeaseLost, Unavailable
from support.aws.breaking import broken, refusal
from support.aws.values import DAMAGED, bury_many, one, take, task

pytestmark = pytest.mark.aws


def test_a_lease_is_not_extended_past_twelve_hours_from_its_receive(farm, queue):
    queue.send([task()])
    delivery = one(queue)
    queue.extend(delivery, MAX_VISIBILITY_S - 100)
    farm.clock.advance(MAX_VISIBILITY_S - 200)
    left = 200 - 30

    assert queue.extend(delivery, left + 1) == farm.clock.monotonic() + left
    assert queue._sqs.calls[-1][1]["VisibilityTimeout"] == left
    assert queue.extend(delivery, 100) == farm.clock.monotonic() + 100
    queue.extend(delivery, left)
    farm.clock.advance(left - 0.5)
    asked = queue._sqs.count("change_message_visibility")
    with pytest.raises(LeaseLost, match="12 hours"):
        queue.extend(delivery, VISIBILITY_S)
    assert queue._sqs.count("change_message_visibility") == asked


def test_a_release_near_the_twelve_hours_waits_only_as_long_as_is_left(farm, queue):
    queue.send([task()])
    delivery = one(queue)
    queue.extend(delivery, MAX_VISIBILITY_S - 100)
    farm.clock.advance(MAX_VISIBILITY_S - 200)

    assert queue.release(delivery, delay_s=3600) is True

    assert queue._sqs.calls[-1][1]["VisibilityTimeout"] == 200 - 30


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_stale_receipt_disturbs_nobody_although_sqs_would_take_it(farm, queue, taken_over):
    queue.send([task()])
    old = one(queue)
    farm.clock.advance(VISIBILITY_S + taken_over)
    new = one(queue) if taken_over else None
    calls = len(queue._sqs.calls)

    with pytest.raises(LeaseLost, match="stale"):
        queue.extend(old, 60)
    assert [queue.ack(old), queue.release(old), queue.bury(old, DAMAGED)] == [False] * 3

    assert len(queue._sqs.calls) == calls, "SQS is not even asked"
    assert queue.ack(new or one(queue)) is True


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "MessageNotInflight"])
def test_a_receipt_that_sqs_refuses_is_a_lost_lease(queue, code):
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["change_message_visibility"] = [refusal(code)]

    with pytest.raises(LeaseLost):
        queue.extend(delivery, 60)

    assert queue.ack(delivery) is False


@pytest.mark.parametrize("error", [refusal("RequestThrottled"), refusal("Any", 503), broken()])
def test_a_failing_heartbeat_is_unavailable_and_the_lease_stays_until_its_deadline(
    farm, queue, error
):
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["change_message_visibility"] = [error]

    with pytest.raises(Unavailable):
        queue.extend(delivery, 60)

    assert queue.extend(delivery, 60) == farm.clock.monotonic() + 60


@pytest.mark.parametrize("how", [broken(), ("after", broken())])
def test_an_acknowledgement_without_an_answer_is_sent_once_and_may_be_sent_again(queue, how):
    queue.send([task()])
    delivery = one(queue)
    queue._sqs.plan["delete_message"] = [how]

    with pytest.raises(Unavailable):
        queue.ack(delivery)
    assert queue._sqs.count("delete_message") == 1

    assert queue.ack(delivery) is True
    assert queue.depth().in_flight == 0


def test_a_receive_asks_for_no_more_than_is_free_and_never_waits_over_20_s(queue):
    queue._polls.plan["receive_message"] = [lambda _real, **asked: {}] * 3

    queue.receive(3, wait_s=0.2, stop=threading.Event())
    queue.receive(30, wait_s=500, stop=threading.Event())

    asked = [(c["MaxNumberOfMessages"], c["WaitTimeSeconds"]) for _, c in queue._polls.calls]
    assert asked == [(3, 1), (10, 20)]


def test_a_slow_answer_is_counted_from_the_end_of_the_poll(farm, queue):
    queue.send([task()])
    began = farm.clock.monotonic()

    def slow(real, **asked):
        found = real(**asked)
        farm.clock.advance(45)
        return found

    queue._polls.plan["receive_message"] = [slow]

    assert one(queue).deadline == began + VISIBILITY_S


def test_fair_share_groups_go_out_as_sqs_takes_them(queue):
    queue.send([task(1, group="video-1"), task(2, group="ein Video"), task(3)])

    (sent,) = [c["Entries"] for name, c in queue._sqs.calls if name == "send_message_batch"]
    groups = [entry.get("MessageGroupId") for entry in sent]
    assert groups[0] == "video-1"
    assert len(groups[1]) == 64
    assert groups[2] is None
    assert len(take(queue)) == 3


def test_a_batch_that_sqs_takes_in_part_is_an_error(queue):
    def part(_real, **asked):
        return {"Successful": [], "Failed": [{"Id": "0", "Code": "Busy", "SenderFault": False}]}

    queue._sqs.plan["send_message_batch"] = [part]

    with pytest.raises(Unavailable, match="took 1 of 2 messages for hevcq-hevc: Busy"):
        queue.send([task(1), task(2)])


def test_a_listing_of_letters_that_never_stop_coming_ends(farm, queue):
    bury_many(queue, 2)

    def again(real, **asked):
        """Show what is hidden at once, as where a minute passes between two batches."""
        farm.clock.advance(61)
        return real(**asked)

    queue._sqs.plan["receive_message"] = [again] * 50

    assert len({dead.letter_id for dead in queue.dead_letters()}) == 2
    assert len(queue._sqs.plan["receive_message"]) > 30, "it did not go on for ever"
