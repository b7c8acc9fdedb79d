"""How many bytes of a split video are read from S3, and by whom.

Run as `python benchmarks/stream_bench.py`: prints a table and writes benchmarks/out/stream.json.
A video of a minute is cut into chunks of half a minute and worked off on an emulator; every range of
the source that is asked for is counted. Each chunk is a worker's first of this video, which is the
worst case: a second one finds the index in memory. A source with its index at the front and one
with it at the end are measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.aws_farm import emulator, opened
from benchmarks.measured import clip, report
from hevcq.backends.aws.clients import Clients
from hevcq.backends.aws.s3.range_reader import HeadBlockCache
from hevcq.util.clock import SystemClock
from hevcq.domain.chunk_settings import Chunking, ChunkMode
from hevcq.domain.job import SETTLED, JobState, TaskKind, job_id
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.settings.profile_files import load_profiles
from hevcq.worker.handler import Handler, ProfileQueue
from hevcq.worker.delivery.context import WorkerContext
from hevcq.worker.scratch import Scratch

TIMES = 4
"""How often the clip of 15 s follows itself: a video of 50 MB and a minute."""
CHUNK_S = 30.0
WORKERS = 2
LIMIT = 1.05


class Source:
    """Counts the bytes that are asked for of the source's bucket, by what they are asked for."""

    def __init__(self, clients: Clients, bucket: str) -> None:
        self.read: Counter[str] = Counter()
        self.doing = ""
        self._bucket = bucket
        clients.s3.meta.events.register("before-parameter-build.s3.GetObject", self._asked)

    def _asked(self, params: dict[str, Any], **_more: Any) -> None:
        if params["Bucket"] == self._bucket:
            first, last = params["Range"].removeprefix("bytes=").split("-")
            self.read[self.doing] += int(last) + 1 - int(first)

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Count what is read inside under a name."""
        self.doing = name
        try:
            yield
        finally:
            self.doing = ""


def long_clip(folder: Path, name: str, *, index_first: bool) -> Path:
    """Return a video made of the real clip, copied after itself."""
    one, made = clip(folder, 15, "1920x1080"), folder / name
    listing = folder / "list.txt"
    listing.write_text(f"file '{one}'\n" * TIMES, encoding="utf-8")
    flags = ["-movflags", "+faststart"] if index_first else []
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "concat", "-safe", "0"]
    command += [
        "-i",
        str(listing),
        "-map",
        "0:v:0",
        "-map",
        "0:a?",
        "-c",
        "copy",
        *flags,
        str(made),
    ]
    subprocess.run(command, check=True)
    return made


def work_off(backend: Any, profile: Profile, path: Path, folder: Path, source: Source) -> int:
    """Split, encode and join one video; return its number of chunks."""
    clock, never = SystemClock(), threading.Event()
    context = WorkerContext(
        backend=backend,
        encoder=FfmpegEncoder("ffmpeg", "ffprobe", clock),
        plan=make_plan,
        scratch=Scratch(folder / "scratch", clock),
        clock=clock,
        slots_per_job=lambda _profile: 2 * WORKERS,
        threads=1,
    )
    queue = backend.queues[profile.name]
    given = backend.store.accept(
        path, f"TODO/{profile.name}/{path.name}", moved=lambda _n: None, stop=never
    )
    handler, chunks, began = Handler(context, "bench:0"), 0, time.perf_counter()
    while time.perf_counter() - began < 1200:
        found = queue.receive(1, wait_s=1.0, stop=never)
        if not found:
            continue
        kind = found[0].tasks[0].kind
        chunks += kind is TaskKind.CHUNK
        backend.store._head_blocks = HeadBlockCache()
        with source.counted(f"{path.stem} {kind.value}"):
            handler.process(ProfileQueue(profile, queue), found[0])
        record = backend.ledger.get(job_id(given, profile.name))
        if record is not None and record.state in SETTLED:
            if record.state is not JobState.DONE:
                raise SystemExit(f"{path.name}: {record.reason}")
            return chunks
    raise SystemExit(f"{path.name} was not done in time")


def recipe() -> Profile:
    """Return the hevc profile, small and fast, that splits whatever can be split."""
    plain = load_profiles(ROOT / "workers")["hevc"]
    chunking = Chunking(mode=ChunkMode.ALWAYS, min_s=20.0, target_s=CHUNK_S, max_s=40.0, threads=1)
    video = plain.video.model_copy(
        update={"preset": "ultrafast", "crf": 34, "max_width": 426, "max_height": 240}
    )
    loose = {"minimum_saving": None, "picture_floor": 0.5, "review_below": 0.0}
    gates = plain.gates.model_copy(update=loose)
    bounds = plain.bounds.model_copy(update={"nice": 0})
    changed = {"chunking": chunking, "video": video, "gates": gates, "bounds": bounds}
    return plain.model_copy(update=changed)


def main() -> int:
    """Count for both places of the index; 1 if a limit is missed."""
    rows: list[dict[str, object]] = []
    with emulator() as endpoint, tempfile.TemporaryDirectory() as name:
        folder, profile = Path(name), recipe()
        backend, clients, _ = opened(endpoint, {"hevc": profile}, folder)
        source = Source(clients, "bench-in")
        for place, first in (("first", True), ("last", False)):
            path = long_clip(folder, f"{place}.mp4", index_first=first)
            chunks = work_off(backend, profile, path, folder, source)
            rows += ratios(source, path, chunks)
        backend.close()
        clients.close()
    return report("stream", rows)


def ratios(source: Source, path: Path, chunks: int) -> list[dict[str, object]]:
    """Return what was read of a video, in its own sizes."""
    size, read = path.stat().st_size, source.read
    name = f"index {path.stem}, {size >> 20} MiB, {chunks} chunks: bytes read by the "
    return [
        {
            "figure": f"{name}chunks",
            "value": read[f"{path.stem} chunk"] / size,
            "limit": LIMIT,
        },
        {"figure": f"{name}split", "value": read[f"{path.stem} encode"] / size},
        {"figure": f"{name}join", "value": read[f"{path.stem} join"] / size},
    ]


if __name__ == "__main__":
    sys.exit(main())
