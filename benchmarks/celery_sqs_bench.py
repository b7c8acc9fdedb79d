"""Messages a second of one Celery worker over SQS beside one hevcq consumer, on the same emulator.

Run as `python benchmarks/celery_sqs_bench.py`. Celery lives in a virtual environment of its own
under benchmarks/out; where it cannot be installed, the comparison is skipped with the reason.
Both take messages that wait already. Celery receives ten at a time and acknowledges each as soon as
it is taken; hevcq takes one at a time and deletes it after its work, and still claims and completes
each job in the ledger, which Celery has nothing like.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.aws_control_bench import median, row, task
from benchmarks.aws_farm import emulator, opened
from benchmarks.measured import OUT, ratio, report
from hevcq.backends.aws.clients import make_clients
from hevcq.ports.backend import Backend
from hevcq.settings.profile_files import load_profiles
from hevcq.settings.model import AwsSettings

MESSAGES = 100
"""Ten receives of Celery, so that the ten of one batch weigh little."""
ROUNDS = 3
_numbers = itertools.count()
APP = """
import sys, time
from pathlib import Path
from celery import Celery
endpoint, url, marks = {endpoint!r}, {url!r}, Path({marks!r})
app = Celery("peer", broker="sqs://bench:bench@")
app.conf.update(
    task_ignore_result=True, worker_prefetch_multiplier=10, task_default_queue="peer",
    broker_transport_options={{"region": "eu-central-1", "is_secure": False, "wait_time_seconds": 1,
        "predefined_queues": {{"peer": {{"url": url, "access_key_id": "bench",
            "secret_access_key": "bench", "region": "eu-central-1"}}}}}})
@app.task
def nothing(number):
    with marks.open("a") as file:
        file.write(f"{{time.time()}}\\n")
if __name__ == "__main__":
    for number in range({messages}):
        nothing.delay(number)
"""


def peer_python() -> Path | None:
    """Return the Python of an environment that has Celery, or None where it cannot be made."""
    folder = OUT / "celery"
    python = folder / "bin" / "python"
    if not (folder / "bin" / "celery").exists():
        OUT.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "celery[sqs]"], check=False
        )
        if done.returncode:
            return None
    return python


def celery_rate(python: Path, endpoint: str, url: str) -> float:
    """Return the messages a second of one Celery worker with one slot."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        marks = folder / "marks"
        (folder / "peer.py").write_text(
            APP.format(endpoint=endpoint, url=url, marks=str(marks), messages=MESSAGES)
        )
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL": endpoint,
        }
        subprocess.run([str(python), "peer.py"], cwd=folder, env=environment, check=True)
        worker = subprocess.Popen(
            [str(python), "-m", "celery", "-A", "peer", "worker", "-P", "solo", "-l", "ERROR"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 120
            while time.monotonic() < end:
                times = marks.read_text().split() if marks.exists() else []
                if len(times) >= MESSAGES:
                    break
                time.sleep(0.1)
        finally:
            worker.terminate()
            worker.wait(timeout=30)
        seen = [float(mark) for mark in marks.read_text().split()]
    if len(seen) < MESSAGES:
        raise SystemExit(f"Celery worked on {len(seen)} of {MESSAGES} messages in two minutes.")
    return (len(seen) - 1) / (seen[-1] - seen[0])


def hevcq_rate(backend: Backend, *, ledger: bool) -> float:
    """Return the messages a second of one consumer: receive, with `ledger` claim and end, delete."""
    queue, never = backend.queues["hevc"], threading.Event()
    queue.send([task(next(_numbers)) for _ in range(MESSAGES)])
    began = time.perf_counter()
    for _ in range(MESSAGES):
        (delivery,) = queue.receive(1, wait_s=1, stop=never)
        if ledger:
            job = delivery.tasks[0]
            claim = backend.ledger.claim(job.source, "hevc", owner="bench", lease_s=300)
            backend.ledger.skip(job.job_id, claim.fence, "bench")  # type: ignore[union-attr]
        assert queue.ack(delivery)
    seconds = time.perf_counter() - began
    return MESSAGES / seconds


def main() -> int:
    """Measure, print, write."""
    python = peer_python()
    if python is None:
        print("skipped: celery[sqs] cannot be installed here")
        return 0
    with emulator() as endpoint, tempfile.TemporaryDirectory() as name:
        clients = make_clients(AwsSettings(region="eu-central-1", endpoint_url=endpoint))
        url = clients.sqs.create_queue(QueueName="peer")["QueueUrl"]
        profiles = {"hevc": load_profiles(ROOT / "workers")["hevc"]}
        backend, _, _ = opened(endpoint, profiles, Path(name))
        # Interleaved, so that what else the machine does meets all three.
        rounds = [
            (
                celery_rate(python, endpoint, url),
                hevcq_rate(backend, ledger=False),
                hevcq_rate(backend, ledger=True),
            )
            for _ in range(ROUNDS)
        ]
        backend.close()
    theirs, alone, ours = ([each[n] for each in rounds] for n in range(3))
    return report(
        "celery",
        [
            row("Celery over SQS on moto, one slot", median(theirs), "1/s"),
            row("hevcq over SQS on moto, one slot", median(alone), "1/s"),
            row("hevcq over SQS and DynamoDB on moto, one slot", median(ours), "1/s"),
            row("hevcq / Celery, both without a ledger", ratio(alone, theirs)),
            row("hevcq / Celery, with a ledger against without", ratio(ours, theirs)),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
