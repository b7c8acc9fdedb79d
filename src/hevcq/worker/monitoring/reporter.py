"""Keep the metrics of a pool up to date and export them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hevcq.errors import HevcqError
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.monitoring.exports import Exposition, lines
from hevcq.worker.monitoring.periodic import Background
from hevcq.worker.monitoring.pool_state import PoolState
from hevcq.worker.monitoring.recorder import Meter

CLOSE_S = 10.0
"""Seconds that a stopping worker waits for the last report."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where metrics go: lines to `write`, and the answers of `exposition`."""

    write: Callable[[str], None] | None = None
    exposition: Exposition | None = None


class MetricsReport:
    """Count the queues and write the lines every `every_s` seconds; a watcher.

    It runs in a thread of its own because a queue may be slow to answer.
    """

    def __init__(
        self,
        meter: Meter,
        queues: Sequence[ProfileQueue],
        outlets: Outlets,
        clock: Clock,
        every_s: float,
    ) -> None:
        self._meter, self._queues, self._outlets = meter, tuple(queues), outlets
        self._clock, self._every_s = clock, every_s
        self._failed: set[str] = set()
        self._started = False
        self._thread = Background("hevcq-metrics-report", self.step, clock)

    def observe(self, state: PoolState) -> None:
        """Record the state of the slots."""
        self._meter.slots(state)
        if not self._started:
            self._started = True
            self._thread.wake()

    def close(self) -> None:
        """Send a last report and end."""
        self._thread.close(CLOSE_S)
        if self._outlets.exposition is not None:
            self._outlets.exposition.close()

    def step(self) -> float:
        """Count the queues and write the lines; return the seconds until the next report."""
        for served in self._queues:
            self._count(served)
        if self._outlets.write is not None:
            for line in lines(self._meter.metrics, self._clock.now()):
                self._outlets.write(line)
        return self._every_s

    def _count(self, served: ProfileQueue) -> None:
        name = served.profile.name
        try:
            depth = served.queue.depth()
        except HevcqError as error:
            if name not in self._failed:
                get_logger(profile=name).warning("queue_not_counted", reason=str(error))
            self._failed.add(name)
            self._meter.queue(name, None)
            return
        self._failed.discard(name)
        self._meter.queue(name, depth)
