"""One real worker process over a data folder, with an encoder that only pretends to encode.

Everything but the encoder is what runs in production; its child process is a real one too.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import structlog

from fakes.encoder import FakeEncoder, fake_plan, passed
from hevcq.clock import SystemClock
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.profile import Profile, QueueNumbers, Video, VideoCodec
from hevcq.embedded.open import EmbeddedBackend, open_embedded
from hevcq.errors import EncoderFailed, SourceDamaged
from hevcq.ffmpeg.process import run_child
from hevcq.settings import Settings
from hevcq.worker.events import EventKind, JobEvent
from hevcq.worker.handler import Served
from hevcq.worker.kit import Kit
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.scratch import Scratch
from hevcq.worker.stop import StopSignals

VISIBILITY_S = 3
PROFILE = Profile(
    name="hevc",
    description="for kills",
    video=Video(codec=VideoCodec.HEVC, crf=28.0),
    queue=QueueNumbers(
        visibility_s=VISIBILITY_S,
        heartbeat_s=1,
        max_receives=1000,
        max_failures=10,
        max_crashes=100,
        backoff_base_s=0.05,
        backoff_cap_s=0.1,
    ),
)
PROFILES = {PROFILE.name: PROFILE}
DURING = "during-encode"
"""A point of its own: the child runs and would run for long."""


def open_folder(folder: Path) -> EmbeddedBackend:
    settings = Settings(data_dir=folder / "data", poll_s=0.1)
    return open_embedded(settings, PROFILES, SystemClock())


class Note:
    """Appends lines to a file that outlives its writer; each line is one write."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, *words: object) -> None:
        line = " ".join(str(word) for word in (*words, time.monotonic()))
        os.write(self._file, f"{line}\n".encode())


class StubEncoder(FakeEncoder):
    """What becomes of a film is in its name; the child it runs is `sleep`, marked by its number."""

    def __init__(self, folder: Path, point: str, end: Doom, mark: str) -> None:
        super().__init__()
        self._folder, self._point, self._end, self._mark = folder, point, end, mark

    def preflight(self, location, info, profile, *, stop):
        if "poison" in location:
            raise SourceDamaged("It is poison.")
        return super().preflight(location, info, profile, stop=stop)

    def encode(self, request, *, on_progress, stop):
        once = self._folder / f"failed-{Path(request.location).name}"
        if "flaky" in request.location and not once.exists():
            once.touch()
            raise EncoderFailed("It fails once.")
        if self._point == DURING:
            self._end.note("hanging", os.getpid())
            run_child(["sleep", f"600.{self._mark}"], stop=stop)
        run_child(["sleep", f"0.01{self._mark}"], stop=stop)
        return super().encode(request, on_progress=on_progress, stop=stop)

    def verify(self, request, *, on_progress, stop):
        if "small" in request.location:
            return passed(GateResult(gate=Gate.G6, outcome=Outcome.NOT_SMALLER))
        return super().verify(request, on_progress=on_progress, stop=stop)


class Doom:
    """Ends this process by `number` when it comes to `point`; a stop is done once."""

    def __init__(self, point: str, number: int, note: Note) -> None:
        self._point, self._number, self.note = point, number, note

    def __call__(self, point: str) -> None:
        self.note("point", point, os.getpid())
        if point == self._point:
            self._point = ""
            self.note("ended", point, os.getpid(), self._number)
            os.kill(os.getpid(), self._number)


def work(folder: Path, point: str, number: int, mark: str) -> None:
    """Work until killed, or told to stop; called in a process of its own."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    note = Note(folder)
    doom = Doom(point, number, note)
    opened = open_folder(folder)

    def on_event(event: JobEvent) -> None:
        if event.kind is not EventKind.PROGRESS:
            note(event.kind.value, event.job_id, os.getpid())

    _note_publications(opened, note)
    clock = SystemClock()
    kit = Kit(
        backend=opened.backend,
        encoder=StubEncoder(folder, point, doom, mark),
        plan=fake_plan,
        scratch=Scratch(folder / "scratch", clock),
        clock=clock,
        faults=doom,
        on_event=on_event,
    )
    served = Served(PROFILE, opened.backend.queues[PROFILE.name])
    with StopSignals() as signals:
        WorkerPool(kit, [served], Numbers(slots=1, grace_s=5.0, poll_s=0.05)).run(signals)
    opened.close()


def _note_publications(opened: EmbeddedBackend, note: Note) -> None:
    store = opened.backend.store
    publish = store.publish

    def noted(publication):
        seen = publish(publication)
        note("published", publication.job_id, seen.version)
        return seen

    store.publish = noted


def expected(content: bytes) -> bytes:
    """What the stub makes of a film."""
    return b"rendition " + hashlib.sha256(content).hexdigest().encode()


KILL, STOP = int(signal.SIGKILL), int(signal.SIGSTOP)
