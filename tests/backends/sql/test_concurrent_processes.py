"""What two processes or threads do to each other at just the wrong moment, and nonsense in rows."""

import threading
import time
from pathlib import Path

import pytest

from contracts.backends import MAX_RECEIVES, PROFILES, VISIBILITY_S, source, task
from hevcq.backends.sql.factory import SqlBackend, open_sql
from hevcq.backends.sql.queue import send
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import Granted, Held
from hevcq.ports.queue import Delivery, Selection
from hevcq.settings.model import Settings
from hevcq.sql.sqlite import DATABASE, SqliteDatabase
from hevcq.util.clock import SystemClock
from hevcq.util.processes import Processes
from support.clips import ManualClock


def test_a_body_nobody_can_read_and_nobody_settles_is_a_dead_letter_without_a_job(
    opener, folder, clock
) -> None:
    opened = opener()
    database = SqliteDatabase(folder / DATABASE)
    database.write(lambda c: send(c, "hevc", [("no task at all", "", False)], now=clock.now()))
    database.close()
    queue, stop = opened.backend.queues["hevc"], threading.Event()

    for _ in range(MAX_RECEIVES):
        (delivery,) = queue.receive(1, wait_s=0, stop=stop)
        assert delivery.problem
        clock.advance(VISIBILITY_S + 1)
    assert queue.receive(1, wait_s=0, stop=stop) == []

    (letter,) = queue.dead_letters(Selection())
    assert (letter.body, letter.failure_class) == ("no task at all", FailureClass.RECEIVES)
    assert letter.task is None
    assert opened.backend.ledger.counts() == {}
    assert letter.attempts == MAX_RECEIVES


NOW = threading.Event()


TAKE = """
(delivery,) = queue.receive(1, wait_s=5, stop=stop)
claim = backend.ledger.claim(delivery.tasks[0].source, "hevc", owner=backend.owner + ":0", lease_s=600)
tell(backend.owner, delivery.message_id, claim.fence)
hang()
"""


@pytest.fixture
def real(folder: Path) -> SqlBackend:
    opened = open_sql(Settings(data_dir=folder), PROFILES, SystemClock())
    yield opened
    opened.close()


def take(opened: SqlBackend, *, wait_s: float = 0) -> list[Delivery]:
    return opened.backend.queues["hevc"].receive(10, wait_s=wait_s, stop=NOW)


def claim(opened: SqlBackend):
    return opened.backend.ledger.claim(source(), "hevc", owner="another", lease_s=60)


def test_what_a_killed_process_held_is_back_within_a_second(real, other) -> None:
    real.backend.task_publisher.publish(source(), ["hevc"], announced=False)
    victim = other(TAKE)
    _owner, message, fence = victim.line().split()
    assert fence == "1"
    assert take(real) == []
    assert isinstance(claim(real), Held)

    victim.kill()
    began = time.monotonic()
    (delivery,) = take(real, wait_s=20)
    took = time.monotonic() - began

    assert (delivery.message_id, delivery.attempt) == (message, 2)
    assert took < 1.0, "the kernel lets the lock go, no visibility timeout is waited for"
    assert claim(real) == Granted(fence=2, failures=0, crashes=1)


def test_a_live_process_keeps_what_it_holds_however_long_it_hangs(real, other) -> None:
    real.backend.task_publisher.publish(source(), ["hevc"], announced=False)
    holder = other(TAKE)
    holder.line()

    assert take(real, wait_s=0.8) == []
    assert isinstance(claim(real), Held)
    assert holder.finish() == 0


def test_what_a_dead_process_held_is_free_for_the_next_start(folder, other, opener) -> None:
    opened = opener(SystemClock())
    opened.backend.task_publisher.publish(source(), ["hevc"], announced=False)
    opened.close()
    victim = other(TAKE)
    owner = victim.line().split()[0]
    victim.kill()
    assert (folder / "processes" / f"{owner}.alive").exists()

    again = opener(SystemClock())

    assert not (folder / "processes" / f"{owner}.alive").exists()
    assert again.backend.queues["hevc"].depth().ready == 1
    assert claim(again) == Granted(fence=2, failures=0, crashes=0), "nobody outlived it"


def test_nothing_acknowledged_or_sent_is_lost_by_a_kill(real, other) -> None:
    victim = other(
        """
for number in range(50):
    queue.send([task(number)])
for delivery in queue.receive(20, wait_s=0, stop=stop):
    queue.ack(delivery)
    tell(delivery.tasks[0].job_id)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    acked = {victim.line() for _ in range(20)}
    victim.process.wait(timeout=30)
    left = set()
    while found := take(real):
        left |= {delivery.tasks[0].job_id for delivery in found}

    assert len(acked) == 20
    assert acked | left == {task(number).job_id for number in range(50)}
    assert not acked & left


def test_two_processes_share_a_queue_and_settle_each_task_once(real, other) -> None:
    real.backend.queues["hevc"].send([task(number) for number in range(200)])
    consumer = other(
        """
tell("go")
while found := queue.receive(3, wait_s=0.2, stop=stop):
    for delivery in found:
        assert queue.ack(delivery)
        tell(delivery.tasks[0].job_id)
tell("end")
"""
    )
    assert consumer.line() == "go"
    mine: list[str] = []
    while found := take(real):
        for delivery in found:
            assert real.backend.queues["hevc"].ack(delivery)
            mine.append(delivery.tasks[0].job_id)
    theirs = list(iter(consumer.line, "end"))

    assert sorted(mine + theirs) == sorted(task(number).job_id for number in range(200))
    assert consumer.finish() == 0


def test_a_dead_owner_is_freed_before_it_is_forgotten(folder: Path, clock: ManualClock) -> None:
    gone = Processes(folder, clock)
    gone.close()
    presence = Processes(folder, clock)
    freed: list[str] = []

    def fails(owner: str, _died_alone: bool) -> None:
        raise KeyError(owner)

    def free(owner: str, _died_alone: bool) -> None:
        freed.append(owner)

    with pytest.raises(KeyError):
        presence.reap(fails)
    presence.reap(free)
    assert freed == [], "not looked at again so soon"
    clock.advance(1)
    presence.reap(free)
    clock.advance(1)
    presence.reap(free)

    assert freed == [gone.owner]
    presence.close()
