"""A seeded scheduler: threads are greenlets, time is virtual, and every switch is decided by a seed.

Nothing runs in parallel, so a seed replays exactly. How the production code comes to run on it: `threads.py`.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import threading
from collections.abc import Callable
from typing import Any

import greenlet

from hevcq.util.clock import Clock

FOREVER = 1e12
WALL = 1_700_000_000.0
TAIL = 400
MAX_STEPS = 400_000


class Killed(BaseException):
    """The process of this thread is gone: nothing after this point happens."""


class Overrun(Exception):
    """A world took more steps than any sound one does."""


class Scheduler:
    """Virtual time and the threads of one world. `current` is the thread that runs just now."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_000.0
        self.wall_jump = 0.0
        self.steps = 0
        self.current: SimThread | None = None
        self._digest = hashlib.blake2b(digest_size=16)
        self._lines: list[str] = []
        self._last: list[str] = []
        self._heap: list[tuple[float, int, SimThread, int]] = []
        self._number = 0
        self.hub: Any = greenlet.getcurrent()
        self._begins: SimThread | None = None
        self._dying: list[Process] = []
        self.verbose = False

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        who = self.current.name if self.current else "world"
        line = f"{self.now:.3f} {who} {text}"
        self._lines.append(line)
        if len(self._lines) >= TAIL:
            self._digested()
        if self.verbose:
            print(line)

    def _digested(self) -> None:
        lines, self._lines = self._lines, []
        self._digest.update("".join(f"{line}\n" for line in lines).encode())
        self._last = lines

    @property
    def tail(self) -> list[str]:
        """The end of the trace, oldest line first."""
        return [*self._last, *self._lines][-TAIL:]

    @property
    def trace_hash(self) -> str:
        """The digest of everything noted so far."""
        self._digested()
        return self._digest.hexdigest()

    def spawn(self, process: Process, target: Callable[[], None], name: str) -> SimThread:
        """Start a thread; it first runs when the scheduler comes to it."""
        thread = SimThread(self, process, target, name)
        process.threads.append(thread)
        self._push(self.now, thread)
        return thread

    def _push(self, at: float, thread: SimThread) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at, self._number, thread, thread.token))

    def wake(self, thread: SimThread, token: int) -> None:
        """Let a thread go on that still waits with this token."""
        if thread.token == token:
            self._push(self.now, thread)

    def block(self, until: float, *events: SimEvent) -> None:
        """Suspend the current thread until a time, or until one of the events is set."""
        thread = self.current
        process = thread.process
        if process.dead:
            raise Killed
        now, frozen_until = self.now, process.frozen_until
        if until < now:
            until = now
        if until < frozen_until:
            until = frozen_until
        sound = not self._dying and self.steps < MAX_STEPS
        if sound and not events and (not self._heap or until < self._heap[0][0]):
            self.now = until
            self.steps += 1
            return
        thread.token = token = thread.token + 1
        self._number += 1
        heapq.heappush(self._heap, (until, self._number, thread, token))
        for event in events:
            event.waiters.append((thread, token))
        if sound:
            self._go_on(thread)
        else:
            self.hub.switch()
        if process.dead:
            raise Killed

    def _go_on(self, thread: SimThread) -> None:
        """Switch from `thread` to the next one: straight there, as the hub has nothing to do.

        Only one that has not begun is begun by the hub, for a greenlet counts its recursion from
        where it was begun: each generation of machines would come nearer to Python's limit.
        """
        following = self._next()
        if following is thread:
            return
        if following.greenlet:
            following.greenlet.switch()
        else:
            self._begins = following
            self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """Suspend the current thread for some virtual seconds."""
        self.block(self.now + seconds)

    def kill(self, process: Process) -> None:
        """End a process with all its threads, before anything else happens."""
        process.dead = True
        self._dying.append(process)

    def run(self) -> None:
        """Run until no thread waits for anything."""
        while (thread := self._begins or self._next()) is not None:
            self._begins, self.current = None, thread
            if self.steps > MAX_STEPS:
                raise Overrun(f"{self.steps} steps")
            try:
                thread.greenlet.switch()
            finally:
                self.current = None
            if self._dying:
                self._bury()

    def _next(self) -> SimThread | None:
        """Let time pass until a thread may go on, and make it the current one; None if none waits."""
        heap = self._heap
        while heap:
            at, _number, thread, token = heapq.heappop(heap)
            if thread.token != token or thread.over:
                continue
            if at < thread.process.frozen_until:
                self._push(thread.process.frozen_until, thread)
                continue
            if at > self.now:
                self.now = at
            self.steps += 1
            thread.token += 1
            self.current = thread
            return thread
        return None

    def _bury(self) -> None:
        while self._dying:
            for thread in self._dying.pop().threads:
                if thread.over:
                    continue
                self._unwind(thread)

    def _unwind(self, thread: SimThread) -> None:
        self.current = thread
        thread.token += 1
        try:
            thread.greenlet.throw(Killed)
        except Killed:  # it had not begun
            thread.over = True
            thread.ended.set()
        finally:
            self.current = None

    def close(self) -> None:
        """Unwind every thread that is left."""
        for thread in {entry[2] for entry in self._heap}:
            thread.process.dead = True
            if not thread.over:
                self._unwind(thread)
        self._heap.clear()
        self.current = None


class Process:
    """What dies and freezes as one. `frozen_until` is when a SIGSTOP ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until = 0.0
        self.threads: list[SimThread] = []


class SimThread:
    """One greenlet."""

    def __init__(
        self, sched: Scheduler, process: Process, target: Callable[[], None], name: str
    ) -> None:
        self.sched, self.process, self.name = sched, process, name
        self.token = 0
        self.over = False
        self.ended = SimEvent(sched)
        self.greenlet = greenlet.greenlet(lambda: self._run(target), sched.hub)

    def _run(self, target: Callable[[], None]) -> None:
        try:
            if not self.process.dead:
                target()
        except Killed:
            pass
        finally:
            self.over = True
            self.ended.set()


class SimEvent:
    """threading.Event for greenlets, and what a lease's stop has besides."""

    held, held_s = False, 0.0

    def __init__(self, sched: Scheduler) -> None:
        self._sched, self._set = sched, False
        self.waiters: list[tuple[SimThread, int]] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self.ring()

    def ring(self) -> None:
        """Wake who waits, without staying set."""
        waiters, self.waiters = self.waiters, []
        for thread, token in waiters:
            self._sched.wake(thread, token)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float = FOREVER) -> bool:
        if not self._set:
            self._sched.block(self._sched.now + timeout, self)
        return self._set


class SimLock:
    """threading.Lock for greenlets: one that is held across a switch makes others wait."""

    def __init__(self, sched: Scheduler) -> None:
        self._sched, self._held = sched, False
        self._free = SimEvent(sched)

    def __enter__(self) -> SimLock:
        while self._held:
            self._sched.block(FOREVER, self._free)
        self._held = True
        return self

    def __exit__(self, *_error: object) -> None:
        self._held = False
        self._free.ring()


class SimClock(Clock):
    """Virtual time as one machine sees it: `skew` seconds off the world's wall time."""

    def __init__(self, sched: Scheduler, skew: float = 0.0) -> None:
        self._sched, self.skew = sched, skew

    def now(self) -> float:
        return WALL + self._sched.now + self._sched.wall_jump + self.skew

    def monotonic(self) -> float:
        return self._sched.now

    def wait(self, event: Any, timeout_s: float) -> bool:
        if event.is_set():
            return True
        events = (event,) if isinstance(event, SimEvent) else ()
        self._sched.block(self._sched.now + max(0.0, timeout_s), *events)
        return event.is_set()

    def wait_on(self, condition: threading.Condition, timeout_s: float) -> bool:
        self._sched.sleep(max(0.0, timeout_s))
        return False
