"""Pools that a test drives: an encode that goes on until it is told otherwise, and virtual time."""

import threading
from collections.abc import Callable

from hevcq.errors import Stopped
from hevcq.worker.delivery.lease import Heartbeat
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import WorkerPool
from support.fakes.farm import Farm


def pool_of(farm: Farm, **numbers) -> WorkerPool:
    """Return a pool with real heartbeats over the farm's queue, not yet started."""
    farm.clock.auto = False
    farm.with_context(heartbeat=Heartbeat)
    return WorkerPool(farm.context, [ProfileQueue(farm.profile, farm.queue)], **numbers)


class Encode:
    """An encode that goes on until it is told to stop or to finish; `stop` is that of its lease."""

    def __init__(self, farm: Farm) -> None:
        self.begun, self.finish = threading.Event(), threading.Event()
        self.farm, self.stop = farm, threading.Event()
        farm.encoder.during["encode"] = self

    def __call__(self) -> None:
        self.stop = self.farm.pool.workers[0]._handler._lease.stop
        self.begun.set()
        pause = threading.Event()
        for _ in range(20_000):
            if self.finish.is_set():
                return
            if self.stop.is_set():
                raise Stopped
            pause.wait(0.001)
        raise AssertionError("the encode was neither stopped nor finished")


def started(farm: Farm, **numbers) -> tuple[WorkerPool, Encode]:
    """Start a pool whose first encode has begun."""
    farm.pool, encode = pool_of(farm, **numbers), Encode(farm)
    farm.pool.start()
    assert encode.begun.wait(20)
    return farm.pool, encode


PATIENT_STEPS = 10_000
"""Twenty real seconds: on a busy machine a thread may not run for longer than the virtual time lasts."""


def drive(farm: Farm, seconds: float, until: Callable[[], bool] | None = None) -> None:
    """Move time on and step the farm's pool, as its own run would; then wait for threads without it."""
    pause, moving = threading.Event(), int(seconds * 2)
    for step in range(moving if until is None else moving + PATIENT_STEPS):
        if farm.pool.stopped or (until is not None and until()):
            return
        if step < moving:
            farm.clock.advance(0.5)
        farm.pool.step()
        pause.wait(0.002)
