"""A worker on AWS: from a task in its queue to the running encoder, and what waiting costs.

Run as `python benchmarks/aws_worker_bench.py`: a real worker pool in this process, over a moto
server in another. Prints a table and writes benchmarks/out/aws_worker.json.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.aws_control_bench import SQS_PER_MILLION, median, row
from benchmarks.aws_farm import emulator, made
from benchmarks.measured import clip, report
from hevcq.backends.aws.clients import make_clients
from hevcq.backends.aws.sqs.queue import SqsQueue
from hevcq.domain.job import Phase
from hevcq.settings.profile_files import load_profiles
from hevcq.settings.model import Settings
from hevcq.wiring.app import App, open_app
from hevcq.wiring.worker import build_pool
from hevcq.domain.events import EventName, JobEvent
from hevcq.worker.pool import WorkerPool

JOBS = 7
WARM_S = 25
"""Time for the messages of earlier figures to go: each profile is told of every upload."""
IDLE_S = 65
NAMES = ("1080p", "720p", "hevc")


@dataclass
class Seen:
    """When each job was begun, began to encode, and ended; monotonic seconds."""

    begun: dict[str, float] = field(default_factory=dict)
    encoding: dict[str, float] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def note(self, event: JobEvent) -> None:
        now, name = time.perf_counter(), event.source.key
        if event.kind is EventName.JOB_STARTED:
            self.begun.setdefault(name, now)
        elif event.progress is not None and event.progress.phase is Phase.ENCODE:
            self.encoding.setdefault(name, now)
        elif event.kind is not EventName.JOB_PROGRESS:
            self.ended.set()


def main() -> int:
    """Measure everything; 1 if a figure is above its limit."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows: list[dict[str, object]] = []
    with emulator() as endpoint, tempfile.TemporaryDirectory() as name:
        settings = farm(endpoint, Path(name))
        rows += latency(settings, clip(Path(name), 2, "320x240"))
        rows += idle(settings, slots=len(NAMES))
        rows += idle(settings, slots=1)
    return report("aws_worker", rows)


def farm(endpoint: str, folder: Path) -> Settings:
    """Make the shipped profiles' farm on the emulator."""
    aws, _ = made(endpoint, load_profiles(ROOT / "workers"))
    return Settings(backend="aws", aws=aws, data_dir=folder / "data", workers=1, min_free_mib=1)


def stopped(pool: WorkerPool, app: App) -> None:
    pool.ask()
    pool.insist()
    while not pool.stopped:
        pool.step()
        time.sleep(0.05)
    pool.finish()
    app.close()


def latency(settings: Settings, video: Path) -> list[dict[str, object]]:
    """From the end of an upload to the claim and to the encoder's first word, one idle slot."""
    app, seen = open_app(settings), Seen()
    pool = build_pool(app, ["hevc"], on_event=seen.note)
    s3, claimed, encoding = make_clients(settings.aws).s3, [], []
    pool.start()
    for number in range(JOBS):
        time.sleep(0.5)
        key = f"TODO/hevc/{number}.mp4"
        seen.ended.clear()
        s3.put_object(Bucket="bench-in", Key=key, Body=video.read_bytes() + bytes(number))
        began = time.perf_counter()
        if not seen.ended.wait(120):
            raise SystemExit(f"{key} did not end in two minutes")
        claimed.append(seen.begun[key] - began)
        encoding.append(seen.encoding[key] - began)
    stopped(pool, app)
    return [
        row("upload to claimed job, median, on moto", median(claimed) * 1e3, "ms"),
        row("upload to encoder running (fetch, probe, pre-flight)", median(encoding) * 1e3, "ms"),
    ]


def idle(settings: Settings, *, slots: int) -> list[dict[str, object]]:
    """Receive calls of one worker over three queues that waits for work that never comes."""
    app = open_app(replace_workers(settings, slots))
    pool = build_pool(app, list(NAMES))
    calls: dict[str, list[float]] = {}

    def note(params: dict[str, str], **_more: object) -> None:
        calls.setdefault(params["QueueUrl"], []).append(time.monotonic())

    pool.start()
    time.sleep(WARM_S)
    polls = next(q._polls for q in app.backend.queues.values() if isinstance(q, SqsQueue))
    polls.meta.events.register("before-parameter-build.sqs.ReceiveMessage", note)
    time.sleep(IDLE_S)
    stopped(pool, app)
    per_minute = sum(60 * (len(at) - 1) / (at[-1] - at[0]) for at in calls.values())
    month = per_minute * 60 * 24 * 30 / 1e6 * SQS_PER_MILLION
    what = f"idle receive calls a minute, {slots} slot{'' if slots == 1 else 's'}, three queues"
    return [row(what, per_minute, "/min", 13.0), row("the same, price of a month", month, "USD")]


def replace_workers(settings: Settings, slots: int) -> Settings:
    return settings.model_copy(update={"workers": slots})


if __name__ == "__main__":
    sys.exit(main())
