"""One worker and one delivery: the production handler in greenlets, stopped at every call it makes.

A Run is one execution. It stands still until it is told what happens next: the answer to a call, a
timer that fires, time that passes, a stop signal. Its view of the world is local: its fence is
always 1, its job always the same video; the search translates.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import greenlet

from chaos.protocol.ports import PLAN, RunEncoder, RunLedger, RunQueue, RunScratch, RunStore
from chaos.protocol.values import BASE, BODY, PROFILE, TASK, VISIBILITY_S
from hevcq.errors import LeaseLost, StaleFence, Unavailable
from hevcq.ports.backend import Backend
from hevcq.ports.queue import Delivery
from hevcq.util.clock import Clock
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.delivery.lease import Heartbeat, Lease
from hevcq.worker.handler import Handler, ProfileQueue

RAISES = {"stale": StaleFence, "lost": LeaseLost, "silent": Unavailable}
SETTLING = frozenset({"ack", "release", "bury-delivery"})
ENDING = frozenset({"complete", "skip", "fail", "bury", "interrupt"})
"""What ends a claim: from then on nobody renews it."""


class Gone(BaseException):
    """This run is given up: nothing of it happens any more."""


class Strand:
    """One thread of the worker process."""

    def __init__(self, run: Run, target, name: str) -> None:
        self.run, self.name = run, name
        self.request: tuple | None = None
        self.asked_at = 0.0
        self.answer: Any = None
        self.story: list[tuple] = []
        """What it was answered and how it found the lease, as far as that may still decide something."""
        self.until: float | None = None
        self.events: tuple = ()
        self.over = False
        self.error: BaseException | None = None
        self.ended = RunEvent(run)
        self.greenlet = greenlet.greenlet(lambda: self._live(target), run.hub)

    def _live(self, target) -> None:
        try:
            target()
        except Gone:
            pass
        except BaseException as error:  # noqa: BLE001 - reported by the search
            self.error = error
        finally:
            self.over = True
            self.ended.set()


class RunEvent:
    """threading.Event, and the bell of locks."""

    def __init__(self, run: Run) -> None:
        self._run, self._set = run, False
        run.events += 1
        self.number = run.events
        """Which of this process's events it is, in the order in which they were made."""

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self.ring()

    def ring(self) -> None:
        for strand in self._run.strands:
            if self in strand.events:
                self._run.ready(strand)

    def clear(self) -> None:
        self._set = False


class RunLock:
    """threading.Lock."""

    def __init__(self, run: Run) -> None:
        self._run, self.held = run, False
        self._free = RunEvent(run)

    def __enter__(self) -> RunLock:
        while self.held:
            self._run.park(None, self._free)
        self.held = True
        return self

    def __exit__(self, *_error: object) -> None:
        self.held = False
        self._free.ring()


class Face:
    """threading.Thread of the heartbeat."""

    def __init__(self, run: Run, target, args: tuple) -> None:
        self._run, self._target = run, lambda: target(*args)
        self._strand: Strand | None = None

    def start(self) -> None:
        self._strand = self._run.spawn(self._target, "beat")

    def join(self, timeout: float) -> None:
        assert self._strand is not None
        if not self._strand.over:
            self._run.park(self._run.now + timeout, self._strand.ended)

    def is_alive(self) -> bool:
        return self._strand is not None and not self._strand.over


class Threading:
    """What the production modules see as the module `threading`."""

    run: Run

    def Event(self) -> RunEvent:
        return RunEvent(self.run)

    def Lock(self) -> RunLock:
        return RunLock(self.run)

    def Thread(self, *, target, name: str, args: tuple = (), daemon=True) -> Face:
        return Face(self.run, target, args)


THREADS = Threading()


@contextmanager
def stepped() -> Iterator[None]:
    """Give lease and heartbeat threads, locks and events that the search steps."""
    from hevcq.worker.delivery import lease
    from hevcq.worker.delivery import lease as heartbeat

    heartbeat.threading = lease.threading = THREADS
    try:
        yield
    finally:
        heartbeat.threading = lease.threading = threading


class RunClock(Clock):
    """The worker's own time; pauses between repetitions of a call take none."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def now(self) -> float:
        return self._run.now

    def monotonic(self) -> float:
        return self._run.now

    def wait(self, event: Any, timeout_s: float) -> bool:
        if isinstance(event, RunEvent) and not event.is_set():
            self._run.rest(timeout_s, event)
        return event.is_set()

    def wait_on(self, condition, timeout_s: float) -> bool:
        raise AssertionError("a handler waits on no condition")


class Run:
    """One execution of `Handler.handle` for a delivery of this attempt number."""

    def __init__(self, attempt: int) -> None:
        self.now, self.attempt = BASE, attempt
        self.hub = greenlet.getcurrent()
        self.events = 0
        self.strands: list[Strand] = []
        self._ready: deque[Strand] = deque()
        self._current: Strand | None = None
        self.closed = self.stopped = False
        self.lease: Lease | None = None
        self.margin_s = 0.0
        self.hidden_until = self.claimed_at = self.now
        self.holds = False
        self.verbs: set[str] = set()
        THREADS.run = self
        context = self._context()
        self.handler, self._queue = Handler(context, "here:0"), context.backend.queues["hevc"]
        self.spawn(self._main, "main")
        self._go()

    def _context(self) -> WorkerContext:
        queue, ledger, store = RunQueue(self), RunLedger(self), RunStore(self)
        backend = Backend("here", {"hevc": queue}, ledger, store, None, lambda: None)
        return WorkerContext(
            backend=backend,
            encoder=RunEncoder(self),
            plan=lambda _profile, _info: PLAN,
            scratch=RunScratch(),
            clock=RunClock(self),
            random=lambda: 0.5,
            heartbeat=self._heartbeat,
        )

    def _heartbeat(self, lease, clock) -> Heartbeat:
        self.lease = lease
        self.margin_s = self.now + VISIBILITY_S - lease.deadline
        return Heartbeat(lease, clock)

    def _main(self) -> None:
        delivery = Delivery(
            queue="hevc",
            receipt="r",
            message_id="m",
            body=BODY,
            attempt=self.attempt,
            deadline=self.now + VISIBILITY_S,
            sent_at=self.now,
            tasks=(TASK,),
        )
        self.hidden_until = delivery.deadline
        self.handler.process(ProfileQueue(PROFILE, self._queue), delivery)

    # --- threads

    def spawn(self, target, name: str) -> Strand:
        strand = Strand(self, target, name)
        self.strands.append(strand)
        self.ready(strand)
        return strand

    def ready(self, strand: Strand) -> None:
        if strand not in self._ready:
            self._ready.append(strand)

    def park(self, until: float | None, *events: RunEvent) -> None:
        """Suspend the current strand until a time or an event."""
        if self.closed:
            raise Gone
        strand = self._current
        assert strand is not None
        strand.until, strand.events = until, events
        found = ("found", self.found())
        if found not in strand.story:
            strand.story.append(found)
        self.hub.switch()
        strand.until, strand.events = None, ()
        if self.closed:
            raise Gone

    def rest(self, seconds: float, event: RunEvent) -> None:
        """Suspend the current strand by the clock: it keeps nothing of what came before."""
        self._current.story.clear()
        self.park(self.now + seconds, event)

    def found(self) -> str:
        """Return how whoever looks now finds the lease, without the looking changing it."""
        lease, now = self.lease, self.now
        if lease is None:
            return ""
        self.now = 0.0
        try:
            return "lost" if lease.lost else type(lease.cause).__name__
        finally:
            self.now = now

    def claimed(self, holds: bool) -> None:
        """Note that the claim was granted or renewed by what the current strand has just asked."""
        self.holds, self.claimed_at = holds, self._current.asked_at

    def call(self, *request: Any) -> Any:
        """Ask the world; what it answers is returned, or raised if it is one of RAISES."""
        strand = self._current
        if self.closed or strand is None:
            raise Gone
        if request[0] in SETTLING:
            self.verbs.add(request[0])
        self.holds = self.holds and request[0] not in ENDING
        strand.request, strand.asked_at = request, self.now
        self.park(None)
        asked, answer, strand.request, strand.answer = strand.request, strand.answer, None, None
        strand.story.append((asked, answer))
        if isinstance(answer, str) and answer in RAISES:
            raise RAISES[answer](f"It was {answer}.")
        return answer

    def _go(self) -> None:
        while self._ready:
            strand = self._ready.popleft()
            if strand.over:
                continue
            self._current = strand
            strand.greenlet.switch()
            self._current = None

    # --- what may happen

    def step(self, action: tuple) -> None:
        """Let one thing happen, and everything that follows inside this process."""
        THREADS.run = self
        kind = action[0]
        if kind == "tick":
            self.now += action[1]
            for strand in self.strands:
                if strand.request and strand.request[0] == "publish":
                    strand.request = ("publish", "late")
        elif kind == "stop":
            self.stopped = True
            self.handler.interrupt()
        else:
            strand = self.strands[action[1]]
            if kind == "answer":
                strand.answer = action[2]
            self.ready(strand)
        self._go()

    def close(self) -> None:
        """Give this run up."""
        self.closed = True
        for strand in self.strands:
            if not strand.over:
                self._current = strand
                try:
                    strand.greenlet.throw(Gone)
                except Gone:
                    strand.over = True
        self._current = None
