"""What only stages wait on: condition variables, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chaos.sim.sched import Scheduler, SimClock, SimEvent, SimLock
from chaos.sim.threads import SimThreading
from hevcq.worker import admission as stages
from hevcq.worker import slot as loop

LONG_POLL_S = 600.0
"""How long a poll of a simulated service waits at most: idle looks cost real time, and no virtual."""

STOP_WATCH_S = 5.0


class SimCondition:
    """threading.Condition for greenlets."""

    def __init__(self, sched: Scheduler) -> None:
        self._sched, self._lock, self._told = sched, SimLock(sched), SimEvent(sched)

    def __enter__(self) -> SimCondition:
        self._lock.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)

    def notify_all(self) -> None:
        self._told.ring()

    def wait(self, timeout: float) -> None:
        """Let go of the lock until told or until the time has come, and take it again."""
        self._lock.__exit__()
        try:
            self._sched.block(self._sched.now + max(0.0, timeout), self._told)
        finally:
            self._lock.__enter__()


class WaitingThreading(SimThreading):
    """The module `threading` with conditions."""

    def __init__(self, sched: Scheduler) -> None:
        super().__init__(sched)
        self._made_for = sched

    def Condition(self) -> SimCondition:
        return SimCondition(self._made_for)


class WaitingClock(SimClock):
    """A clock that can wait on such a condition."""

    urgent: Any = None
    """What a process that is told to stop waits for; then it must look at its slots more often."""

    def wait(self, event: Any, timeout_s: float) -> bool:
        return super().wait(
            event, min(timeout_s, STOP_WATCH_S) if event is self.urgent else timeout_s
        )

    def wait_on(self, condition: Any, timeout_s: float) -> bool:
        if isinstance(condition, SimCondition):
            condition.wait(timeout_s)
            return False
        return super().wait_on(condition, timeout_s)


@contextmanager
def waiting(sched: Scheduler) -> Iterator[None]:
    """Give stages this scheduler's threads, and waits that fit virtual time."""
    changes = (
        (stages, "threading", WaitingThreading(sched)),
        (loop, "TURN_S", 120.0),
        (stages, "LOOK_S", 5.0),
    )
    before = [(module, name, getattr(module, name)) for module, name, _value in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
