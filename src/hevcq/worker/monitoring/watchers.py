"""Watch a pool: its state, its sign of life, steps in threads beside it, and its protection from scale-in."""

import math
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import psutil

from hevcq import __version__
from hevcq.alive import EVERY_S
from hevcq.domain.model import MachineLoad
from hevcq.errors import HevcqError
from hevcq.ports.backend import Answer, Machines, WorkerFacts
from hevcq.ports.encoder import Encoder
from hevcq.util.capacity import Capacity, free_disk_bytes
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.processes import Processes, node


@dataclass(frozen=True, slots=True)
class PoolState:
    """The state of a pool.

    `slots`, `alive` and `busy` count slots, `handled` counts deliveries. `oldest_poll_s` is the
    seconds since the slowest idle slot last got an answer from a queue. `stopping` says that a stop
    was requested.
    """

    slots: int
    alive: int
    handled: int
    oldest_poll_s: float
    busy: int = 0
    stopping: bool = False


class Watcher(Protocol):
    """Receives the state of the pool several times a second."""

    def observe(self, state: PoolState) -> None:
        """Take the state; must return quickly. Its exceptions are only logged."""

    def close(self) -> None:
        """End with the pool."""


class SignOfLife:
    """Write the state of the pool into its process's row now and then.

    A row that grows old means a loop that hangs.
    """

    def __init__(self, processes: Processes, clock: Clock) -> None:
        self._processes, self._clock = processes, clock
        self._due: float | None = None

    def observe(self, state: PoolState) -> None:
        now = self._clock.monotonic()
        if self._due is None or now >= self._due:
            self._due = now + EVERY_S
            self._processes.tell(**asdict(state), at=now)

    def close(self) -> None:
        self._processes.tell(slots=0)


CLOSE_S = 10.0
"""Seconds that a stopping worker waits for each of these threads."""
AFTER_DEFECT_S = 60.0
"""Seconds to wait after a step that raised: a defect, but the work goes on without it."""


class Background:
    """Call `step` in a thread when woken, and again after the seconds that it returned; a watcher.

    The first `wake` starts the thread. After `close` the step runs one last time if `at_end`; one that
    still hangs after `CLOSE_S` seconds is abandoned.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        clock: Clock,
        *,
        at_end: bool = True,
    ) -> None:
        self._name, self._step, self._clock = name, step, clock
        self._at_end = at_end
        self._woken, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def observe(self, _state: PoolState) -> None:
        if self._thread is None:
            self.wake()

    def wake(self) -> None:
        self._woken.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self.run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def run(self) -> None:
        wait_s = 0.0
        while not self._over.is_set():
            self._clock.wait(self._woken, wait_s)
            self._woken.clear()
            if self._at_end or not self._over.is_set():
                wait_s = self._guarded()

    def _guarded(self) -> float:
        try:
            return self._step()
        except HevcqError as error:  # asked again; a service that is away or full is no defect
            get_logger().warning("background_failed", thread=self._name, reason=str(error))
            return AFTER_DEFECT_S
        except Exception:  # noqa: BLE001 - a background step must not end the process
            get_logger().exception("background_failed", thread=self._name)
            return AFTER_DEFECT_S


def periodic(
    name: str,
    action: Callable[[], object],
    clock: Clock,
    every_s: float,
    *,
    first_s: float = 0.0,
) -> Background:
    """Return a watcher that runs an action every `every_s` seconds, first after `first_s`."""
    waits = iter([first_s] if first_s else [])

    def step() -> float:
        wait_s = next(waits, 0.0)
        if wait_s:
            return wait_s
        action()
        return every_s

    return Background(name, step, clock, at_end=False)


class Presence:
    """Keep this process's row in the list of machines; a watcher, in a thread of its own.

    `facts` returns what it says of itself; must be quick. `reason` is why this machine takes no new
    work: somebody drained it, or a newer hevcq works beside it.
    """

    def __init__(
        self, machines: Machines, owner: str, facts: Callable[[], WorkerFacts], clock: Clock
    ) -> None:
        self._machines, self._owner, self._facts = machines, owner, facts
        self._reason = ""
        self._thread = periodic("hevcq-presence", self.tell, clock, EVERY_S)

    def observe(self, state: PoolState) -> None:
        self._thread.observe(state)

    def close(self) -> None:
        self._thread.close()
        try:
            self._machines.leave(self._owner)
        except HevcqError as error:  # it grows old
            get_logger().info("not_signed_off", reason=str(error))

    def reason(self) -> str:
        return self._reason

    def tell(self) -> None:
        facts = self._facts()
        answer = self._machines.tell(self._owner, facts)
        self._reason = why_out(facts, answer)


def why_out(facts: WorkerFacts, answer: Answer) -> str:
    """Return why a machine takes no new work, or ""."""
    if answer.drained_by:
        return (
            f"Drained by {answer.drained_by}; `hevcq workers resume {facts.machine}` lets it work."
        )
    if answer.newer:
        return (
            f"hevcq {facts.version} works no more beside hevcq {answer.newer} on {answer.newer_on}: "
            "update this machine and start its worker again."
        )
    return ""


PROTECT_S = 3600.0
"""Seconds after which a protection expires if this process dies without ending it."""
RENEW_S = 1200.0
"""Seconds between renewals while work goes on: two renewals may fail."""
RETRY_S = 15.0
"""Seconds before a failed request is repeated."""


class Protection(Protocol):
    """ECS task protection; both calls return whether they succeeded, and must not raise."""

    def protect(self, seconds: float) -> bool:
        """Protect the task for `seconds` from now."""

    def release(self) -> bool:
        """End the protection."""


class ScaleInGuard:
    """Protect from the first busy slot until no slot is busy; a watcher.

    A thread of its own sends the requests, so an agent that does not answer delays nothing.
    """

    def __init__(self, protection: Protection, clock: Clock) -> None:
        self._protection, self._clock = protection, clock
        self._busy = False
        self._maybe_on = False
        self._due = -math.inf
        self._thread = Background("hevcq-scale-in", self.step, clock)

    def observe(self, state: PoolState) -> None:
        busy = state.busy > 0
        if busy is not self._busy:
            self._busy, self._due = busy, -math.inf
            self._thread.wake()

    def close(self) -> None:
        self._busy, self._due = False, -math.inf
        self._thread.close()

    def step(self) -> float:
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + self._ask()
        return self._due - now

    def _ask(self) -> float:
        if self._busy:
            # A request whose answer was lost may have been granted, so it must be ended later.
            began, self._maybe_on = not self._maybe_on, True
            if not self._protection.protect(PROTECT_S):
                return RETRY_S
            if began:
                get_logger().info("scale_in_protected", seconds=PROTECT_S)
            return RENEW_S
        if self._maybe_on:
            if not self._protection.release():
                return RETRY_S
            self._maybe_on = False
            get_logger().info("scale_in_allowed")
        return RENEW_S


def worker_facts(encoder: Encoder, capacity: Capacity, scratch: Path) -> WorkerFacts:
    """Return what this process says of its machine."""
    try:
        ffmpeg = encoder.version().removeprefix("ffmpeg version ").partition(" ")[0]
    except HevcqError:  # which ends the worker, and is said then
        ffmpeg = ""
    return WorkerFacts(
        machine=node(),
        version=__version__,
        ffmpeg=ffmpeg,
        cores=capacity.cores,
        slots=capacity.slots,
        **load_now(scratch).load_facts(),
    )


def load_now(scratch: Path) -> MachineLoad:
    """Return how busy this machine is, and what it has left, also beside the scratch folder."""
    memory = psutil.virtual_memory()
    try:
        left = free_disk_bytes(scratch)
    except OSError:
        left = None
    load = round(os.getloadavg()[0], 2)
    return MachineLoad(
        load=load, memory=memory.total, memory_free=memory.available, scratch_free=left
    )
