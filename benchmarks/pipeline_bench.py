"""How well a worker on AWS overlaps transfer and encode: ten jobs over a link of limited rate.

Run as `python benchmarks/pipeline_bench.py`: prints a table and writes benchmarks/out/pipeline.json;
with `in-turn` also what the same backlog takes one stage at a time.
The queue, ledger and store are the real ones on an emulator, ffmpeg encodes, and a store in front
of the real one makes each transfer as slow as the link. The slowest phase's sum is of the same run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.aws_farm import emulator, opened
from benchmarks.measured import clip, report
from hevcq.util.clock import SystemClock
from hevcq.domain.job import JobState
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.backend import Backend
from hevcq.settings.profile_files import load_profiles
from hevcq.worker.handler import ProfileQueue
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.pool import Numbers, WorkerPool
from hevcq.worker.scratch import Scratch

JOBS = 10
DOWNLOAD_S, UPLOAD_S = 1.5, 1.0
"""How long the link takes for one source and one rendition. The first download and the last upload
have nothing to hide behind: with as much of each as of the encode no order could be under 1.2."""
WALL_LIMIT, GAP_LIMIT_MS = 1.10, 100.0


@dataclass
class Phases:
    """When each phase of each job began and ended."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def span(self, name: str) -> Iterator[float]:
        """Note the time of what happens inside."""
        began = time.perf_counter()
        try:
            yield began
        finally:
            with self._lock:
                self.spans.setdefault(name, []).append((began, time.perf_counter()))

    def sums(self) -> dict[str, float]:
        """Return how long each phase took in sum."""
        return {name: sum(b - a for a, b in spans) for name, spans in self.spans.items()}

    def gaps_ms(self) -> list[float]:
        """Return how long the encoder did nothing between two jobs."""
        spans = sorted(self.spans["encode"])
        return [1000 * (after[0] - before[1]) for before, after in pairwise(spans)]


class Link:
    """A store behind a slow link."""

    def __init__(self, store: Any, phases: Phases) -> None:
        self._store, self._phases = store, phases

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def fetch(self, source: Any, scratch: Path, **more: Any) -> Iterator[Any]:
        """Fetch, and be as slow as the link."""
        with self._phases.span("download") as began:
            inner = self._store.fetch(source, scratch, **more)
            found = inner.__enter__()
            _until(began + DOWNLOAD_S)
        try:
            yield found
        finally:
            inner.__exit__(None, None, None)

    def publish(self, publication: Any) -> Any:
        """Publish, and be as slow as the link."""
        with self._phases.span("upload") as began:
            _until(began + UPLOAD_S)
            return self._store.publish(publication)


class Encoding(FfmpegEncoder):
    """ffmpeg, with encode and verify of a job noted as one phase."""

    def __init__(self, phases: Phases, clock: SystemClock) -> None:
        super().__init__("ffmpeg", "ffprobe", clock)
        self._phases, self._began = phases, 0.0

    def encode(self, *arguments: Any, **named: Any) -> Any:
        """Encode; the phase begins."""
        self._began = time.perf_counter()
        return super().encode(*arguments, **named)

    def verify(self, *arguments: Any, **named: Any) -> Any:
        """Verify; the phase ends."""
        began = self._began
        try:
            return super().verify(*arguments, **named)
        finally:
            self._phases.spans.setdefault("encode", []).append((began, time.perf_counter()))


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


def backlog(
    backend: Backend, profile: Profile, source: Path, folder: Path, *, pipelined: bool
) -> tuple[float, Phases]:
    """Work off ten jobs; return the wall time and the phases."""
    phases, clock, never = Phases(), SystemClock(), threading.Event()
    name = "overlapped" if pipelined else "in-turn"
    for number in range(JOBS):
        key = f"TODO/{profile.name}/{name}-{number}.mp4"
        backend.store.accept(source, key, moved=lambda _n: None, stop=never)
    context = WorkerContext(
        backend=replace(backend, store=Link(backend.store, phases)),
        encoder=Encoding(phases, clock),
        plan=make_plan,
        scratch=Scratch(folder / f"scratch-{name}", clock),
        clock=clock,
    )
    served = [ProfileQueue(profile, backend.queues[profile.name])]
    pool = WorkerPool(context, served, Numbers(slots=1, pipelined=pipelined))
    before = _done(backend, profile)
    began = time.perf_counter()
    pool.start()
    while _done(backend, profile) < before + JOBS:
        time.sleep(0.05)
        pool.step()
        if time.perf_counter() - began > 900:
            raise SystemExit(f"only {_done(backend, profile) - before} of {JOBS} jobs were done")
    wall = time.perf_counter() - began
    pool.ask()
    while not pool.stopped:
        time.sleep(0.05)
        pool.step()
    pool.finish()
    return wall, phases


def _done(backend: Backend, profile: Profile) -> int:
    return backend.ledger.counts().get((profile.name, JobState.DONE), 0)


def main() -> int:
    """Work off a backlog in both ways; 1 if a limit is missed."""
    with emulator() as endpoint, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = load_profiles(ROOT / "workers")["hevc"]
        loose = {"minimum_saving": None, "picture_floor": 0.5, "review_below": 0.0}
        profile = plain.model_copy(
            update={
                "gates": plain.gates.model_copy(update=loose),
                "video": plain.video.model_copy(update={"preset": "fast", "crf": 32}),
            }
        )
        backend, clients, _ = opened(endpoint, {"hevc": profile}, folder)
        source = clip(folder, 8, "640x360")
        overlapped, phases = backlog(backend, profile, source, folder, pipelined=True)
        rows: list[dict[str, object]] = []
        if "in-turn" in sys.argv[1:]:
            in_turn, serial = backlog(backend, profile, source, folder, pipelined=False)
            figure = "the same backlog one stage at a time / the slowest sum"
            rows.append({"figure": figure, "value": in_turn / max(serial.sums().values())})
        backend.close()
        clients.close()
    sums, gaps = phases.sums(), phases.gaps_ms()
    print({name: round(value, 1) for name, value in sums.items()}, f"wall {overlapped:.1f} s")
    print("gaps", [round(gap) for gap in gaps], "ms")
    rows = [
        {
            "figure": "wall of 10 jobs / the slowest phase's sum",
            "value": overlapped / max(sums.values()),
            "limit": WALL_LIMIT,
        },
        {
            "figure": "encoder idle between back-to-back jobs, median",
            "value": statistics.median(gaps),
            "limit": GAP_LIMIT_MS,
            "unit": "ms",
        },
        {"figure": "the same, worst of nine", "value": max(gaps), "unit": "ms"},
        *rows,
    ]
    return report("pipeline", rows)


if __name__ == "__main__":
    sys.exit(main())
