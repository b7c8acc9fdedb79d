"""The ports and settings that all slots of a worker process share."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hevcq.domain.events import JobEvent, OnEvent
from hevcq.domain.pause import Closed
from hevcq.domain.planning.encode_plan import Planner
from hevcq.domain.profile import Profile
from hevcq.errors import DatabaseBusy, DiskFull, Unavailable, WorkerUnfit
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import Encoder
from hevcq.util.clock import Clock
from hevcq.util.host import disk_shortage, source_room
from hevcq.util.log import get_logger
from hevcq.util.retry import retry_control_call
from hevcq.worker.admission import Admission, CircuitBreaker
from hevcq.worker.delivery.lease import Beating, Heartbeat, Lease
from hevcq.worker.scratch import Scratch

Result = TypeVar("Result")


@dataclass(frozen=True)
class WorkerContext:
    """The ports and settings of a worker process.

    `min_free_bytes` stay free on the disks of scratch and store. `threads` is the encoder's thread
    count if the profile sets none. `random` returns numbers in [0, 1). `slots_per_job` returns how
    many slots may share a video of a profile. With `sweep_on_start`, a start removes what killed
    workers left in the store for split videos. `admission` says whether work may begin (None:
    always). `full` says whether slots that are free take nothing all the same. `notify` is called with an
    event of this machine and its reason. `label` tells the slots of a joined machine apart from this
    process's own.
    """

    backend: Backend
    encoder: Encoder
    plan: Planner
    scratch: Scratch
    clock: Clock
    min_free_bytes: int = 0
    threads: int = 0
    random: Callable[[], float] = random.random
    on_event: OnEvent = lambda _event: None
    heartbeat: Callable[[Lease, Clock], Beating] = Heartbeat
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    slots_per_job: Callable[[Profile], int] = lambda _profile: 1
    sweep_on_start: bool = False
    admission: Admission | None = None
    full: Callable[[], bool] = lambda: False
    notify: Callable[[str, str], None] = lambda _event, _reason: None
    label: str = ""

    def closed(self, profile: str, *, now: bool = False) -> Closed | None:
        """Return why no work of this profile may begin, or None; see `admission`."""
        return None if self.admission is None else self.admission.closed(profile, now=now)

    def require_tested(self, profile: Profile, stop: threading.Event) -> Closed | None:
        """Return why ffmpeg cannot make this profile here, or None; see `admission`."""
        return None if self.admission is None else self.admission.require_tested(profile, stop)

    def emit(self, event: JobEvent) -> None:
        """Pass an event to the display; log its exceptions, which must not break the work."""
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001 - a display may raise anything
            get_logger(job=event.job_id).exception("observer_failed", event_kind=event.kind.value)

    def retry_control_call(self, action: Callable[[], Result]) -> Result:
        """Call an idempotent `action` until it is answered; return its result.

        Raises the error of the last attempt. A stop does not shorten the waits, because a stop needs
        these calls to release work.
        """

        def note(error: Exception, attempt: int) -> None:
            get_logger().info("call_repeated", reason=str(error), attempt=attempt)

        again = (Unavailable, DatabaseBusy)
        return retry_control_call(action, self.clock, self.random, retryable=again, on_retry=note)

    def describe_scratch_space(self, slots: int) -> str:
        """Return a sentence that says how large a source each of `slots` slots has space for.

        Raises WorkerUnfit if the disk is smaller than `min_free_bytes`: no work could ever begin. A
        disk that is only full now may become free again.
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

    def require_free_space(self, size: int, name: str) -> None:
        """Raise DiskFull unless scratch and store have `size` bytes free beyond the reserve."""
        needed = size + self.min_free_bytes
        scratch = self.scratch.free_bytes()
        store = self.retry_control_call(self.backend.store.free_bytes)
        free = scratch if store is None else min(scratch, store)
        if free < needed:
            least = -(-needed >> 20)  # rounded up, or it might seem to be enough
            raise DiskFull(
                f"{name} needs {least} MiB free, and there are {free >> 20} MiB.",
                remedy="The work goes on by itself once there is room.",
            )

    def disk_shortage(self) -> str:
        """Return a sentence that says why new work must wait for disk space, or an empty string."""
        free = {"scratch folder": self.scratch.free_bytes()}
        store = self.backend.store.free_bytes()
        if store is not None:
            free["store"] = store
        return disk_shortage(free, self.min_free_bytes)
