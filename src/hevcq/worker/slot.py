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
from hevcq.util.log import bound, get_logger
from hevcq.util.retry import POLL_FAILED
from hevcq.worker.delivery.claim import WorkerContext, send_afresh
from hevcq.worker.handler import DeliveryResult, Handler, ProfileQueue

DISK_PAUSE_S = 10.0
"""Seconds between checks of a disk that is too full for new work."""
GATE_S = 5.0
"""Seconds that a slot waits at a closed queue before it asks again unprompted; the pool asks more often."""
POLL_WAIT_S = 20.0
"""Seconds that a receive from the only queue waits: SQS's maximum; free on the embedded queue."""
QUICK_S = 1.0
"""Seconds that a receive from one of several queues waits at most after a message: an empty queue must
not keep a full one waiting. Not 0 on SQS, where a short poll asks only some of its servers."""
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
    time in seconds of the last receive that was answered, for health checks; `handled` counts
    deliveries; `error` says why the outcome is UNFIT (this machine cannot work) or BROKEN; `full` is
    what the last receive said of a full disk under the queue.
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
        self._turn, self._quiet = 0, False
        self._failing: set[ProfileQueue] = set()
        self._errors, self._answered = 0, False
        self.full = ""
        self._serving: ProfileQueue | None = None
        self._shut_out = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        for served in self._queues:
            served.queue.listen(self._wake.set)

    def serve(self, more: Sequence[ProfileQueue]) -> None:
        """Ask further queues too, from the next round on."""
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
        """Carry out on the running job what the admission says; wake the slot once work may begin."""
        at = self._serving
        if at is not None:
            self._handler.obey(self._context.why_closed(at.profile.name))
        elif self._shut_out and self._open():
            self._wake.set()

    def wake(self) -> None:
        self._wake.set()
        for served in self._queues:
            served.queue.wake()

    def step(self) -> bool:
        """Receive once and handle the delivery; return False if there was none or no disk space."""
        try:
            if self._paused():
                return False
            found = self._admitted(self._receive())
        except (ConfigError, TransientError, StorageError, WorkerUnfit) as error:
            self._failed(error)
            return False
        self._errors, self._answered, self.full = 0, True, ""
        if found is None:
            return False
        self.busy, self._serving = True, found[0]
        try:
            with bound(**_names(*found)):
                self._note(self._handler.process(*found))
        finally:
            self.busy, self._serving = False, None
        self.handled += 1
        return True

    def _receive(self) -> tuple[ProfileQueue, Delivery] | None:
        """Poll each queue once, starting after the last that had work; wait `poll_s` if all are empty.

        The starting queue moves on with every delivery, so none can starve another. A queue that fails
        keeps no other from being asked; its error is raised only if none answered.
        """
        self._wake.clear()
        failed, answered = None, False
        for offset in range(len(self._queues)):
            index = (self._turn + offset) % len(self._queues)
            served = self._queues[index]
            if not self._may_ask(served):
                continue
            try:
                found = self._ask(served)
            except (ConfigError, TransientError) as error:
                self._note_failing(served, error)
                failed = error if failed is None or isinstance(failed, ConfigError) else failed
                continue
            answered = True
            if found is not None:
                self._turn, self._quiet = index + 1, False
                return served, found
            if self._stop.is_set():
                return None
        if failed is not None and not answered:
            raise failed
        self._quiet = True
        if len(self._queues) > 1 and not any(served.queue.long_poll_s for served in self._queues):
            # A long poll of one queue would miss the others; a send in this process ends the wait.
            self._context.clock.wait(self._wake, self._poll_s)
        return None

    def _ask(self, served: ProfileQueue) -> Delivery | None:
        """Receive from one queue; several share the time of one long poll."""
        wait_s = POLL_WAIT_S
        if len(self._queues) > 1:
            share_s = served.queue.long_poll_s / len(self._queues)
            wait_s = share_s if self._quiet else min(QUICK_S, share_s)
        stop = self._stop if self._context.admission is None else _Closing(self._stop, self, served)
        found = served.queue.receive(1, wait_s=wait_s, stop=stop)
        self.last_poll = self._context.clock.monotonic()
        if served in self._failing:
            self._failing.discard(served)
            get_logger(profile=served.profile.name).info("queue_back")
        return found[0] if found else None

    def _note_failing(self, served: ProfileQueue, error: HevcqError) -> None:
        if len(self._queues) > 1 and served not in self._failing:
            self._failing.add(served)
            name = "queue_gone" if isinstance(error, ConfigError) else "queue_fails"
            get_logger(profile=served.profile.name).error(name, reason=str(error))

    def _may_ask(self, served: ProfileQueue) -> bool:
        """Return whether the admission lets work of this queue begin."""
        return not self._context.full() and self._context.why_closed(served.profile.name) is None

    def _open(self) -> bool:
        return any(self._may_ask(served) for served in self._queues)

    def _admitted(
        self, found: tuple[ProfileQueue, Delivery] | None
    ) -> tuple[ProfileQueue, Delivery] | None:
        """Return what was received, unless its queue was closed meanwhile: it then goes back at once.

        So it does if ffmpeg cannot make its profile, which is tested now where it is not known, and if
        the worker was told to stop while the poll was under way.
        """
        if found is None:
            return None
        served, delivery = found
        if self._stop.is_set():
            served.queue.release(delivery)
            return None
        shut = self._context.why_closed(served.profile.name, now=True)
        if shut is None:
            if not delivery.tasks:
                return found
            shut = self._context.require_tested(served.profile, self._stop)
            if shut is None:
                return found
        spare = delivery.attempt < served.profile.queue.max_receives // 2
        if spare or not delivery.tasks:
            served.queue.release(delivery)
        else:
            send_afresh(served.queue, delivery)
        return None

    def _paused(self) -> bool:
        self._shut_out = not self._open()
        if self._shut_out:
            self._wake.clear()
            if not self._stop.is_set():
                self._context.clock.wait(self._wake, GATE_S)
            self.last_poll = self._context.clock.monotonic()
            return True
        reason = self._context.disk_shortage()
        if reason:
            get_logger().warning("work_paused", reason=reason, again_s=DISK_PAUSE_S)
            self._context.notify("disk.low", reason)
            self._context.clock.wait(self._stop, DISK_PAUSE_S)
        return bool(reason)

    def _note(self, handled: DeliveryResult) -> None:
        if handled.unfit is not None:
            self._end(SlotOutcome.UNFIT, handled.unfit)
            return
        given = handled.verdict
        if isinstance(given, Release) and given.delay_s > 0 and not given.suspected_worker_fault:
            # The next delivery would hit the same condition (a full disk, a busy database).
            self._context.clock.wait(self._stop, min(self._poll_s, given.delay_s))

    def _failed(self, error: HevcqError) -> None:
        """Back off after a service error; end the slot if database, scratch or farm are not usable."""
        lasting = (ConfigError, StorageError, WorkerUnfit)
        if isinstance(error, lasting) and not isinstance(error, DatabaseBusy):
            self._end(SlotOutcome.UNFIT, error)
            return
        self._errors += 1
        self.full = str(error) if isinstance(error, DiskFull) else ""
        if isinstance(error, AccessDenied) and not self._answered and self._errors >= MAX_DENIALS:
            refused = f"This worker may not read its queues, and ends after {MAX_DENIALS} attempts."
            self._end(
                SlotOutcome.UNFIT, WorkerUnfit(f"{refused} {error.message}", remedy=error.remedy)
            )
            return
        seconds = POLL_FAILED.wait_s(self._errors - 1, self._context.random)
        get_logger().warning("poll_failed", reason=str(error), again_s=round(seconds, 1))
        self._context.clock.wait(self._stop, seconds)

    def _end(self, outcome: SlotOutcome, error: BaseException) -> None:
        self.outcome, self.error = outcome, error
        self._context.notify("worker.unfit", str(error))
        get_logger().error(f"worker_{outcome.value}", reason=str(error))


class _Closing(threading.Event):
    """The stop of one receive: the slot's own, or the closing of this queue."""

    def __init__(self, stop: threading.Event, slot: Slot, served: ProfileQueue) -> None:
        super().__init__()
        self._stop, self._slot, self._served = stop, slot, served

    def is_set(self) -> bool:
        return self._stop.is_set() or not self._slot._may_ask(self._served)


def _names(served: ProfileQueue, delivery: Delivery) -> dict[str, object]:
    names: dict[str, object] = {"profile": served.profile.name, "attempt": delivery.attempt}
    if len(delivery.tasks) == 1:
        task = delivery.tasks[0]
        names |= {"job": task.job_id, "source": task.source.key}
    return names
