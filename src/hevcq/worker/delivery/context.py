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
from hevcq.domain.verdict import FailureClass
from hevcq.errors import DatabaseBusy, DiskFull, Unavailable, WorkerUnfit
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import Encoder
from hevcq.util.clock import Clock
from hevcq.util.host import disk_shortage, source_room
from hevcq.util.log import get_logger
from hevcq.util.retry import retry_control_call
from hevcq.worker.admission import Admission
from hevcq.worker.delivery.lease import Beating, Heartbeat, Lease
from hevcq.worker.scratch import Scratch

Result = TypeVar("Result")

SICK_AFTER = 5
"""Different jobs that must fail in a row, in ways that do not point at their source, before the
worker stops: five such videos in a row mean a broken encoder rather than broken videos. A worker
whose encoder fails its self-test right after the first failure stops at once. If the self-test
passes, each of these failures is suspected to be the worker's and returns uncounted while its
message has receives to spare. So neither costs a job an attempt."""
SUSPECT = frozenset({FailureClass.ENCODER, FailureClass.STALLED, FailureClass.INTERNAL})
"""The failure classes that may be this machine's fault."""


class CircuitBreaker:
    """Count different jobs that failed in a row; shared by all slots of a process.

    After `sick_after` such jobs the worker counts as unfit.
    """

    def __init__(self, sick_after: int = SICK_AFTER) -> None:
        self._sick_after = sick_after
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        with self._lock:
            self._failing.clear()

    def doubtful(self, job_id: str, failure_class: FailureClass, *, first: bool) -> bool:
        """Return whether this job's failure may be the worker's fault; call it before `failed`.

        It may be if no failure of the job was suspected before (`first`): a worker that has just
        become unfit shows no other failure, so another worker tries too. Later it may be if another
        job failed here too and none succeeded in between. The caller must limit how often it acts
        on this, so that a video that always breaks the encoder still ends.
        """
        with self._lock:
            others = bool(self._failing - {job_id})
        return failure_class in SUSPECT and (first or others)

    def failed(self, job_id: str, failure_class: FailureClass) -> bool:
        """Record a failure; return whether this worker is unfit.

        Repeated failures of one job count once: they are that job's problem.
        """
        if failure_class not in SUSPECT:
            return False
        with self._lock:
            self._failing.add(job_id)
            return len(self._failing) >= self._sick_after


@dataclass(frozen=True)
class WorkerContext:
    """The ports and settings of a worker process.

    `min_free_bytes` stay free on the disks of scratch and store. `threads` is the encoder's thread
    count if the profile sets none. `random` returns numbers in [0, 1). `slots_per_job` returns how
    many slots may share a video of a profile. With `sweep_on_start`, a start removes what killed
    workers left in the store for split videos. `admission` says whether work may begin (None:
    always). `notify` is called with an event of this machine and its reason. `label` tells the slots of
    a joined machine apart from this process's own.
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
