"""The heartbeat's thread: beats on time, dies loudly, and is gone before anything is settled."""

import threading

from hevcq.errors import LeaseLost
from hevcq.worker.delivery import lease as module
from hevcq.worker.delivery.lease import Heartbeat
from support.clips import ManualClock


class Lease:
    """Notes beats; `trouble` is raised by the next one."""

    first_beat_s = 60.0

    def __init__(self) -> None:
        self.beats: list[float] = []
        self.trouble: Exception | None = None
        self.ended: list[Exception] = []
        self.beaten = threading.Event()
        self.gate: threading.Event | None = None

    def beat(self, now: float) -> float:
        self.beats.append(now)
        self.beaten.set()
        if self.gate is not None:
            self.gate.wait(10)
        if self.trouble is not None:
            raise self.trouble
        return 60.0

    def end(self, cause: Exception) -> None:
        self.ended.append(cause)


def test_a_heartbeat_that_dies_ends_the_lease(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    clock, lease = ManualClock(), Lease()
    lease.trouble = RuntimeError("a defect")
    heartbeat = Heartbeat(lease, clock)
    heartbeat.start()
    clock.until_waiting()
    clock.advance(60)
    assert lease.beaten.wait(10)

    heartbeat.join()

    (cause,) = lease.ended
    assert isinstance(cause, LeaseLost)


def test_a_beat_that_does_not_return_costs_the_lease(monkeypatch):
    monkeypatch.setattr(module, "JOIN_S", 0.01)
    clock, lease = ManualClock(), Lease()
    lease.gate = threading.Event()
    heartbeat = Heartbeat(lease, clock)
    heartbeat.start()
    clock.until_waiting()
    clock.advance(60)
    assert lease.beaten.wait(10)

    heartbeat.join()
    lease.gate.set()

    assert isinstance(lease.ended[0], LeaseLost)
