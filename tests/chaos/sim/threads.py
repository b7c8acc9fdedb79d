"""What the production modules get instead of `threading`: the scheduler's locks, events and threads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from chaos.sim.sched import FOREVER, Scheduler, SimEvent, SimLock, SimThread

IDLE_S = 600.0
"""Idle looks cost real time and no virtual one: a world of hours needs few of them."""


class SimThreading:
    """What the production modules see as the module `threading` inside a world."""

    def __init__(self, sched: Scheduler) -> None:
        self._sched = sched

    def Event(self) -> SimEvent:
        return SimEvent(self._sched)

    def Lock(self) -> SimLock:
        return SimLock(self._sched)

    def Thread(self, *, target: Callable[..., None], name: str, args: tuple = (), daemon=True):
        return _ThreadFace(self._sched, lambda: target(*args), name)


class _ThreadFace:
    """threading.Thread's face of a SimThread."""

    def __init__(self, sched: Scheduler, target: Callable[[], None], name: str) -> None:
        self._sched, self._target, self.name = sched, target, name
        self._thread: SimThread | None = None

    @property
    def ident(self) -> int | None:
        return None if self._thread is None else 1

    def start(self) -> None:
        process = self._sched.current.process
        name = f"{process.name}/{self.name.removeprefix('hevcq-')}"
        self._thread = self._sched.spawn(process, self._target, name)

    def join(self, timeout: float = FOREVER) -> None:
        assert self._thread is not None
        if not self._thread.over:
            self._thread.ended.wait(timeout)

    def is_alive(self) -> bool:
        return self._thread is not None and not self._thread.over


@contextmanager
def cooperative(sched: Scheduler) -> Iterator[None]:
    """Give the worker's modules this scheduler's locks, events and threads."""
    from hevcq.worker import pool, slot
    from hevcq.worker.delivery import lease

    known = SimThreading(sched)
    with (
        mock.patch.multiple(lease, threading=known, StopEvent=lambda: SimEvent(sched)),
        mock.patch.multiple(slot, threading=known, LONG_POLL_S=IDLE_S),
        mock.patch.multiple(pool, threading=known, WATCH_S=IDLE_S, IDLE_WATCH_S=IDLE_S),
    ):
        yield
