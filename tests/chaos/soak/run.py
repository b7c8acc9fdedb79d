"""One worker process that never stops working, a feeder that never lets it be idle, and looks."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from chaos.soak.samples import Sample, look
from hevcq.backends.sql.factory import SqlBackend, open_sql
from hevcq.domain.job import JobState
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Gates, Profile, VideoRecipe
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.process.child import run_child
from hevcq.settings.model import Settings
from hevcq.util.clock import SystemClock
from hevcq.util.signals import StopSignals
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.scratch import Scratch
from support.clips import make_clip
from support.fakes.encoder import FakeEncoder, fake_plan

SLOTS = 2
BACKLOG = 40
SAMPLES = 120
PROFILE = Profile(
    name="hevc",
    description="for a soak",
    video=VideoRecipe(codec="hevc", preset="ultrafast", crf=34),
    gates=Gates(minimum_saving=None, review_below=0, picture_floor=0.5),
)


class StubEncoder(FakeEncoder):
    """Encodes nothing, and still starts a real child for each video; keeps no list of its calls."""

    def encode(self, request, *, on_progress, stop):
        run_child(["true"], stop=stop)
        self.calls.clear()
        return super().encode(request, on_progress=on_progress, stop=stop)


@dataclass
class Soak:
    """Soaks in `folder` for so many seconds."""

    folder: Path
    seconds: float
    real: bool = False

    def run(self) -> list[Sample]:
        """Return the samples; the worker has ended."""
        (self.folder / "videos").mkdir()
        clip = b"clip"
        if self.real:
            clip = make_clip(self.folder / "clip", seconds=2, size="320x180").read_bytes()
        pid = self._worker()
        # Opened only now: a database must not be shared with a fork.
        opened = self._opened()
        try:
            return self._watched(pid, opened, clip)
        finally:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            opened.close()

    def _opened(self) -> SqlBackend:
        settings = Settings(data_dir=self.folder / "data")
        return open_sql(settings, {PROFILE.name: PROFILE}, SystemClock())

    def _watched(self, pid: int, opened: SqlBackend, clip: bytes) -> list[Sample]:
        samples: list[Sample] = []
        began, number = time.monotonic(), 0
        every = self.seconds / SAMPLES
        while (now := time.monotonic() - began) < self.seconds:
            if opened.backend.queues[PROFILE.name].depth().ready < BACKLOG // 2:
                for number in range(number, number + BACKLOG):  # noqa: B020 - it goes on
                    self._submit(opened, number, clip)
                number += 1
            if now >= every * len(samples):
                done = opened.backend.ledger.counts().get((PROFILE.name, JobState.DONE), 0)
                samples.append(look(now, pid, self.folder, done))
            time.sleep(min(0.05, every / 4))
        return samples

    def _submit(self, opened: SqlBackend, number: int, clip: bytes) -> None:
        path = self.folder / "videos" / f"{number}.mp4"
        path.write_bytes(clip)
        source = opened.backend.store.accept(
            path, f"TODO/all/{path.name}", moved=lambda _: None, stop=threading.Event()
        )
        opened.backend.task_publisher.publish(source, [PROFILE.name], announced=False)

    def _worker(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            with (self.folder / "log").open("a") as log:
                os.dup2(log.fileno(), 2)
            self._work()
        finally:
            os._exit(0)

    def _work(self) -> None:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        opened, clock = self._opened(), SystemClock()
        queue = opened.backend.queues[PROFILE.name]
        context = WorkerContext(
            backend=opened.backend,
            encoder=FfmpegEncoder("ffmpeg", "ffprobe", clock) if self.real else StubEncoder(),
            plan=make_plan if self.real else fake_plan,
            scratch=Scratch(self.folder / "scratch", clock),
            clock=clock,
            sweep_on_start=True,
            threads=1,
        )
        numbers = Numbers(slots=SLOTS, grace_s=0.0)
        with StopSignals() as signals:
            WorkerPool(context, [ProfileQueue(PROFILE, queue)], numbers).run(signals)
        opened.close()
