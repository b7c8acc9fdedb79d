"""One real worker process, with an encoder that only pretends to encode.

Everything but the encoder is what runs in production; its child process is a real one too.
"""

import hashlib
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from chaos.kills.places import Place
from chaos.kills.videos import CHUNKS, LARGE_BYTES, SLOW_S
from hevcq.backends.aws.s3 import transfer
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.events import EventName, JobEvent
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import EncoderFailed, PartUnfit, SourceDamaged
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.process.child import run_child
from hevcq.ports.backend import Backend
from hevcq.util.clock import SystemClock
from hevcq.util.signals import StopSignals
from hevcq.worker.admission import Scratch
from hevcq.worker.delivery.claim import WorkerContext
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.out_of_service import CircuitBreaker
from hevcq.worker.pool import WorkerPool
from support.fakes.crashing import Calls
from support.fakes.encoder import FakeEncoder, content_of, fake_index, fake_plan, passed

KILL, STOP, TERM = int(signal.SIGKILL), int(signal.SIGSTOP), int(signal.SIGTERM)
MAX_LATE_S = 0.03
"""How long after the beginning of a call a kill inside it may come."""
TOLD_S = 0.3
"""How long a call lasts in which the worker is told to stop: until its main thread has heard it."""


@dataclass(frozen=True)
class Orders:
    """How a worker is to end.

    It gets the signal `number` at the first of the `wanted` points it comes to; `late` seconds
    later if that is not zero, to be inside the call. `hangs` makes its child run for ten minutes.
    At the point `told_at` it is told to stop.
    """

    wanted: frozenset[str] = frozenset()
    number: int = KILL
    late: float = 0.0
    hangs: bool = False
    told_at: str = ""
    real: bool = False
    slots: int = 1
    seed: int = 0


@dataclass
class Note:
    """Appends lines to a file that outlives its writer; each line is one write."""

    folder: Path
    _file: int = field(init=False)

    def __post_init__(self) -> None:
        self._file = os.open(self.folder / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, *words: object) -> None:
        line = " ".join(str(word) for word in (*words, time.monotonic()))
        os.write(self._file, f"{line}\n".encode())


class StubEncoder(FakeEncoder):
    """What becomes of a video is in its name; the child it runs is `sleep`, marked by its number.

    No two encodes have the same bytes, so that a rendition which was replaced is seen.
    """

    def __init__(self, place: Place, orders: Orders, mark: str) -> None:
        super().__init__()
        self.index = fake_index(length_s=20 * CHUNKS, every_s=20)
        self._folder, self._orders, self._mark = place.folder, orders, mark
        self.salt = f"{os.getpid()}-{orders.seed}"

    def preflight(self, location, info, profile, *, stop, looked=None):
        if self._is(location, "poison"):
            raise SourceDamaged("It is poison.")
        return super().preflight(location, info, profile, stop=stop)

    def encode(self, request, *, on_progress, stop):
        if self._is(request.location, "flaky") and self._first(request.location):
            raise EncoderFailed("It fails once.")
        self._child(stop, SLOW_S if self._is(request.location, "slow") else 0.0)
        self.calls.clear()  # a worker that works for hours must not grow
        self.crfs.clear()
        report = super().encode(request, on_progress=on_progress, stop=stop)
        self._fill(request)
        return report

    def encode_chunk(self, request, chunk_plan, chunk, *, on_progress, stop):
        if self._is(request.location, "cutpoison"):
            raise SourceDamaged("It is poison.")
        self._child(stop)
        return super().encode_chunk(request, chunk_plan, chunk, on_progress=on_progress, stop=stop)

    def join(self, request, chunk_plan, parts, *, on_progress, stop):
        if self._is(request.location, "cutunfit"):
            raise PartUnfit("It never fits.")
        if self._is(request.location, "cutlost") and self._first(request.location):
            raise PartUnfit("One chunk is not what it was.", index=1)
        report = super().join(request, chunk_plan, parts, on_progress=on_progress, stop=stop)
        self._fill(request)
        return report

    def verify(self, request, *, on_progress, stop):
        if any(self._is(request.location, kind) for kind in ("small", "cutsmall")):
            return passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
        return super().verify(request, on_progress=on_progress, stop=stop)

    def _child(self, stop, seconds: float = 0.0) -> None:
        if self._orders.hangs:
            run_child(["sleep", f"600.{self._mark}"], stop=stop)
        run_child(["sleep", f"{seconds + 0.01:.2f}{self._mark}"], stop=stop)

    def _is(self, location: str, kind: str) -> bool:
        """Whether the bytes say that the video is of this kind: a fetched video has another name."""
        return content_of(location).split(b" ")[0] == kind.encode()

    def _first(self, location: str) -> bool:
        digest = hashlib.sha256(content_of(location)).hexdigest()
        once = self._folder / f"failed-{digest}"
        if once.exists():
            return False
        once.touch()
        return True

    def _fill(self, request) -> None:
        """Say whose rendition it is, and make a large video's large."""
        if request.output.is_dir():
            return
        digest = hashlib.sha256(content_of(request.location)).hexdigest()
        content = f"rendition of {digest} {self.salt} ".encode()
        if self._is(request.location, "large"):
            content += b"." * LARGE_BYTES
        request.output.write_bytes(content)


class Trusting(CircuitBreaker):
    """Never takes the worker for sick: many videos here fail on purpose, and one by one."""

    def may_be_worker_fault(self, *_facts: object, **_named: object) -> bool:
        return False

    def record_failure(self, *_facts: object) -> bool:
        return False


class Doom:
    """Ends this process by its orders when it comes to a wanted point; what is not final, once."""

    def __init__(self, orders: Orders, note: Note) -> None:
        self._orders, self.note = orders, note
        self._over = False

    def __call__(self, point: str) -> None:
        if point == self._orders.told_at:
            os.kill(os.getpid(), TERM)
            time.sleep(TOLD_S)
        if point not in self._orders.wanted or self._over:
            return
        self._over = True
        late = self._orders.late if point.endswith(":before") else 0.0
        if late:
            threading.Thread(target=self._later, args=(point, late), daemon=True).start()
        else:
            self._end(point)

    def _later(self, point: str, seconds: float) -> None:
        time.sleep(seconds)
        self._end(f"inside-{point.removesuffix(':before')}")

    def _end(self, point: str) -> None:
        self.note("ended", point, os.getpid(), self._orders.number)
        os.kill(os.getpid(), self._orders.number)


def work(place: Place, orders: Orders, mark: str) -> None:
    """Work until killed, or told to stop; called in a process of its own."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    random.seed(orders.seed)
    note = Note(place.folder)
    backend = place.open()
    if place.on_aws:
        # Uploads go in parts from S3's least size on, so that a kill may leave some open.
        transfer.PART_BYTES = 5 << 20

    def on_event(event: JobEvent) -> None:
        if event.kind is not EventName.JOB_PROGRESS:
            why = event.failure_class.value if event.failure_class else "-"
            note(event.kind.value, event.job_id, os.getpid(), why)

    _note_publications(backend, note)
    clock = SystemClock()
    real = FfmpegEncoder("ffmpeg", "ffprobe", clock) if orders.real else None
    context = WorkerContext(
        backend=backend,
        encoder=real or StubEncoder(place, orders, mark),
        plan=make_plan if real else fake_plan,
        scratch=Scratch(place.scratch, clock),
        clock=clock,
        on_event=on_event,
        slots_per_job=lambda _profile: CHUNKS,
        sweep_on_start=not place.on_aws,
        threads=1,
        breaker=Trusting(),
    )
    context = Calls(Doom(orders, note)).context(context)
    served = [
        ProfileQueue(profile, context.backend.queues[name])
        for name, profile in place.profiles.items()
    ]
    with StopSignals() as signals:
        WorkerPool(context, served, slots=orders.slots, grace_s=0.0, poll_s=0.05).run(signals)
    backend.close()


def _note_publications(backend: Backend, note: Note) -> None:
    store = backend.store
    publish = store.publish

    def noted(publication):
        seen = publish(publication)
        fence = seen.metadata.get("fence", "0")
        note("published", publication.job_id, publication.key, seen.sha256, fence)
        return seen

    store.publish = noted
