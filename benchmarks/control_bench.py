"""What the control plane costs: from an enqueue to the first exec, and whole jobs with no media work.

Run as `python benchmarks/control_bench.py [JOBS]`. The floor, one fdatasync and one spawn of the
same stub program, is measured between the jobs. A child is started through setpriv, which ties it
to its worker; how much later the program itself is opened for its exec is shown as well.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]
from benchmarks.measured import report
from support.fakes.encoder import FakeEncoder

from hevcq.util import log
from hevcq.domain.job import SETTLED
from hevcq.domain.keys import key_for_path
from hevcq.ffmpeg.process import child as process
from hevcq.settings.model import Settings
from hevcq.wiring.app import App
from hevcq.wiring.worker import build_pool

STUB = "#!/bin/sh\nexit 1\n"


def settings(folder: Path, stub: Path, workers: int) -> Settings:
    """Return settings of a fresh data folder whose ffmpeg and ffprobe are the stub."""
    return Settings(
        data_dir=folder,
        ffmpeg=str(stub),
        ffprobe=str(stub),
        workers=workers,
        min_free_mib=0,
        log_level="error",
    )


class Stamps:
    """The times at which this process's children had been started: Popen returns after the exec.

    A file's time would not do: the kernel stamps files by its tick, up to 4 ms coarse.
    """

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._plain = subprocess.Popen

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        child = self._plain(*arguments, **options)
        self.seen.append(time.perf_counter())
        return child

    def first_since(self, began: float) -> float:
        return next(at for at in self.seen if at >= began) - began


OPENINGS = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(0)
libc.inotify_add_watch(watch, os.fsencode(sys.argv[1]), 0x20)
print(flush=True)
while True:
    os.read(watch, 4096)
    print(time.perf_counter(), flush=True)
"""
"""Prints the time of each opening of a file, from a process of its own: it disturbs no interpreter."""


class Openings:
    """When the stub was opened: the kernel opens a program as the first step of its exec."""

    def __init__(self, stub: Path) -> None:
        argv = [sys.executable, "-c", OPENINGS, str(stub)]
        self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0)
        assert self._child.stdout is not None
        self._out = self._child.stdout
        self._out.readline()

    def first_since(self, began: float) -> float:
        # On a busy machine the watching process may be late, though its times are not.
        while select.select([self._out], [], [], 30.0)[0]:
            seen = [float(line) for line in os.read(self._out.fileno(), 65_536).split()]
            for at in seen:
                if at >= began:
                    return at - began
        raise SystemExit("nobody opened the stub")

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


def floor(folder: Path, stub: Path) -> float:
    """Return the seconds of one fdatasync of a small write, and one spawn of the stub."""
    began = time.perf_counter()
    with (folder / "floor").open("ab") as file:
        file.write(b"x" * 512)
        file.flush()
        os.fdatasync(file.fileno())
    child = subprocess.Popen([str(stub)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    child.wait()
    return seconds


def latency(folder: Path, jobs: int) -> dict[str, list[float]]:
    """Return the seconds from enqueue to the first child's start and to the first program's own
    exec, and the floor beside each."""
    stub = folder / "bin" / "stub"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    app = App(settings(folder / "data", stub, 1))
    app.encoder.version = lambda: "stub"  # type: ignore[method-assign]
    pool = build_pool(app, ["hevc"])
    pool.start()
    seen: dict[str, list[float]] = {"enqueue": [], "program": [], "floor": []}
    stamps, openings = Stamps(), Openings(stub)
    process.subprocess.Popen = stamps  # type: ignore[misc,assignment]
    for number in range(jobs):
        path = folder / f"{number}.mp4"
        path.write_bytes(os.urandom(64))
        source = app.backend.store.accept(
            path, key_for_path(str(path)), moved=lambda _: None, stop=threading.Event()
        )
        began = time.perf_counter()
        (job,) = app.backend.task_publisher.publish(source, ["hevc"], announced=False)
        # Asleep meanwhile: a thread that looks would take the interpreter from the worker.
        settle(app, job.job_id)
        seen["enqueue"].append(stamps.first_since(began))
        seen["program"].append(openings.first_since(began))
        seen["floor"].append(floor(folder, stub))
    process.subprocess.Popen = stamps._plain  # type: ignore[misc]
    openings.close()
    end(app, pool)
    return seen


def settle(app: App, job_id: str) -> None:
    """Wait until a job has ended."""
    while True:
        time.sleep(0.02)
        record = app.backend.ledger.get(job_id)
        if record is not None and record.state in SETTLED:
            return


def end(app: App, pool: object) -> None:
    """Stop the pool in order and close the app."""
    pool.insist()  # type: ignore[attr-defined]
    while not pool.stopped:  # type: ignore[attr-defined]
        pool.step()  # type: ignore[attr-defined]
        time.sleep(0.01)
    pool.finish()  # type: ignore[attr-defined]
    app.close()


def whole_jobs(folder: Path, jobs: int) -> dict[str, float]:
    """Return whole jobs per wall and per CPU second, with an encoder that does nothing."""
    app = App(settings(folder / "data", Path("/bin/true"), 2))
    app.__dict__["encoder"] = FakeEncoder()
    pool = build_pool(app, ["hevc"])
    paths = []
    for number in range(jobs):
        path = folder / f"{number}.mp4"
        path.write_bytes(os.urandom(4096))
        paths.append(path)
    began, cpu = time.perf_counter(), cpu_s()
    pool.start()
    last = ""
    for path in paths:
        source = app.backend.store.accept(
            path, key_for_path(str(path)), moved=lambda _: None, stop=threading.Event()
        )
        last = app.backend.task_publisher.publish(source, ["hevc"], announced=False)[0].job_id
    settle(app, last)
    while (
        sum(n for (_, state), n in app.backend.ledger.counts().items() if state in SETTLED) < jobs
    ):
        time.sleep(0.005)
    wall, used = time.perf_counter() - began, cpu_s() - cpu
    done = {state.value: n for (_, state), n in app.backend.ledger.counts().items()}
    end(app, pool)
    if done.get("done") != jobs:
        raise SystemExit(f"the stub jobs did not all end as done: {done}")
    return {"wall": jobs / wall, "cpu": jobs / used}


def cpu_s() -> float:
    """Return this process's CPU seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure, print, write, judge."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    log.configure("error")
    folder = Path(tempfile.mkdtemp(prefix="hevcq-bench-"))
    try:
        for name in ("latency", "jobs"):
            (folder / name).mkdir()
        seen = latency(folder / "latency", jobs)
        rates = whole_jobs(folder / "jobs", jobs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    base = statistics.median(seen["floor"])
    p50 = statistics.median(seen["enqueue"])
    program = statistics.median(seen["program"])
    return report(
        "control",
        [
            {"figure": "one fdatasync + one spawn, p50", "value": base * 1000, "unit": "ms"},
            {"figure": "enqueue to first exec, p50", "value": p50 * 1000, "unit": "ms"},
            {"figure": "enqueue to first exec / floor", "value": p50 / base, "limit": 3.0},
            {"figure": "enqueue to the program behind setpriv / floor", "value": program / base},
            {
                "figure": "whole jobs with a stub encoder, per wall second",
                "value": rates["wall"],
                "unit": "1/s",
            },
            {
                "figure": "whole jobs with a stub encoder, per CPU second",
                "value": rates["cpu"],
                "unit": "1/s",
            },
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
