"""Run N slots as threads of one process, watch them, and stop them in the order that `util.signals` lists."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError, WorkerUnfit
from hevcq.ports.queue import Queue
from hevcq.util.log import get_logger
from hevcq.util.signals import StopSignals
from hevcq.worker.delivery.claim import WorkerContext
from hevcq.worker.encode_job import sweep_leftovers
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.monitoring.watchers import PoolState, Watcher
from hevcq.worker.slot import Slot, SlotOutcome

WATCH_S = 0.25
"""Seconds between checks of working slots, so the delay until a pause or a cancelled job takes effect."""
IDLE_WATCH_S = 1.0
"""Seconds between checks if all slots wait. A signal ends the wait at once."""
STOP_POLL_S = 0.1
"""Seconds between checks of stopping slots, so that a second signal acts at once."""
ANNOUNCE_AFTER_S = 1.0
"""Seconds after which a wait for running jobs is announced."""
CHILD_END_S = 30.0
"""Seconds that interrupted work may take to end: a child process gets SIGTERM and some seconds,
then SIGKILL; a heartbeat in flight waits for its reply."""


class WorkerPool:
    """Run `slots` slots over the queues of the served profiles; each slot encodes one job at a time.

    A stop gives running jobs `grace_s` seconds. `poll_s` is the seconds between polls of empty
    queues; several slots poll half as often each.

    A main thread that has nothing else to do calls `run`; one with a display calls `start`, `step`,
    `ask_to_stop` and `stopped`. `error` is why the pool ended early, or None.
    """

    def __init__(
        self,
        context: WorkerContext,
        queues: Sequence[ProfileQueue],
        watchers: Sequence[Watcher] = (),
        *,
        slots: int = 1,
        grace_s: float = 20.0,
        poll_s: float = 0.5,
    ) -> None:
        self.error: BaseException | None = None
        self._context, self._slots, self._grace_s, self._poll_s = context, slots, grace_s, poll_s
        self._watchers, self._served = tuple(watchers), tuple(queues)
        self._stop, self._interrupted = threading.Event(), False
        self._asked_at: float | None = None
        self._reported: set[int] = set()
        self.workers = [self._make_slot(queues, slot) for slot in range(slots)]
        self._threads = [
            threading.Thread(
                target=self._run_slot, args=(worker,), name=f"hevcq-slot-{slot}", daemon=True
            )
            for slot, worker in enumerate(self.workers)
        ]

    def _make_slot(self, queues: Sequence[ProfileQueue], slot: int) -> Slot:
        # Each slot has its own owner name, so that two slots never share one claim.
        handler = Handler(
            self._context, f"{self._context.backend.owner}{self._context.label}:{slot}"
        )
        # Each slot starts with a different queue, which is fair even with fewer slots than queues.
        first = slot % len(queues)
        rotated = [*queues[first:], *queues[:first]]
        # Several slots share the polling. A message of this process wakes them all at once.
        poll_s = self._poll_s * min(self._slots, 2)
        return Slot(self._context, handler, rotated, poll_s=poll_s)

    def start(self) -> None:
        """Sweep the files of dead processes, check the encoder, and start the slots.

        Raises WorkerUnfit, before any message is received, if the encoder does not run or the
        scratch disk is too small for any work.
        """
        try:
            self._context.scratch.sweep()
            if self._context.sweep_on_start:
                sweep_leftovers(self._context)
            version = self._context.encoder.version()
            self._context.require_scratch()
        except HevcqError:
            self._close_watchers()
            raise
        get_logger().info("worker_started", slots=self._slots, encoder=version)
        for thread in self._threads:
            thread.start()
        self._notify_watchers()

    def run(self, signals: StopSignals, drained: Callable[[], bool] = lambda: False) -> SlotOutcome:
        """Work until a stop is requested, `drained` returns True, or no work is possible; return the outcome."""
        try:
            self.start()
        except WorkerUnfit as error:
            self.error = error
            return SlotOutcome.UNFIT
        while not self.stopped:
            if signals.asked.is_set() or drained():
                self.ask_to_stop()
            if signals.insisted.is_set():
                self.interrupt()
            self.step()
            watch_s = IDLE_WATCH_S if self.idle else WATCH_S
            self._context.clock.wait(self._next_signal(signals), watch_s)
        return self.finish()

    def drain(
        self, insisted: threading.Event, wake: threading.Event, on_wait: Callable[[], None]
    ) -> None:
        """Stop receiving, and let running jobs end, however long they take; return early if `insisted`.

        `on_wait` is called once if that takes long; `wake` ends the pause between two checks.
        `stop` may follow.
        """
        clock, announced = self._context.clock, False
        self._stop_receiving()
        since = clock.monotonic()
        while not self.stopped and not insisted.is_set():
            self.step()
            if not announced and clock.monotonic() - since > ANNOUNCE_AFTER_S:
                announced = True
                on_wait()
            clock.wait(wake, STOP_POLL_S)
            wake.clear()

    def stop(self, insisted: threading.Event, wake: threading.Event) -> BaseException | None:
        """Let running jobs end within the grace period, or at once when `insisted`; return `error`."""
        self.ask_to_stop()
        while not self.stopped:
            if insisted.is_set():
                self.interrupt()
            self.step()
            self._context.clock.wait(wake, STOP_POLL_S)
            wake.clear()
        self.finish()
        return self.error

    def _next_signal(self, signals: StopSignals) -> threading.Event:
        """Return the event to wait for: to wait for one that is already set would be a busy loop."""
        if not signals.asked.is_set():
            return signals.asked
        return threading.Event() if signals.insisted.is_set() else signals.insisted

    def _stop_receiving(self) -> None:
        self._stop.set()
        for worker in self.workers:
            worker.wake()

    def ask_to_stop(self) -> None:
        """Stop receiving, and let running jobs end within the grace period."""
        if self._asked_at is None:
            self._asked_at = self._context.clock.monotonic()
            self._stop_receiving()
            get_logger().info("stop_asked", grace_s=self._grace_s)

    def interrupt(self) -> None:
        """Stop receiving, and end running jobs at once."""
        self.ask_to_stop()
        if not self._interrupted:
            self._interrupted = True
            get_logger().info("stop_insisted")
            for worker in self.workers:
                worker.interrupt()

    def step(self) -> bool:
        """Check the slots, stop an unfit pool, and enforce the end of the grace period.

        Return whether the slots go on.
        """
        for slot, (worker, thread) in enumerate(zip(self.workers, self._threads, strict=True)):
            has_died = (
                worker.outcome is SlotOutcome.RUNNING
                and thread.ident is not None
                and not thread.is_alive()
            )
            if has_died or worker.outcome in {SlotOutcome.UNFIT, SlotOutcome.BROKEN}:
                self._report_lost_slot(slot, worker)
            worker.obey_admission()
        now = self._context.clock.monotonic()
        if self._asked_at is not None and now - self._asked_at >= self._grace_s:
            self.interrupt()
        self._notify_watchers()
        return self.error is None and not self.stopped

    @property
    def idle(self) -> bool:
        return not any(worker.busy for worker in self.workers)

    @property
    def stopped(self) -> bool:
        """Whether no slot runs any more, or one still hangs long after the stop."""
        if not self._running_slots():
            return True
        asked_at = self._asked_at
        limit_s = self._grace_s + CHILD_END_S
        return asked_at is not None and self._context.clock.monotonic() - asked_at > limit_s

    def _running_slots(self) -> list[str]:
        return [thread.name for thread in self._threads if thread.is_alive()]

    def finish(self) -> SlotOutcome:
        """Remove the scratch folder of a `stopped` pool; return why the pool ended."""
        hanging = self._running_slots()
        if hanging:
            # Its delivery returns after its deadline; the next sweep removes its folder.
            get_logger().error("slots_hang", slots=hanging)
            self._close_watchers()
            return SlotOutcome.BROKEN
        self._context.scratch.close()
        self.step()
        self._close_watchers()
        outcomes = {worker.outcome for worker in self.workers}
        for outcome in (SlotOutcome.UNFIT, SlotOutcome.BROKEN):
            if outcome in outcomes:
                return outcome
        return SlotOutcome.STOPPED

    def change_profiles(self, profiles: Mapping[str, Profile], queues: Mapping[str, Queue]) -> None:
        """Use these profiles (by name) for the next jobs, and serve new ones; running jobs keep theirs."""
        for served in self._served:
            served.profile = profiles.get(served.profile.name, served.profile)
        new = profiles.keys() - {served.profile.name for served in self._served}
        more = [ProfileQueue(profiles[name], queues[name]) for name in sorted(new)]
        self._served += tuple(more)
        for worker in self.workers:
            worker.serve(more)

    def why_paused(self, profile: str) -> str:
        """Return why no work of this profile begins, or ""."""
        closed = self._context.why_closed(profile)
        if closed is not None:
            return closed.reason
        return self._context.disk_shortage() or next(
            filter(None, (w.full for w in self.workers)), ""
        )

    def why_unfit(self, profile: str) -> str:
        """Return why ffmpeg failed this profile's self-test, or "" if it passed or was not tested."""
        admission = self._context.admission
        return "" if admission is None else admission.why_unfit(profile)

    def state(self) -> PoolState:
        now = self._context.clock.monotonic()
        return PoolState(
            slots=self._slots,
            alive=len(self._running_slots()),
            handled=sum(worker.handled for worker in self.workers),
            oldest_poll_s=max(
                (now - worker.last_poll for worker in self.workers if not worker.busy), default=0.0
            ),
            busy=sum(worker.busy for worker in self.workers),
            stopping=self._asked_at is not None,
        )

    def _notify_watchers(self) -> None:
        if not self._watchers:
            return
        state = self.state()
        for watcher in self._watchers:
            self._call_watcher(watcher, partial(watcher.observe, state))

    def _close_watchers(self) -> None:
        for watcher in self._watchers:
            self._call_watcher(watcher, watcher.close)

    @staticmethod
    def _call_watcher(watcher: Watcher, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # noqa: BLE001 - a broken watcher must not break the work
            get_logger().exception("watcher_failed", watcher=type(watcher).__name__)

    def _run_slot(self, worker: Slot) -> None:
        try:
            worker.run(self._stop)
        except Exception:  # noqa: BLE001 - nothing above a thread catches
            get_logger().exception("slot_broke")

    def _report_lost_slot(self, slot: int, worker: Slot) -> None:
        """Report a lost slot once; stop the pool if the slot is unfit, since the machine then is too."""
        if slot in self._reported:
            return
        self._reported.add(slot)
        self.error = self.error or worker.error or HevcqError("A worker slot ended by itself.")
        get_logger().error("slot_lost", slot=slot, outcome=worker.outcome.value)
        if worker.outcome is SlotOutcome.UNFIT:
            self.ask_to_stop()
