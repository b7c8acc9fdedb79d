"""One slot: receive, handle, again; fair to every queue it serves, patient with services."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import StrEnum

from hevcq.domain.verdict import Release
from hevcq.errors import DatabaseBusy, HevcqError, StorageError, TransientError, WorkerUnfit
from hevcq.ports.queue import Delivery
from hevcq.util.log import bound, get_logger
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import DeliveryResult, Handler, ProfileQueue
from hevcq.worker.poller import POLL_WAIT_S, Poller, back_off

DISK_PAUSE_S = 10.0
"""How often the disk is looked at while it is too full to take new work."""
TURN_S = 5.0
"""How long a slot that may take nothing waits for its turn before it asks by itself."""


class SlotOutcome(StrEnum):
    """Why a slot ended, or that it has not."""

    RUNNING = "running"
    STOPPED = "stopped"
    UNFIT = "unfit"
    BROKEN = "broken"


class Slot:
    """Serves one or several queues, one delivery at a time.

    `poll_s` is how often several queues are looked at in turn while all are empty. `last_poll` is
    the monotonic time of the last receive that was answered, for health checks; `handled` counts
    deliveries; `error` says why the outcome is UNFIT (this machine cannot work) or BROKEN. With
    `receivers` the messages come through those.
    """

    def __init__(
        self,
        context: WorkerContext,
        handler: Handler,
        queues: Sequence[ProfileQueue],
        *,
        poll_s: float = 0.5,
        receivers: Poller | None = None,
    ) -> None:
        self.outcome = SlotOutcome.RUNNING
        self.error: BaseException | None = None
        self.handled = 0
        self.busy = False
        self.last_poll = context.clock.monotonic()
        self._context, self._handler, self._queues = context, handler, tuple(queues)
        self._poll_s, self._receivers = poll_s, receivers
        self._turn = 0
        self._errors = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        for served in self._queues:
            served.queue.listen(self._wake.set)
        if context.encode_slots is not None:
            context.encode_slots.listen(self._wake.set)

    def run(self, stop: threading.Event) -> None:
        """Step until told to stop or unable to go on; `outcome` then says which."""
        self._stop = stop
        try:
            while not stop.is_set() and self.outcome is SlotOutcome.RUNNING:
                self.step()
        except BaseException as error:
            # A place held by a slot that is gone would keep all others from looking for work.
            self._out_of_turn()
            self._end(SlotOutcome.BROKEN, error)
            raise
        if self.outcome is SlotOutcome.RUNNING:
            self.outcome = SlotOutcome.STOPPED

    def interrupt(self) -> None:
        """Make the work in hand stop and go back at once."""
        self._handler.interrupt()

    def wake(self) -> None:
        """End a wait of this slot early, e.g. to make it see that it is to stop."""
        self._wake.set()
        for served in self._queues:
            served.queue.wake()

    def step(self) -> bool:
        """Receive once and handle what came; False if there was nothing to do or no room for it."""
        try:
            if self._paused() or not self._in_turn():
                return False
            found = self._receive()
        except (TransientError, StorageError, WorkerUnfit) as error:
            self._out_of_turn()
            self._failed(error)
            return False
        self._errors = 0
        receivers, now = self._receivers, self._context.clock.monotonic()
        self.last_poll = now if receivers is None else receivers.answered_at
        if found is None:
            self._out_of_turn()
            return False
        self.busy = True
        if self._context.encode_slots is not None:
            self._context.encode_slots.took(self._handler.worker)
        try:
            with bound(**_names(*found)):
                self._note(self._handler.process(*found))
        finally:
            self.busy = False
            self._out_of_turn()
        self.handled += 1
        return True

    def _receive(self) -> tuple[ProfileQueue, Delivery] | None:
        """Look at each queue once, beginning after the last that gave work; then wait a little.

        The first queue to be asked moves on with every delivery, so none can starve another.
        """
        if self._receivers is not None:
            return self._receivers.take()
        if len(self._queues) == 1:
            return self._ask(0, wait_s=POLL_WAIT_S)
        self._wake.clear()
        for offset in range(len(self._queues)):
            found = self._ask((self._turn + offset) % len(self._queues), wait_s=0.0)
            if found is not None or self._stop.is_set():
                return found
        # Waiting inside one queue would be deaf to the others; a send in this process rings.
        self._context.clock.wait(self._wake, self._poll_s)
        return None

    def _ask(self, index: int, *, wait_s: float) -> tuple[ProfileQueue, Delivery] | None:
        served = self._queues[index]
        found = served.queue.receive(1, wait_s=wait_s, stop=self._stop)
        if not found:
            return None
        self._turn = index + 1
        return served, found[0]

    def _in_turn(self) -> bool:
        """Return whether this slot may look for a message; wait a little if it may not."""
        encode_slots = self._context.encode_slots
        if encode_slots is None:
            return True
        self._wake.clear()
        if encode_slots.enter(self._handler.worker):
            return True
        self._context.clock.wait(self._wake, TURN_S)
        self.last_poll = self._context.clock.monotonic()
        return False

    def _out_of_turn(self) -> None:
        if self._context.encode_slots is not None:
            self._context.encode_slots.leave(self._handler.worker)

    def _paused(self) -> bool:
        reason = self._context.disk_shortage()
        if reason:
            get_logger().warning("work_paused", reason=reason, again_s=DISK_PAUSE_S)
            self._context.clock.wait(self._stop, DISK_PAUSE_S)
        return bool(reason)

    def _note(self, handled: DeliveryResult) -> None:
        if handled.unfit is not None:
            self._end(SlotOutcome.UNFIT, handled.unfit)
            return
        given = handled.verdict
        if isinstance(given, Release) and given.delay_s > 0 and not given.suspected_worker_fault:
            # What one delivery waits for (a full disk, a busy database) the next would meet too.
            self._context.clock.wait(self._stop, min(self._poll_s, given.delay_s))

    def _failed(self, error: HevcqError) -> None:
        """Back off from services that fail; a damaged database or scratch does not come back."""
        if isinstance(error, (StorageError, WorkerUnfit)) and not isinstance(error, DatabaseBusy):
            self._end(SlotOutcome.UNFIT, error)
            return
        back_off(self._context, self._stop, error, self._errors)
        self._errors += 1

    def _end(self, outcome: SlotOutcome, error: BaseException) -> None:
        self.outcome, self.error = outcome, error
        get_logger().error(f"worker_{outcome.value}", reason=str(error))


def _names(served: ProfileQueue, delivery: Delivery) -> dict[str, object]:
    """Return what every log line about a delivery names, wherever below it is written."""
    names: dict[str, object] = {"profile": served.profile.name, "attempt": delivery.attempt}
    if len(delivery.tasks) == 1:
        task = delivery.tasks[0]
        names |= {"job": task.job_id, "source": task.source.key}
    return names
