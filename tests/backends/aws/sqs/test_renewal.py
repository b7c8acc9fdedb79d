"""What waits longer than SQS keeps a message is sent anew, in virtual time."""

import pytest

from hevcq.backends.aws.clients import MESSAGE_RETENTION_S
from hevcq.backends.aws.sqs import queue as renewal
from hevcq.domain.job import Source, Task
from support.aws.breaking import refusal
from support.aws.values import take

pytestmark = pytest.mark.aws
DAY = 86_400
COUNT = 45
BUSY = refusal("ServiceUnavailable", 503)


def task(key: str, group: str = "") -> Task:
    source = Source(bucket="uploads", key=key, version="v1", size=5)
    return Task(source=source, profile="hevc", group=group)


def served(farm, queue, *, days: float, each_day: int) -> list[str]:
    """Take some messages a day, as a fleet that is too small does; return the keys in order."""
    found = []
    # Longer where the emulator gave fewer: what is lost is not found later either.
    for _ in range(3 * int(days)):
        if len(found) >= COUNT:
            break
        for _ in range(each_day):
            for delivery in take(queue, 1):
                found.append(delivery.tasks[0].source.key)
                queue.ack(delivery)
        farm.clock.advance(DAY)
    return found


def test_a_backlog_of_twice_the_retention_loses_nothing(farm, queue):
    keys = [f"TODO/all/{n}.mp4" for n in range(COUNT)]
    queue.send([task(key) for key in keys])
    days = 2 * MESSAGE_RETENTION_S / DAY

    found = served(farm, queue, days=days + 4, each_day=2)

    assert sorted(found) == sorted(keys)
    assert len(found) / 2 * DAY > MESSAGE_RETENTION_S


def test_a_copy_keeps_body_group_and_place_in_the_line(farm, queue):
    queue.send([task(f"TODO/all/{n}.mp4", group="video") for n in range(4)])
    farm.clock.advance(MESSAGE_RETENTION_S * renewal.RENEW_AFTER_SHARE + 1)

    (first,) = take(queue, 1)
    rest = take(queue, 10)

    assert [d.tasks[0].source.key for d in (first, *rest)] == [
        f"TODO/all/{n}.mp4" for n in range(4)
    ]
    assert {d.tasks[0].group for d in rest} == {"video"}
    assert max(d.attempt for d in rest) <= 2
    groups = [
        entry.get("MessageGroupId")
        for name, asked in queue._renewal._sqs.calls
        if name == "send_message_batch"
        for entry in asked["Entries"]
    ]
    assert groups == ["video"] * (4 + 3)


def test_old_messages_are_renewed_though_a_younger_one_cannot_be_given_back(farm, queue):
    queue.send([task(f"TODO/all/{n}.mp4") for n in range(3)])
    farm.clock.advance(MESSAGE_RETENTION_S * renewal.RENEW_AFTER_SHARE + 1)
    queue.send([task("TODO/all/young.mp4")])
    queue._renewal._sqs.plan["change_message_visibility"] = [BUSY]

    queue.ack(take(queue, 1)[0])
    farm.clock.advance(MESSAGE_RETENTION_S * (1 - renewal.RENEW_AFTER_SHARE))

    assert {d.tasks[0].source.key for d in take(queue)} == {
        "TODO/all/1.mp4", "TODO/all/2.mp4", "TODO/all/young.mp4"
    }  # fmt: skip


def in_part(real, **asked):
    """Take all of a batch but its first."""
    first, *others = asked["Entries"]
    taken = real(**asked | {"Entries": others})["Successful"] if others else []
    failed = {"Id": first["Id"], "Code": "Busy", "SenderFault": False}
    return {"Successful": taken, "Failed": [failed]}


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("receive_message", BUSY),
        ("send_message_batch", BUSY),
        ("send_message_batch", in_part),
        ("delete_message_batch", BUSY),
    ],
)
def test_an_error_while_renewing_loses_nothing_and_stops_nobody(farm, queue, call, answer):
    queue.send([task(f"TODO/all/{n}.mp4") for n in range(5)])
    farm.clock.advance(MESSAGE_RETENTION_S * renewal.RENEW_AFTER_SHARE + 1)
    queue._renewal._sqs.plan[call] = [answer] * 9

    (first,) = take(queue, 1)
    assert first.tasks
    queue._renewal._sqs.plan.clear()
    farm.clock.advance(renewal.HIDE_S + 1)
    keys = {d.tasks[0].source.key for _ in range(3) for d in take(queue, 10)}

    assert len({*keys, first.tasks[0].source.key}) == 5
