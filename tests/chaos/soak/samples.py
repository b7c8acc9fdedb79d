"""What a worker process and its data folder hold at a moment, and whether that stays flat."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One look. Sizes are in KiB, `at_s` counts from the beginning."""

    at_s: float
    descriptors: int
    rss_kib: int
    children: int
    threads: int
    temp_files: int
    database_kib: int
    wal_kib: int
    log_kib: int
    jobs: int


@dataclass(frozen=True)
class Bound:
    """How far the last third of a run may lie above its second one: a number, a share, or so much
    for each thousand jobs done between them, whichever is most."""

    most: float
    share: float = 0.0
    a_thousand_jobs: float = 0.0


BOUNDS = {
    "descriptors": Bound(most=3),
    "rss_kib": Bound(most=4096, share=0.05),
    "children": Bound(most=1),
    "threads": Bound(most=2),
    "temp_files": Bound(most=2),
    # The ledger keeps every job, and the log says some lines of each, both by design: what is
    # bounded is what one job may cost there.
    "database_kib": Bound(most=1024, a_thousand_jobs=4096),
    "wal_kib": Bound(most=8192),
    "log_kib": Bound(most=256, a_thousand_jobs=2048),
}


@dataclass(frozen=True)
class Verdict:
    """What one figure was at the beginning and the end, and whether it stayed flat."""

    name: str
    before: float
    after: float
    grew: float
    bound: float

    @property
    def flat(self) -> bool:
        return self.grew <= self.bound


def look(at_s: float, pid: int, folder: Path, jobs: int) -> Sample:
    """Take a sample of a process and of its data folder."""
    proc = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    return Sample(
        at_s=round(at_s, 1),
        descriptors=len(os.listdir(proc / "fd")),
        rss_kib=int(status["VmRSS"].split()[0]),
        children=_children(proc),
        threads=int(status["Threads"]),
        temp_files=temp_files(folder),
        database_kib=_kib(folder.glob("data/*.db")),
        wal_kib=_kib(folder.glob("data/*.db-wal")),
        log_kib=_kib(folder.glob("log")),
        jobs=jobs,
    )


def verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """Compare the median of the second third of a run with that of the last one.

    The first third is not looked at: caches fill and pools open there.
    """
    assert len(samples) >= 9, "too few samples for a verdict"
    third = len(samples) // 3
    earlier, later = samples[third : 2 * third], samples[2 * third :]
    jobs = _middle([s.jobs for s in later]) - _middle([s.jobs for s in earlier])
    found = []
    for field in fields(Sample):
        bound = BOUNDS.get(field.name)
        if bound is None:
            continue
        before = _middle([getattr(s, field.name) for s in earlier])
        after = _middle([getattr(s, field.name) for s in later])
        most = max(bound.most, bound.share * before, bound.a_thousand_jobs * jobs / 1000)
        first, last = getattr(samples[0], field.name), getattr(samples[-1], field.name)
        found.append(Verdict(field.name, first, last, round(after - before, 1), round(most, 1)))
    return found


def report(samples: Sequence[Sample]) -> dict[str, object]:
    """Return everything about a run, for JSON."""
    judged = verdicts(samples)
    return {
        "flat": all(verdict.flat for verdict in judged),
        "jobs": samples[-1].jobs,
        "minutes": round(samples[-1].at_s / 60, 1),
        "samples": len(samples),
        "figures": {v.name: asdict(v) | {"flat": v.flat} for v in judged},
        "first": asdict(samples[0]),
        "last": asdict(samples[-1]),
    }


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _children(proc: Path) -> int:
    found = 0
    for task in (proc / "task").iterdir():
        try:
            found += len((task / "children").read_text().split())
        except OSError:
            continue
    return found


def temp_files(folder: Path) -> int:
    """Count the files that jobs have in their scratch folders just now."""
    # A job's folder may go while it is read; os.walk passes over it, rglob does not.
    return sum(len(names) for _folder, _folders, names in os.walk(folder / "scratch"))


def _kib(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total // 1024
