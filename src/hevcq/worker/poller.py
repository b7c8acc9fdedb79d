"""Long-poll several queues at once, for services that charge for every receive (SQS).

One thread per queue receives messages, but never more than there are free slots: a slot that waits
is reserved by a receive, and every message goes to such a slot at once. So no message waits in
this process while its visibility timeout runs, none is received only to be released, and a stop
takes no longer than the polls in progress.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from hevcq.errors import AccessDenied, ConfigError, HevcqError, TransientError, WorkerUnfit
from hevcq.ports.queue import Delivery
from hevcq.util.log import get_logger
from hevcq.util.retry import POLL_FAILED
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import ProfileQueue

POLL_WAIT_S = 20.0
"""Seconds that a receive from the only queue waits: SQS's maximum; free on the embedded queue."""
TAKE_S = 30.0
"""Longest wait of a slot in seconds before it checks its disk again."""
QUICK_S = 1.0
"""Seconds that a receive waits if fewer slots than queues wait, in the first round after a message:
an empty queue must not keep a full one waiting, and messages that are there come at once. Not 0,
because a short poll asks only some of SQS's servers."""
GATE_S = 1.0
"""Seconds between looks at whether a closed queue is open again."""
SHARED_S = 5.0
"""The same after a whole empty round: 12 calls a minute in total."""
MOST_DENIED = 8
"""Denials in a row after which a worker that no queue ever answered ends: within two minutes of its
start, long enough for a policy that was just attached to take effect. One that was answered before
goes on trying, because its running jobs would be lost."""
GONE_S = 60.0
"""Seconds between looks at whether a queue that was deleted is there again."""


@dataclass(eq=False)
class _Waiter:
    """A waiting slot; ended by a message, an error or the time `until` (monotonic seconds)."""

    until: float
    found: tuple[ProfileQueue, Delivery] | None = None
    error: Exception | None = None
    ended: bool = False


class Poller:
    """The receiving threads of one pool; `answered_at`: monotonic seconds at the last answer."""

    def __init__(
        self, context: WorkerContext, queues: Sequence[ProfileQueue], stop: threading.Event
    ) -> None:
        self.answered_at = context.clock.monotonic()
        self._context, self._queues, self._stop = context, tuple(queues), stop
        self._changed = threading.Condition()
        self._free: deque[_Waiter] = deque()
        # All queues line up at once: the first to start must not get a long poll for that reason.
        self._line: deque[ProfileQueue] = deque(self._queues)
        self._empty = 0
        self._gone: set[ProfileQueue] = set()
        self._refused: set[ProfileQueue] = set()
        self._was_answered = False
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(served,),
                name=f"hevcq-receive-{served.profile.name}",
                daemon=True,
            )
            for served in self._queues
        ]

    def start(self) -> None:
        """Start a thread for each queue."""
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> list[str]:
        """The names of the threads that still run."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def wake(self) -> None:
        """Make all waiting threads check `stop`."""
        with self._changed:
            self._changed.notify_all()

    def next_delivery(self) -> tuple[ProfileQueue, Delivery] | None:
        """Wait for a message for one slot; return None after `TAKE_S` or on a stop.

        Raises any error of a receive except TransientError, and ConfigError only where every queue
        is gone.
        """
        clock = self._context.clock
        waiter = _Waiter(clock.monotonic() + TAKE_S)
        with self._changed:
            self._free.append(waiter)
            self._changed.notify_all()
            while not waiter.ended:
                if waiter in self._free and (
                    self._stop.is_set() or clock.monotonic() >= waiter.until
                ):
                    self._free.remove(waiter)
                    return None
                # Wait while a receive reserves this waiter: a message may be on its way to it.
                clock.wait_on(self._changed, max(0.05, waiter.until - clock.monotonic()))
        if waiter.error is not None:
            raise waiter.error
        return waiter.found

    def _run(self, served: ProfileQueue) -> None:
        errors = 0
        while self._may_ask(served) and (asked := self._waiters(served)) is not None:
            waiters, wait_s = asked
            try:
                found = served.queue.receive(len(waiters), wait_s=wait_s, stop=self._stop)
            except ConfigError as error:
                if not self._go_on_without(served, error):
                    waiters[0].error, waiters[0].ended = error, True
                    waiters = waiters[1:]
                self._give(waiters, [])
                self._context.clock.wait(self._stop, GONE_S)
                continue
            except TransientError as error:
                if isinstance(error, AccessDenied) and self._is_refused(served, errors + 1):
                    waiters[0].error, waiters[0].ended = refused(error), True
                    waiters = waiters[1:]
                self._give(waiters, [])
                back_off(self._context, self._stop, error, errors, profile=served.profile.name)
                errors += 1
                continue
            except Exception as error:  # noqa: BLE001 - a slot raises it
                waiters[0].error, waiters[0].ended = error, True
                self._give(waiters[1:], [])
                back_off(self._context, self._stop, error, errors, profile=served.profile.name)
                errors += 1
                continue
            errors, self._was_answered = 0, True
            self._answered(served, waiters, found)

    def _is_refused(self, served: ProfileQueue, denials: int) -> bool:
        """Return whether every queue of this worker denied access from its start on."""
        with self._changed:
            if denials >= MOST_DENIED:
                self._refused.add(served)
            return not self._was_answered and len(self._refused) == len(self._queues)

    def _go_on_without(self, served: ProfileQueue, error: ConfigError) -> bool:
        """Say once that a queue is gone; return whether another one is left."""
        with self._changed:
            if served not in self._gone:
                self._gone.add(served)
                log = get_logger(profile=served.profile.name)
                log.error("queue_gone", reason=str(error), again_s=GONE_S)
            return len(self._gone) < len(self._queues)

    def _may_ask(self, served: ProfileQueue) -> bool:
        """Wait while this queue is closed; return False on a stop."""
        while self._context.closed(served.profile.name) is not None and not self._stop.is_set():
            self.answered_at = self._context.clock.monotonic()
            self._context.clock.wait(self._stop, GATE_S)
        return not self._stop.is_set()

    def _waiters(self, served: ProfileQueue) -> tuple[list[_Waiter], float] | None:
        """Wait for this queue's turn and a free slot; return the slots that wait, and the poll time in seconds.

        Returns None on a stop. Waiting queues share the free slots, longest waiting first.
        """
        with self._changed:
            if served not in self._line:
                self._line.append(served)
            while not (self._free and self._line[0] is served):
                if self._stop.is_set():
                    self._line.remove(served)
                    self._changed.notify_all()
                    return None
                self._context.clock.wait_on(self._changed, TAKE_S)
            if self._stop.is_set():
                self._line.remove(served)
                return None
            share = max(1, len(self._free) // len(self._line))
            waiters = [self._free.popleft() for _ in range(share)]
            self._line.popleft()
            self._changed.notify_all()
            if len(self._free) >= len(self._line):
                return waiters, served.queue.long_poll_s
            quick = self._empty < len(self._queues)
            return waiters, min(QUICK_S if quick else SHARED_S, served.queue.long_poll_s)

    def _answered(
        self, served: ProfileQueue, waiters: list[_Waiter], found: list[Delivery]
    ) -> None:
        self.answered_at = self._context.clock.monotonic()
        if self._stop.is_set():
            for delivery in found:
                self._release(served, delivery)
            found = []
        with self._changed:
            self._empty = 0 if found else self._empty + 1
            back = served in self._gone
            self._gone.discard(served)
        if back:
            get_logger(profile=served.profile.name).info("queue_back")
        self._give(waiters, [(served, delivery) for delivery in found])

    def _give(self, waiters: list[_Waiter], found: list[tuple[ProfileQueue, Delivery]]) -> None:
        """Assign the messages to waiters; a waiter without one waits on unless its time is up."""
        now = self._context.clock.monotonic()
        with self._changed:
            for waiter, message in zip(waiters, found, strict=False):
                waiter.found, waiter.ended = message, True
            for waiter in reversed(waiters[len(found) :]):
                if self._stop.is_set() or now >= waiter.until:
                    waiter.ended = True
                else:
                    self._free.appendleft(waiter)
            self._changed.notify_all()

    def _release(self, served: ProfileQueue, delivery: Delivery) -> None:
        try:
            served.queue.release(delivery)
        except HevcqError as error:
            # The message returns by itself when its visibility timeout ends.
            get_logger(queue=delivery.queue).warning("not_released", reason=str(error))


def refused(error: AccessDenied) -> WorkerUnfit:
    """Return the error that ends a worker whose role may not read its queues."""
    return WorkerUnfit(
        f"This worker may not read its queues, and ends after {MOST_DENIED} attempts. {error.message}",
        remedy=error.remedy,
    )


def back_off(
    context: WorkerContext, stop: threading.Event, error: Exception, failures: int, **names: str
) -> None:
    """Log a failed poll and wait, longer after more `failures` in a row; `stop` ends the wait."""
    seconds = POLL_FAILED.wait_s(failures, context.random)
    log = get_logger(**names)
    log.warning("poll_failed", reason=str(error), again_s=round(seconds, 1))
    context.clock.wait(stop, seconds)
