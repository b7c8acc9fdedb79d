"""What the embedded queue costs, as ratios measured in one interleaved run.

Run as `python benchmarks/queue_bench.py [--rounds N] [--backlog N]`: prints a table and writes
benchmarks/out/queue.json. Exits 1 when a target is missed. Works in a temporary folder (TMPDIR).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.util.clock import SystemClock
from hevcq.domain.job import Source, Task
from hevcq.domain.profile import Profile, QueueNumbers, Video, VideoCodec
from hevcq.backends.embedded.database import DATABASE, Database
from hevcq.backends.embedded.factory import EmbeddedBackend, open_embedded
from hevcq.ports.queue import Delivery, Queue
from hevcq.settings.model import Settings

OUT = Path(__file__).resolve().parent / "out" / "queue.json"
STOP = threading.Event()
PROFILE = Profile(
    name="hevc",
    description="for measuring",
    video=Video(codec=VideoCodec.HEVC, crf=28.0),
    queue=QueueNumbers(max_receives=1000),
)
SMALL = 1_000


def task(number: int) -> Task:
    source = Source(bucket="library", key=f"TODO/all/{number}.mp4", version="1-2-3", size=1)
    return Task(source=source, profile="hevc")


@contextmanager
def backend(folder: Path, name: str) -> Iterator[EmbeddedBackend]:
    settings = Settings(data_dir=folder / name)
    opened = open_embedded(settings, {"hevc": PROFILE}, SystemClock())
    try:
        yield opened
    finally:
        opened.close()


def one(queue: Queue) -> Delivery:
    return queue.receive(1, wait_s=0, stop=STOP)[0]


def measured(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return (wall, CPU) seconds of one round."""
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(rounds):
        work()
    return (time.perf_counter() - began) / rounds, (time.process_time() - cpu) / rounds


class Bare:
    """The floor: three sqlite3 statements, each a commit of its own, as durable as hevcq's."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(
            "CREATE TABLE q (id INTEGER PRIMARY KEY, state INTEGER, at REAL, body TEXT)"
        )
        self.connection.execute("CREATE INDEX ready ON q (id) WHERE state = 0")
        self.body = task(0).body()

    def round(self) -> None:
        execute = self.connection.execute
        execute("INSERT INTO q (state, at, body) VALUES (0, 0, ?)", (self.body,))
        row = execute(
            "UPDATE q SET state = 1, at = ? WHERE id = (SELECT id FROM q WHERE state = 0 "
            "ORDER BY id LIMIT 1) RETURNING id, body",
            (time.time(),),
        ).fetchone()
        execute("DELETE FROM q WHERE id = ?", (row[0],))


def cycle(folder: Path, rounds: int) -> dict[str, float]:
    """Interleave send+claim+ack with the bare loop, a chunk of each at a time."""
    bare = Bare(folder / "bare.db")
    hevcq: list[tuple[float, float]] = []
    floor: list[tuple[float, float]] = []
    with backend(folder, "cycle") as opened:
        queue = opened.backend.queues["hevc"]

        def work() -> None:
            queue.send([task(1)])
            queue.ack(one(queue))

        for _ in range(10):
            hevcq.append(measured(work, rounds // 10))
            floor.append(measured(bare.round, rounds // 10))
    bare.connection.close()
    wall = statistics.median(w for w, _ in floor) / statistics.median(w for w, _ in hevcq)
    cpu = statistics.median(c for _, c in floor) / statistics.median(c for _, c in hevcq)
    return {
        "cycle_us": statistics.median(w for w, _ in hevcq) * 1e6,
        "cycle_cpu_us": statistics.median(c for _, c in hevcq) * 1e6,
        "bare_us": statistics.median(w for w, _ in floor) * 1e6,
        "cycle_speed_vs_bare": wall,
        "cycle_cpu_speed_vs_bare": cpu,
        "cycles_per_cpu_s": 1 / statistics.median(c for _, c in hevcq),
    }


def fill(path: Path, count: int) -> None:
    """Put `count` messages into the table as `send` would, without paying for each."""
    database = Database(path / DATABASE)
    body = task(7).body()
    sql = (
        "INSERT INTO message (queue, state, turn, visible_at, grp, sent_at, body) "
        "VALUES ('hevc', 0, 1, 0, '', 0, ?)"
    )
    database.write(lambda c: c.executemany(sql, ((body,) for _ in range(count))))
    database.close()


def claims(folder: Path, rounds: int, backlog: int) -> dict[str, float]:
    """Claim from a short and a long backlog in turn; the claim alone is measured."""
    costs: dict[str, list[float]] = {"small": [], "large": []}
    depth_s = 0.0
    for name, count in (("small", SMALL), ("large", backlog)):
        with backend(folder, name):
            fill(folder / name, count)
    before = rss()
    with backend(folder, "small") as small, backend(folder, "large") as large:
        queues = {"small": small.backend.queues["hevc"], "large": large.backend.queues["hevc"]}
        for turn in range(rounds):
            for name, queue in queues.items():
                began = time.perf_counter()
                delivery = one(queue)
                took = time.perf_counter() - began
                if turn >= rounds // 10:
                    costs[name].append(took)
                queue.release(delivery) if turn % 2 else queue.ack(delivery)
            if turn % 200 == 0:
                queues["small"].send([task(number) for number in range(100)])
        depth_s, _ = measured(queues["large"].depth, 5)
    small_s, large_s = (statistics.median(costs[name]) for name in ("small", "large"))
    return {
        "claim_small_us": small_s * 1e6,
        "claim_large_us": large_s * 1e6,
        "claim_large_vs_small": large_s / small_s,
        "depth_of_large_ms": depth_s * 1e3,
        "rss_growth_mib": (rss() - before) / 1024,
    }


def together(folder: Path, rounds: int) -> dict[str, float]:
    """Eight threads that send at once share fsyncs: how many sends one durable commit carries."""
    with backend(folder, "together") as opened:
        queue = opened.backend.queues["hevc"]
        alone, _ = measured(lambda: queue.send([task(1)]), rounds)

        def work() -> None:
            for number in range(rounds):
                queue.send([task(number)])

        threads = [threading.Thread(target=work) for _ in range(8)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shared = (time.perf_counter() - began) / (8 * rounds)
    return {"send_alone_us": alone * 1e6, "send_of_8_threads_vs_alone": shared / alone}


def wakeup(folder: Path, rounds: int) -> dict[str, float]:
    """From the start of a send to a waiting consumer of the same process holding the task."""
    took: list[float] = []
    with backend(folder, "wakeup") as opened:
        queue = opened.backend.queues["hevc"]
        held: list[float] = []
        ready = threading.Semaphore(0)

        def consume() -> None:
            for _ in range(rounds):
                ready.release()
                (delivery,) = queue.receive(1, wait_s=20, stop=STOP)
                held.append(time.perf_counter())
                queue.ack(delivery)

        consumer = threading.Thread(target=consume)
        consumer.start()
        for number in range(rounds):
            ready.acquire()
            time.sleep(0.005)
            began = time.perf_counter()
            queue.send([task(number)])
            while len(held) <= number:
                time.sleep(0.0002)
            took.append(held[number] - began)
        consumer.join()
    return {
        "send_to_held_p50_ms": statistics.median(took) * 1e3,
        "send_to_held_p95_ms": statistics.quantiles(took, n=20)[-1] * 1e3,
    }


def idle(folder: Path, seconds: float) -> dict[str, float]:
    """CPU share of four consumers that wait for work that never comes."""
    with backend(folder, "idle") as opened:
        queue, stop = opened.backend.queues["hevc"], threading.Event()
        waiting = [
            threading.Thread(target=lambda: queue.receive(1, wait_s=seconds, stop=stop))
            for _ in range(4)
        ]
        cpu = time.process_time()
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        share = (time.process_time() - cpu) / seconds
    return {"idle_core_share_of_4_consumers": share}


def rss() -> int:
    """Return the peak resident size in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


TARGETS = {
    "cycle_speed_vs_bare": (">=", 0.4),
    "claim_large_vs_small": ("<=", 1.2),
    "send_to_held_p50_ms": ("<=", 50.0),
    "idle_core_share_of_4_consumers": ("<=", 0.005),
    "rss_growth_mib": ("<=", 20.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--idle-s", type=float, default=10.0)
    parser.add_argument("--json", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hevcq-bench-") as name:
        folder = Path(name)
        found = {
            **cycle(folder, options.rounds),
            **together(folder, options.rounds // 4),
            **wakeup(folder, max(20, options.rounds // 10)),
            **idle(folder, options.idle_s),
            **claims(folder, options.rounds * 2, options.backlog),
        }
    missed, rows = 0, []
    for measure, value in found.items():
        sign, target = TARGETS.get(measure, ("", 0.0))
        row: dict[str, object] = {"figure": f"queue: {measure}", "value": value}
        rows.append(
            {**row, "limit": target, "sense": "≥" if sign == ">=" else "≤"} if sign else row
        )
        met = not sign or (value >= target if sign == ">=" else value <= target)
        missed += not met
        wanted = f"{sign} {target:g} {'ok' if met else 'MISSED'}" if sign else ""
        print(f"{measure:34} {value:12.4f}  {wanted}")
    machine = f"{os.cpu_count()} cores, {platform.platform()}, SQLite {sqlite3.sqlite_version}"
    print(machine)
    report = {
        "benchmark": "queue",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "python": sys.version.split()[0],
        "backlog": options.backlog,
        "cores": os.cpu_count(),
        "rows": rows,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
