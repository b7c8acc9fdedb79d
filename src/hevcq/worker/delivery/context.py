"""What every slot of a worker process works with, handed in once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

from hevcq.domain.events import JobEvent, OnEvent, ignore
from hevcq.domain.job import Source
from hevcq.domain.planning.encode_plan import Planner
from hevcq.domain.profile import Profile
from hevcq.domain.verdict import REQUEUED_CHUNK_DELAY_S
from hevcq.errors import DatabaseBusy, Unavailable, WorkerUnfit
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import Encoder
from hevcq.util.clock import Clock
from hevcq.util.host import source_room
from hevcq.util.log import get_logger
from hevcq.util.retry import Waiting, retry_control_call
from hevcq.worker.delivery.fault_attribution import CircuitBreaker
from hevcq.worker.delivery.lease import Beating, Heartbeat, Lease
from hevcq.worker.encode_slots import EncodeSlots
from hevcq.worker.scratch import Scratch

LEAVE_S = 2.75 * REQUEUED_CHUNK_DELAY_S
"""Long enough to be offered the chunk twice and to leave it; each offer costs its message a receive."""


class RequeuedChunks:
    """Remembers what was handed on, and until when; shared by all slots of a process."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, unit_id: str, now: float) -> None:
        """Note that a chunk is handed on, and forget those that were long ago."""
        with self._lock:
            left = {unit: until for unit, until in self._until.items() if now < until}
            self._until = {**left, unit_id: now + LEAVE_S}

    def leaves(self, unit_id: str, now: float) -> bool:
        """Return whether the chunk is still left to others."""
        with self._lock:
            return now < self._until.get(unit_id, now)


Result = TypeVar("Result")


def keep(_source: Source) -> bool:
    """Return False: nobody lets go of a source here."""
    return False


def alone(_profile: Profile) -> int:
    """Return 1: nobody shares a video with this slot."""
    return 1


@dataclass(frozen=True)
class WorkerContext:
    """The ports and numbers of a worker process.

    `min_free_bytes` stays free on the disks of scratch
    and store. `threads` is the encoder's thread count where the profile does not say one.
    `random` returns numbers in [0, 1). `slots_per_job` says how many slots may share a video of a profile.
    `requeue_stragglers` says that a chunk that trails far behind is given to another worker, and `requeued_chunks`
    which were.
    `sweep_on_start` says that a start removes what killed workers kept in the store for split videos.
    `encode_slots` bounds how many of the slots encode, where there are more slots than that.
    `mark_source_finished` is told of each source that a job of ended well, and raises nothing.
    """

    backend: Backend
    encoder: Encoder
    plan: Planner
    scratch: Scratch
    clock: Clock
    min_free_bytes: int = 0
    threads: int = 0
    random: Callable[[], float] = random.random
    on_event: OnEvent = ignore
    heartbeat: Callable[[Lease, Clock], Beating] = Heartbeat
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    slots_per_job: Callable[[Profile], int] = alone
    sweep_on_start: bool = False
    requeue_stragglers: bool = False
    requeued_chunks: RequeuedChunks = field(default_factory=RequeuedChunks)
    mark_source_finished: Callable[[Source], bool] = keep
    encode_slots: EncodeSlots | None = None

    def encoding(self, slot: str, check: Callable[[], None]) -> AbstractContextManager[None]:
        """Hold one of the pool's encodes inside the context; see `encode_slots`."""
        return (
            nullcontext() if self.encode_slots is None else self.encode_slots.encoding(slot, check)
        )

    def emit(self, event: JobEvent) -> None:
        """Hand an event to the display; one that breaks must not break the work."""
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001 - a display may break in any way
            get_logger(job=event.job_id).exception("observer_failed", event_kind=event.kind.value)

    def retry_control_call(self, action: Callable[[], Result]) -> Result:
        """Return what `action` returns, repeating it where it got no answer.

        Only for calls that may be repeated. No stop shortens the waits: giving work back is what a
        stop needs these calls for. Raises what the last attempt raised.
        """
        waiting = Waiting(self.clock, self.random, threading.Event())
        return retry_control_call(action, waiting, retryable=_without_answer, on_retry=_note_retry)

    def describe_scratch_space(self, slots: int) -> str:
        """Return the sentence what the scratch folder has room for.

        Raises WorkerUnfit if its disk is smaller than what must stay free: no work would ever
        begin. One that is only full now may become free again.
        """
        total, copied = self.scratch.total_bytes(), self.backend.store.free_bytes() is None
        if total < self.min_free_bytes:
            raise WorkerUnfit(
                f"The disk of the scratch folder {self.scratch.folder} has {total >> 20} MiB, and "
                f"{self.min_free_bytes >> 20} MiB must stay free (min_free_mib).",
                remedy="Give it more space, or set scratch_dir to a folder on a larger disk.",
            )
        free = self.scratch.free_bytes()
        room = source_room(free, keep=self.min_free_bytes, slots=slots, copied=copied)
        return (
            f"The scratch folder has {free >> 20} MiB free: room for sources of up to "
            f"{room >> 20} MiB in each of {slots} slots."
        )

    def disk_shortage(self) -> str:
        """Return the sentence why new work must wait for disk space, or an empty string."""
        free = {"scratch folder": self.scratch.free_bytes()}
        store = self.backend.store.free_bytes()
        if store is not None:
            free["store"] = store
        for name, bytes_free in free.items():
            if bytes_free < self.min_free_bytes:
                return (
                    f"The disk of the {name} has {bytes_free >> 20} MiB free; "
                    f"{self.min_free_bytes >> 20} MiB must stay free."
                )
        return ""


def _without_answer(error: BaseException) -> bool:
    return isinstance(error, (Unavailable, DatabaseBusy))


def _note_retry(error: BaseException, attempt: int) -> None:
    get_logger().info("call_repeated", reason=str(error), attempt=attempt)
