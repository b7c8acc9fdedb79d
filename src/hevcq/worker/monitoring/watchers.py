"""Watch a pool: its state and sign of life, background threads, and protection from scale-in."""

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
from hevcq.util.text import ffmpeg_release


@dataclass(frozen=True, slots=True)
class PoolState:
    """The state of a pool.

    `slots`, `alive` and `busy` count slots, `handled` counts deliveries. `oldest_poll_s` is the longest
    time in seconds since an idle slot last got an answer from a queue. `stopping` says that a stop was
    requested.
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
    """Write the state of the pool into its process's row every EVERY_S seconds.

    If the row grows old, the pool's loop hangs.
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
AFTER_ERROR_S = 60.0
"""Seconds until the next call of a step that raised; the other work goes on meanwhile."""


class Background:
    """A watcher that calls `step` in a thread: when woken, and again after the seconds that it returned.

    The first `wake` starts the thread. After `close` the step runs one last time if `at_end`; a step
    that still hangs after `CLOSE_S` seconds is abandoned.
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
                wait_s = self._try_step()

    def _try_step(self) -> float:
        try:
            return self._step()
        except HevcqError as error:  # no defect: a service may be away or full for a while
            get_logger().warning("background_failed", thread=self._name, reason=str(error))
        except Exception:  # noqa: BLE001 - a background step must not end the process
            get_logger().exception("background_failed", thread=self._name)
        return AFTER_ERROR_S


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
    """A watcher that keeps this process's row in the list of machines, in a thread of its own.

    `facts` returns the row, and must be quick. `reason` returns why this machine takes no new work:
    somebody drained it, or a newer hevcq works beside it.
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
        except HevcqError as error:  # the row grows old instead
            get_logger().info("not_signed_off", reason=str(error))

    def reason(self) -> str:
        return self._reason

    def tell(self) -> None:
        facts = self._facts()
        answer = self._machines.tell(self._owner, facts)
        self._reason = why_withdrawn(facts, answer)


def why_withdrawn(facts: WorkerFacts, answer: Answer) -> str:
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
"""Seconds between renewals during work, so that two renewals may fail."""
RETRY_S = 15.0
"""Seconds before a failed request is repeated."""


class Protection(Protocol):
    """ECS task protection; both calls return whether they succeeded, and must not raise."""

    def protect(self, seconds: float) -> bool:
        """Protect the task for `seconds` from now."""

    def release(self) -> bool:
        """End the protection."""


class ScaleInGuard:
    """A watcher that protects this ECS task from scale-in while a slot is busy.

    A thread of its own sends the requests, so an agent that does not answer delays nothing.
    """

    def __init__(self, protection: Protection, clock: Clock) -> None:
        self._protection, self._clock = protection, clock
        self._busy = False
        self._may_be_protected = False
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
            self._due = now + self._send_request()
        return self._due - now

    def _send_request(self) -> float:
        if self._busy:
            # A request without an answer may have been granted, so it must be ended later.
            is_first, self._may_be_protected = not self._may_be_protected, True
            if not self._protection.protect(PROTECT_S):
                return RETRY_S
            if is_first:
                get_logger().info("scale_in_protected", seconds=PROTECT_S)
            return RENEW_S
        if self._may_be_protected:
            if not self._protection.release():
                return RETRY_S
            self._may_be_protected = False
            get_logger().info("scale_in_allowed")
        return RENEW_S


def worker_facts(encoder: Encoder, capacity: Capacity, scratch: Path) -> WorkerFacts:
    """Return this process's row in the list of machines."""
    try:
        ffmpeg = ffmpeg_release(encoder.version())
    except HevcqError:  # it also ends the worker, which reports it
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
    """Return this machine's load, memory, and free space on the disk of the scratch folder."""
    memory = psutil.virtual_memory()
    try:
        scratch_free = free_disk_bytes(scratch)
    except OSError:
        scratch_free = None
    return MachineLoad(
        load=round(os.getloadavg()[0], 2),
        memory=memory.total,
        memory_free=memory.available,
        scratch_free=scratch_free,
    )
