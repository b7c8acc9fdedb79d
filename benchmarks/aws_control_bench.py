"""What the AWS side costs beside bare boto3 on the same emulator, and what a farm costs on AWS.

Run as `python benchmarks/aws_control_bench.py`: prints a table and writes benchmarks/out/aws.json.
Ratios are what counts; moto is no AWS, so the absolute figures say nothing of it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.aws_farm import emulator, opened
from benchmarks.measured import MEDIA, clip, ratio, report, run
from hevcq.backends.aws.clients import Clients
from hevcq.domain.job import RenditionRef, Source, Task
from hevcq.ports.backend import Backend
from hevcq.settings.profile_files import load_profiles
from hevcq.settings.model import AwsSettings

NEVER = threading.Event()
ROUNDS, CHUNK = 6, 20
TRANSFER_MIB = 64
STREAM_READ = 1 << 20
IDLE_S = 41
FRAMES = 72
SQS_PER_MILLION = 0.40
VCPU_HOUR, GB_HOUR = 0.04048, 0.004445
"""Fargate, Linux x86, us-east-1, on demand; see docs/farm/cost.md for source and date."""
TASK_VCPU, TASK_GB = 4, 8
FRAMES_PER_VIDEO_HOUR = 108_000
"""One hour at 30 frames a second."""


def main() -> int:
    """Measure everything; 1 if a ratio is worse than its limit."""
    rows: list[dict[str, object]] = []
    with emulator() as endpoint, tempfile.TemporaryDirectory() as name:
        profiles = {"hevc": load_profiles(ROOT / "workers")["hevc"]}
        backend, clients, aws = opened(endpoint, profiles, Path(name))
        rows += control(backend, clients)
        rows += latency(backend, clients)
        rows += transfers(backend, clients, Path(name))
        rows += idle(backend, clients)
        rows += memory(aws, Path(name))
        rows += encoding(Path(name))
    return report("aws", rows)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return (wall, CPU of this process) seconds of one call."""
    cpu, began = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def control(backend: Backend, clients: Clients) -> list[dict[str, object]]:
    """Send, receive and delete through the port and bare; and the ledger's part of a job."""
    queue = backend.queues["hevc"]
    url = clients.sqs.create_queue(QueueName="bare")["QueueUrl"]
    numbers = iter(range(1_000_000))

    def ours() -> None:
        queue.send([task(next(numbers))])
        (delivery,) = queue.receive(1, wait_s=0, stop=NEVER)
        assert queue.ack(delivery)

    def bare() -> None:
        clients.sqs.send_message(QueueUrl=url, MessageBody=task(next(numbers)).body())
        (message,) = clients.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=0)["Messages"]
        clients.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def ledger() -> None:
        source = task(next(numbers)).source
        claim: Any = backend.ledger.claim(source, "hevc", owner="bench", lease_s=300)
        job = backend.ledger.register(source, ["hevc"])[0]
        ref = RenditionRef(key="DONE/a", size=1, sha256="0" * 64, certificate_key="DONE/a.json")
        backend.ledger.complete(job.job_id, claim.fence, ref, cpu_s=1.0)

    ours(), bare(), ledger()
    mine: list[tuple[float, float]] = []
    floor: list[tuple[float, float]] = []
    settled: list[float] = []
    for _ in range(ROUNDS):
        mine.append(timed(lambda: [ours() for _ in range(CHUNK)]))
        floor.append(timed(lambda: [bare() for _ in range(CHUNK)]))
        settled.append(timed(lambda: [ledger() for _ in range(CHUNK)])[0])
    wall = ratio([w for w, _ in mine], [w for w, _ in floor])
    cpu = ratio([c for _, c in mine], [c for _, c in floor])
    return [
        row("messages a second, one worker, on moto", CHUNK / median(w for w, _ in mine), "/s"),
        row(
            "messages a second, bare boto3 loop, on moto", CHUNK / median(w for w, _ in floor), "/s"
        ),
        row("time of a message, ratio to the bare loop", wall, "x", 1.6),
        row("CPU of a message, ratio to the bare loop", cpu, "x", 2.0),
        row("ledger: claim, look and complete", median(settled) / CHUNK * 1e3, "ms"),
    ]


def latency(backend: Backend, clients: Clients) -> list[dict[str, object]]:
    """From the end of an upload to a waiting worker holding its task, over S3, SNS and SQS."""
    took = []
    for number in range(15):
        held: list[float] = []

        def wait(held: list[float] = held) -> None:
            for delivery in backend.queues["hevc"].receive(1, wait_s=20, stop=NEVER):
                held.append(time.perf_counter())
                backend.queues["hevc"].ack(delivery)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        began = time.perf_counter()
        clients.s3.put_object(Bucket="bench-in", Key=f"TODO/hevc/{number}.mp4", Body=b"video")
        thread.join()
        took.append(held[0] - began)
    return [row("upload to task in a waiting worker, median, on moto", median(took) * 1e3, "ms")]


def transfers(backend: Backend, clients: Clients, folder: Path) -> list[dict[str, object]]:
    """Upload and download of one large file, beside boto3's own transfer manager."""
    path, back = folder / "large.mp4", folder / "back.mp4"
    up: dict[str, list[tuple[float, float]]] = {"ours": [], "boto3": []}
    down: dict[str, list[tuple[float, float]]] = {"ours": [], "boto3": []}
    stream: dict[str, list[tuple[float, float]]] = {"ours": [], "boto3": []}
    for number in range(3):
        path.write_bytes(os.urandom(TRANSFER_MIB << 20))
        key = f"TODO/hevc/large-{number}.mp4"
        sources: list[Source] = []

        def accept(key: str = key, sources: list[Source] = sources) -> None:
            sources.append(backend.store.accept(path, key, moved=lambda _n: None, stop=NEVER))

        def fetch(sources: list[Source] = sources) -> None:
            with backend.store.fetch(sources[0], folder, moved=lambda _n: None, stop=NEVER):
                pass

        up["ours"].append(timed(accept))
        up["boto3"].append(
            timed(lambda key=key: clients.s3.upload_file(str(path), "bench-out", f"b/{key}"))
        )
        down["ours"].append(timed(fetch))
        down["boto3"].append(
            timed(lambda key=key: clients.s3.download_file("bench-out", f"b/{key}", str(back)))
        )
        copy = f"b/{key}"
        stream["ours"].append(timed(lambda copy=copy: drained(backend.store.open(copy))))
        stream["boto3"].append(
            timed(
                lambda copy=copy: drained(
                    clients.s3.get_object(Bucket="bench-out", Key=copy)["Body"]
                )
            )
        )
    rows = []
    for name, found in (("upload", up), ("download", down), ("streamed download", stream)):
        ours, plain = found["ours"], found["boto3"]
        rate = TRANSFER_MIB / median(w for w, _ in ours)
        rows += [
            row(f"{name}, on moto", rate, "MiB/s"),
            row(
                f"{name} time, ratio to boto3's", ratio([w for w, _ in ours], [w for w, _ in plain])
            ),
            row(
                f"{name} CPU, ratio to boto3's", ratio([c for _, c in ours], [c for _, c in plain])
            ),
        ]
    return rows


def drained(body: Any) -> None:
    """Read a stream to its end, as who copies it does."""
    while body.read(STREAM_READ):
        pass
    body.close()


def idle(backend: Backend, clients: Clients) -> list[dict[str, object]]:
    """Receive calls of one slot that waits for work that never comes, and their price a month."""
    queue = backend.queues["hevc"]
    while found := queue.receive(10, wait_s=1, stop=NEVER):  # the events of earlier uploads
        for delivery in found:
            queue.ack(delivery)
    calls: list[float] = []
    clients.polls.meta.events.register(
        "before-call.sqs.ReceiveMessage", lambda **_asked: calls.append(time.monotonic())
    )
    end = time.monotonic() + IDLE_S
    while time.monotonic() < end:
        assert queue.receive(1, wait_s=20, stop=NEVER) == []
    per_minute = 60 * (len(calls) - 1) / (calls[-1] - calls[0])
    month = per_minute * 60 * 24 * 30 / 1e6 * SQS_PER_MILLION
    return [
        row("idle receive calls a minute, a slot and queue", per_minute, "/min", 3.2),
        row("idle receive calls, price of a month", month, "USD"),
    ]


def memory(aws: AwsSettings, folder: Path) -> list[dict[str, object]]:
    """Resident memory of a worker process that waits."""
    own = {f"HEVCQ_AWS__{n.upper()}": str(v) for n, v in aws.model_dump().items()}
    environment = {**os.environ, **own, "HEVCQ_BACKEND": "aws", "HEVCQ_DATA_DIR": str(folder / "w")}
    child = subprocess.Popen(
        [str(Path(sys.executable).with_name("hevcq")), "worker", "hevc", "--workers", "1"],
        env={**environment, "HEVCQ_PROFILES_DIR": str(only_hevc(folder))},
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(8)
        text = (Path("/proc") / str(child.pid) / "status").read_text()
        kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
    finally:
        child.kill()
        child.wait()
    return [row("resident memory of a waiting worker", kib / 1024, "MiB")]


def only_hevc(folder: Path) -> Path:
    """Return a folder with that one profile, whose queue is there."""
    made = folder / "profiles"
    made.mkdir()
    (made / "hevc.yaml").write_text((ROOT / "workers" / "hevc.yaml").read_text())
    return made


def encoding(folder: Path) -> list[dict[str, object]]:
    """Core-seconds a frame of the shipped recipes on 1080p, and what a video hour costs by them."""
    video = clip(folder, 8, "1920x1080")
    rows = []
    small = ["-vf", "scale=1280:720"]
    recipes = {
        "hevc (x265 medium, 1080p)": ["libx265", "-preset", "medium", "-crf", "24"],
        "720p (x264 medium, from 1080p)": ["libx264", "-preset", "medium", "-crf", "22", *small],
    }
    for name, words in recipes.items():
        command = ["ffmpeg", "-nostdin", "-v", "error", "-ss", "3", "-i", str(video), "-an"]
        command += ["-frames:v", str(FRAMES), "-c:v", *words, "-f", "null", "-"]
        core_s = run(command).cpu_s / FRAMES
        hours = core_s * FRAMES_PER_VIDEO_HOUR / 3600
        price = hours * (VCPU_HOUR + GB_HOUR * TASK_GB / TASK_VCPU)
        rows += [
            row(f"{name}: core-seconds a frame", core_s, "s"),
            row(f"{name}: vCPU-hours of a video hour", hours, "h"),
            row(f"{name}: price of a video hour on demand", price, "USD"),
        ]
    print(f"encoded: {'a real clip' if video.parent == MEDIA else 'a generated clip'}")
    return rows


def task(number: int) -> Task:
    source = Source(bucket="bench-in", key=f"TODO/all/{number}.mp4", version="v", size=1)
    return Task(source=source, profile="hevc")


def median(values: Any) -> float:
    return statistics.median(values)


def row(
    figure: str, value: float, unit: str = "x", limit: float | None = None
) -> dict[str, object]:
    return {"figure": figure, "value": value, "unit": unit, "limit": limit}


if __name__ == "__main__":
    sys.exit(main())
