"""What becomes of a delivery with several tasks, and that each verdict settles exactly once."""

from unittest.mock import Mock

import pytest

from hevcq.domain.verdict import Abandon, Bury, Done, FailureClass, Release, RetryIn, Skipped
from hevcq.worker.delivery.settle import combined, send_afresh, settle
from support.fakes.farm import Farm

DONE, SKIPPED = Done(), Skipped(reason="small")
BURY = Bury(reason="holes", failure_class=FailureClass.DAMAGED)
RETRY = RetryIn(seconds=30, reason="broke", failure_class=FailureClass.ENCODER)
RELEASE, LATER = Release(reason="stop"), Release(reason="disk", delay_s=90)
ABANDON = Abandon(reason="lost")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([DONE], DONE),
        ([SKIPPED], SKIPPED),
        ([DONE, SKIPPED], DONE),
        ([DONE, BURY], BURY),
        ([BURY, RETRY], RETRY),
        ([RELEASE, BURY], RELEASE),
        ([RETRY, RELEASE, LATER], LATER),
        ([DONE, ABANDON, RETRY], ABANDON),
    ],
)
def test_a_delivery_goes_only_when_nothing_in_it_waits(verdicts, expected):
    assert combined(verdicts) == expected


@pytest.mark.parametrize(
    ("decided", "verb"),
    [
        (DONE, "ack"),
        (SKIPPED, "ack"),
        (BURY, "bury"),
        (RETRY, "release"),
        (RELEASE, "release"),
    ],
)
def test_each_verdict_settles_once_and_a_second_time_is_harmless(tmp_path, decided, verb):
    farm = Farm(tmp_path)
    farm.submit()
    delivery = farm.receive()

    assert settle(farm.context, farm.queue, delivery, decided) is True
    assert settle(farm.context, farm.queue, delivery, decided) is False
    assert farm.queue.settled == [(verb, "m1")]


def test_a_new_message_is_sent_before_the_old_one_goes():
    queue = Mock()

    send_afresh(queue, Mock())

    assert [name for name, *_ in queue.method_calls] == ["send", "ack"]
