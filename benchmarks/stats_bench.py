"""Measure the space and the time of the statistics: a year of 10,000 files a day.

Run as `python benchmarks/stats_bench.py`. Each file is a job that ended and a replacement. Single
events are kept for a week and summed up by day; the sums of the weeks before are written as the days
of so many libraries, profiles and codecs would leave them. Exits 1 above the limits.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hevcq.backends.embedded.catalog import SqliteCatalog
from hevcq.backends.embedded.database import Database
from hevcq.backends.embedded.event_log import SqliteEventLog
from hevcq.ports.event_log import DayKey, DaySum, Happened
from hevcq.usecases.history.report import day_of, report
from hevcq.usecases.history.roll_up import DAY_S, READER, RollUp
from hevcq.util.clock import SystemClock

FILES, DAYS, KEPT_DAYS = 10_000, 365, 8
LIBRARIES, PROFILES, CODECS = 6, ("hevc", "720p", "1080p"), ("h264", "mpeg2video", "vc1", "mpeg4")
CLASSES = ("damaged", "unsupported", "verification", "encoder")
MOST_MIB, MOST_MS = 200.0, 50.0


def main() -> int:
    """Fill a database, and print its size and the times of reports."""
    clock, now = SystemClock(), time.time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hevcq.db"
        database = Database(path)
        log, empty = SqliteEventLog(database, clock), path.stat().st_size
        today = int(now // DAY_S)
        reader = log.reader(READER, from_start=True)
        for number, day in enumerate(range(today - DAYS, today - KEPT_DAYS), 1):
            log.roll_up(replace(reader, seq=number), _sums(day))
        log.end(replace(reader, seq=0))
        for day in range(today - KEPT_DAYS, today):
            log.add_missing([_event(number, day * DAY_S) for number in range(2 * FILES)])
        began = time.process_time()
        roots = [Path(f"/lib/{number}") for number in range(LIBRARIES)]
        read = RollUp(log, SqliteCatalog(database, clock), lambda p: roots[len(p.name) % 6]).step()
        rolled = time.process_time() - began
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) - empty
        times = sorted(_report_ms(log, now, days) for days in (30, 90, DAYS) for _ in range(5))
        database.close()
    mib, slowest = size / 2**20, times[-1]
    print(f"{DAYS} days of {FILES} files: {mib:.0f} MiB (at most {MOST_MIB:.0f})")
    print(f"report: median {times[len(times) // 2]:.0f} ms, slowest {slowest:.0f} ms")
    print(f"summing up: {1000 * rolled / max(1, read) * FILES * 2 / 1000:.1f} s CPU a day")
    return 0 if mib <= MOST_MIB and times[len(times) // 2] <= MOST_MS else 1


def _sums(day: int) -> list[tuple[DayKey, DaySum]]:
    found = []
    each = FILES // (LIBRARIES * len(PROFILES) * len(CODECS))
    for number in range(LIBRARIES):
        root = Path(f"/lib/{number}")
        for profile in PROFILES:
            for codec in CODECS:
                for name in ("job.done", "video.replaced", "job.skipped"):
                    key = DayKey(day, name, root, profile, codec, "")
                    found.append((key, DaySum(each, each << 30, each << 29, each * 600.0)))
            for failure in CLASSES:
                key = DayKey(day, "job.failed", root, profile, "h264", failure)
                found.append((key, DaySum(1, 1 << 30, 0, 0.0)))
    return found


def _event(number: int, start: float) -> Happened:
    name = "job.done" if number % 2 else "video.replaced"
    file = (
        f"/lib/{number % LIBRARIES}/a folder of videos/Episode {number:06} {'x' * (number % 6)}.mkv"
    )
    source = f"TODO/all{file}" if number % 2 else file
    path = None if number % 2 else Path(file)
    return Happened(
        name,
        start + number * DAY_S / (2 * FILES),
        f"{number:032x}",
        PROFILES[number % 3],
        source,
        path,
        None if path is None else Path("/lib"),
        before=1 << 30,
        after=1 << 29,
        cpu_s=600.0,
    )


def _report_ms(log: SqliteEventLog, now: float, days: int) -> float:
    first, last = day_of(now) - timedelta(days=days), day_of(now)
    began = time.process_time()
    report(log, first, last, lambda key: str(key.root))
    return 1000 * (time.process_time() - began)


if __name__ == "__main__":
    sys.exit(main())
