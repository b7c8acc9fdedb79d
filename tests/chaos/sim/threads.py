"""What the production modules get instead of `threading`: the scheduler's locks, events and threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chaos.sim.sched import FOREVER, Scheduler, SimEvent, SimLock, SimThread


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
    from hevcq.worker import pool
    from hevcq.worker import slot as loop
    from hevcq.worker.delivery import lease
    from hevcq.worker.delivery import lease as heartbeat

    modules, before = (heartbeat, lease, loop, pool), threading
    stop_event = lease.StopEvent
    watch, idle, poll = pool.WATCH_S, pool.IDLE_WATCH_S, loop.LONG_POLL_S
    for module in modules:
        module.threading = SimThreading(sched)
    lease.StopEvent = lambda: SimEvent(sched)
    # Idle looks cost real time and no virtual one: a world of hours needs few of them.
    pool.WATCH_S = pool.IDLE_WATCH_S = loop.LONG_POLL_S = 600.0
    try:
        yield
    finally:
        for module in modules:
            module.threading = before
        lease.StopEvent = stop_event
        pool.WATCH_S, pool.IDLE_WATCH_S, loop.LONG_POLL_S = watch, idle, poll
