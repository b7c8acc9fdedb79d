"""What two processes or threads do to each other at just the wrong moment, and nonsense in rows."""

import threading
import time
from pathlib import Path

import pytest

from contracts.backends import PROFILES, source
from hevcq.backends.sql.factory import SqlBackend, open_sql
from hevcq.domain.job import JobState
from hevcq.ports.ledger import Granted
from hevcq.ports.queue import Delivery
from hevcq.settings.model import Settings
from hevcq.util.clock import SystemClock
from hevcq.util.processes import Processes
from support.clips import ManualClock

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
    assert claim(real).state is JobState.RUNNING

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
    assert claim(real).state is JobState.RUNNING
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
