"""One slot: receive and handle in a loop, fair to every queue, with a back-off after errors."""

import threading
from collections.abc import Sequence
from enum import StrEnum

from hevcq.domain.verdict import Release
from hevcq.errors import (
    AccessDenied,
    ConfigError,
    DatabaseBusy,
    DiskFull,
    HevcqError,
    StorageError,
    TransientError,
    WorkerUnfit,
)
from hevcq.ports.queue import Delivery
from hevcq.util.log import bind, get_logger
from hevcq.util.retry import POLL_FAILED
from hevcq.worker.delivery.claim import WorkerContext, send_afresh
from hevcq.worker.handler import DeliveryResult, Handler, ProfileQueue

DISK_PAUSE_S = 10.0
"""Seconds between checks of a disk that is too full for new work."""
CLOSED_PAUSE_S = 5.0
"""Seconds between checks of closed queues by a slot; the pool checks more often and wakes it."""
LONG_POLL_S = 20.0
"""Seconds that a receive from the only queue waits: SQS's maximum; free on the embedded queue."""
QUICK_POLL_S = 1.0
"""Most seconds that a receive from one of several queues waits after a message: an empty queue must not
keep a full one waiting. Not 0 on SQS, where a short poll asks only some of its servers."""
MAX_DENIALS = 8
"""Denials in a row after which a worker that no queue ever answered ends: within two minutes of its
start, long enough for a policy that was just attached to take effect. One that was answered before
goes on trying, because its running jobs would be lost."""


class SlotOutcome(StrEnum):
    """Why a slot ended; RUNNING if it has not."""

    RUNNING = "running"
    STOPPED = "stopped"
    UNFIT = "unfit"
    BROKEN = "broken"


class Slot:
    """Serve one or several queues, one delivery at a time.

    `poll_s` is the seconds between polls of several empty queues. `last_poll` is the monotonic
    time in seconds of the last receive that was answered, for health checks. `handled` counts
    deliveries. `error` says why the outcome is UNFIT (this machine cannot work) or BROKEN. `full` is
    the error text if the last receive failed because the queue's disk is full, else "".
    """

    def __init__(
        self,
        context: WorkerContext,
        handler: Handler,
        queues: Sequence[ProfileQueue],
        *,
        poll_s: float = 0.5,
    ) -> None:
        self.outcome = SlotOutcome.RUNNING
        self.error: BaseException | None = None
        self.handled = 0
        self.busy = False
        self.last_poll = context.clock.monotonic()
        self._context, self._handler, self._queues = context, handler, tuple(queues)
        self._poll_s = poll_s
        self._next_queue, self._all_empty = 0, False
        self._failing: set[ProfileQueue] = set()
        self._errors, self._answered = 0, False
        self.full = ""
        self._serving: ProfileQueue | None = None
        self._all_closed = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        for served in self._queues:
            served.queue.listen(self._wake.set)

    def serve(self, more: Sequence[ProfileQueue]) -> None:
        """Poll these queues too, from the next round on."""
        for served in more:
            served.queue.listen(self._wake.set)
        self._queues = (*self._queues, *more)
        self.wake()

    def run(self, stop: threading.Event) -> None:
        """Step until a stop is requested or no work is possible; `outcome` then says which."""
        self._stop = stop
        try:
            while not stop.is_set() and self.outcome is SlotOutcome.RUNNING:
                self.step()
        except BaseException as error:
            self._end(SlotOutcome.BROKEN, error)
            raise
        if self.outcome is SlotOutcome.RUNNING:
            self.outcome = SlotOutcome.STOPPED

    def interrupt(self) -> None:
        self._handler.interrupt()

    def obey_admission(self) -> None:
        """Let the running job obey the admission, or wake an idle slot once work may begin."""
        serving = self._serving
        if serving is not None:
            self._handler.obey(self._context.why_closed(serving.profile.name))
        elif self._all_closed and self._any_open():
            self._wake.set()

    def wake(self) -> None:
        self._wake.set()
        for served in self._queues:
            served.queue.wake()

    def step(self) -> bool:
        """Receive once and handle the delivery; return False if there was none, or work may not begin."""
        try:
            if self._wait_while_paused():
                return False
            received = self._return_if_closed(self._receive())
        except (ConfigError, TransientError, StorageError, WorkerUnfit) as error:
            self._back_off(error)
            return False
        self._errors, self._answered, self.full = 0, True, ""
        if received is None:
            return False
        self.busy, self._serving = True, received[0]
        try:
            with bind(**_log_names(*received)):
                self._obey_result(self._handler.process(*received))
        finally:
            self.busy, self._serving = False, None
        self.handled += 1
        return True

    def _receive(self) -> tuple[ProfileQueue, Delivery] | None:
        """Poll each queue once, starting after the last that had work; wait `poll_s` if all are empty.

        Each delivery moves the starting queue on, so no queue can starve another. A queue that fails
        does not stop the poll of the others; its error is raised only if none answered.
        """
        self._wake.clear()
        failure, answered = None, False
        for offset in range(len(self._queues)):
            index = (self._next_queue + offset) % len(self._queues)
            served = self._queues[index]
            if not self._is_open(served):
                continue
            try:
                delivery = self._poll(served)
            except (ConfigError, TransientError) as error:
                self._log_failing(served, error)
                failure = error if failure is None or isinstance(failure, ConfigError) else failure
                continue
            answered = True
            if delivery is not None:
                self._next_queue, self._all_empty = index + 1, False
                return served, delivery
            if self._stop.is_set():
                return None
        if failure is not None and not answered:
            raise failure
        self._all_empty = True
        if len(self._queues) > 1 and not any(served.queue.long_poll_s for served in self._queues):
            # A long poll of one queue would miss the others; a send in this process ends the wait.
            self._context.clock.wait(self._wake, self._poll_s)
        return None

    def _poll(self, served: ProfileQueue) -> Delivery | None:
        """Receive from one queue; several queues share the time of one long poll."""
        wait_s = LONG_POLL_S
        if len(self._queues) > 1:
            share_s = served.queue.long_poll_s / len(self._queues)
            wait_s = share_s if self._all_empty else min(QUICK_POLL_S, share_s)
        stop = self._stop if self._context.admission is None else _Closing(self._stop, self, served)
        deliveries = served.queue.receive(1, wait_s=wait_s, stop=stop)
        self.last_poll = self._context.clock.monotonic()
        if served in self._failing:
            self._failing.discard(served)
            get_logger(profile=served.profile.name).info("queue_back")
        return deliveries[0] if deliveries else None

    def _log_failing(self, served: ProfileQueue, error: HevcqError) -> None:
        if len(self._queues) > 1 and served not in self._failing:
            self._failing.add(served)
            name = "queue_gone" if isinstance(error, ConfigError) else "queue_fails"
            get_logger(profile=served.profile.name).error(name, reason=str(error))

    def _is_open(self, served: ProfileQueue) -> bool:
        """Return whether work of this queue may begin."""
        return not self._context.full() and self._context.why_closed(served.profile.name) is None

    def _any_open(self) -> bool:
        return any(self._is_open(served) for served in self._queues)

    def _return_if_closed(
        self, received: tuple[ProfileQueue, Delivery] | None
    ) -> tuple[ProfileQueue, Delivery] | None:
        """Give a delivery back to its queue if that was closed during the poll, else return it.

        It goes back too if the worker was told to stop meanwhile, or if ffmpeg cannot make its profile,
        which is tested now unless it was before.
        """
        if received is None:
            return None
        served, delivery = received
        if self._stop.is_set():
            served.queue.release(delivery)
            return None
        closed = self._context.why_closed(served.profile.name, now=True)
        if closed is None and delivery.tasks:
            closed = self._context.require_tested(served.profile, self._stop)
        if closed is None:
            return received
        has_spare = delivery.attempt < served.profile.queue.max_receives // 2
        if has_spare or not delivery.tasks:
            served.queue.release(delivery)
        else:
            send_afresh(served.queue, delivery)
        return None

    def _wait_while_paused(self) -> bool:
        """Wait a moment if all queues are closed or the disk is full; return whether that is so."""
        self._all_closed = not self._any_open()
        if self._all_closed:
            self._wake.clear()
            if not self._stop.is_set():
                self._context.clock.wait(self._wake, CLOSED_PAUSE_S)
            self.last_poll = self._context.clock.monotonic()
            return True
        reason = self._context.disk_shortage()
        if reason:
            get_logger().warning("work_paused", reason=reason, again_s=DISK_PAUSE_S)
            self._context.notify("disk.low", reason)
            self._context.clock.wait(self._stop, DISK_PAUSE_S)
        return bool(reason)

    def _obey_result(self, result: DeliveryResult) -> None:
        """End an unfit slot; pause after a delayed release."""
        if result.unfit is not None:
            self._end(SlotOutcome.UNFIT, result.unfit)
            return
        verdict = result.verdict
        if isinstance(verdict, Release) and verdict.delay_s and not verdict.suspected_worker_fault:
            # The next delivery would hit the same condition (a full disk, a busy database).
            self._context.clock.wait(self._stop, min(self._poll_s, verdict.delay_s))

    def _back_off(self, error: HevcqError) -> None:
        """Wait after a service error; end the slot if database, scratch or farm are not usable."""
        lasting = (ConfigError, StorageError, WorkerUnfit)
        if isinstance(error, lasting) and not isinstance(error, DatabaseBusy):
            self._end(SlotOutcome.UNFIT, error)
            return
        self._errors += 1
        self.full = str(error) if isinstance(error, DiskFull) else ""
        if isinstance(error, AccessDenied) and not self._answered and self._errors >= MAX_DENIALS:
            problem = f"This worker may not read its queues, and ends after {MAX_DENIALS} attempts."
            unfit = WorkerUnfit(f"{problem} {error.message}", remedy=error.remedy)
            self._end(SlotOutcome.UNFIT, unfit)
            return
        seconds = POLL_FAILED.wait_s(self._errors - 1, self._context.random)
        get_logger().warning("poll_failed", reason=str(error), again_s=round(seconds, 1))
        self._context.clock.wait(self._stop, seconds)

    def _end(self, outcome: SlotOutcome, error: BaseException) -> None:
        self.outcome, self.error = outcome, error
        self._context.notify("worker.unfit", str(error))
        get_logger().error(f"worker_{outcome.value}", reason=str(error))


class _Closing(threading.Event):
    """The stop event of one receive: set when the slot stops or this queue closes."""

    def __init__(self, stop: threading.Event, slot: Slot, served: ProfileQueue) -> None:
        super().__init__()
        self._stop, self._slot, self._served = stop, slot, served

    def is_set(self) -> bool:
        return self._stop.is_set() or not self._slot._is_open(self._served)


def _log_names(served: ProfileQueue, delivery: Delivery) -> dict[str, object]:
    names: dict[str, object] = {"profile": served.profile.name, "attempt": delivery.attempt}
    if len(delivery.tasks) == 1:
        task = delivery.tasks[0]
        names |= {"job": task.job_id, "source": task.source.key}
    return names
