"""A receipt on SQS is worth what this process knows of it, whatever the service would still take."""

from __future__ import annotations

import pytest

from contracts.backends import VISIBILITY_S
from hevcq.errors import LeaseLost
from hevcq.ports.queue import Selection
from support.aws.values import DAMAGED, bury_many, letters, one, take, task

pytestmark = pytest.mark.aws


def test_a_receipt_that_ran_out_while_nobody_received_is_stale_all_the_same(farm, queue) -> None:
    queue.send([task()])
    delivery = one(queue)
    farm.clock.advance(VISIBILITY_S)
    calls = len(queue._sqs.calls)

    with pytest.raises(LeaseLost, match="stale"):
        queue.extend(delivery, VISIBILITY_S)
    assert [queue.ack(delivery), queue.release(delivery), queue.bury(delivery, DAMAGED)] == [
        False
    ] * 3

    assert len(queue._sqs.calls) == calls, "SQS is not even asked"
    assert one(queue).tasks == (task(),)


def test_a_heartbeat_moves_the_deadline_that_later_heartbeats_are_held_to(farm, queue) -> None:
    queue.send([task()])
    delivery = one(queue)
    for _ in range(4):
        farm.clock.advance(VISIBILITY_S - 10)
        assert queue.extend(delivery, VISIBILITY_S) == farm.clock.monotonic() + VISIBILITY_S

    assert take(queue) == []
    assert queue.ack(delivery) is True


def test_one_letter_of_many_is_found_and_the_others_stay(queue) -> None:
    bury_many(queue, 4)
    wanted = letters(queue)[-1]

    assert queue.purge(wanted) is True

    left = letters(queue)
    assert len(left) == 3
    assert wanted.letter_id not in {dead.letter_id for dead in left}
    assert queue.purge(wanted) is False


def test_a_listing_of_letters_that_never_stop_coming_ends(farm, queue) -> None:
    bury_many(queue, 2)

    def again(real, **asked):
        """Show what is hidden at once, as where a minute passes between two batches."""
        farm.clock.advance(61)
        return real(**asked)

    queue._sqs.plan["receive_message"] = [again] * 50

    assert len({dead.letter_id for dead in queue.dead_letters(Selection())}) == 2
    assert len(queue._sqs.plan["receive_message"]) > 30, "it did not go on for ever"
