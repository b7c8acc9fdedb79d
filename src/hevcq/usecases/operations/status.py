"""Overview of queues and ledger: queued, running, done and dead jobs."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hevcq.domain.job import JobRecord, JobState, split_progress
from hevcq.domain.pause import Hours
from hevcq.ports.backend import Backend
from hevcq.ports.ledger import JobFilter, Ledger
from hevcq.ports.queue import QueueDepth
from hevcq.sql.catalog import Catalog
from hevcq.usecases.operations.pausing import ClosedStatus, why_closed
from hevcq.util.clock import Clock
from hevcq.util.processes import rows
from hevcq.util.text import counted, printable


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One profile: numbers of messages in its queue, and of its jobs by state.

    `oldest_s` is seconds.
    """

    profile: str
    ready: int
    in_flight: int
    delayed: int
    dead_letters: int
    oldest_s: float | None
    jobs: dict[str, int]

    @property
    def is_used(self) -> bool:
        """Whether it has or had any work."""
        waiting = self.ready, self.in_flight, self.delayed, self.dead_letters
        return any(waiting) or any(self.jobs.values())


@dataclass(frozen=True, slots=True)
class RunningStatus:
    """One running job; for a split video also its chunks and how many are done.

    `percent` is that of the phase, 0 to 100; `speed` is 1 at real time. `alive` is whether a worker
    holds it: one that was killed leaves it running in the ledger until another worker takes it up.
    """

    job_id: str
    profile: str
    key: str
    phase: str
    percent: float
    speed: float | None
    eta_s: float | None
    owner: str
    chunks: int = 0
    chunks_done: int = 0
    alive: bool = True
    bucket: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """The status at one moment (`at` in wall seconds).

    `workers` is the number of worker processes on this data folder, None for a fleet; `closed` says
    why work may not begin now.
    """

    at: float
    queues: tuple[QueueStatus, ...]
    running: tuple[RunningStatus, ...]
    workers: int | None = None
    closed: tuple[ClosedStatus, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {"type": "status", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine says of its own work.

    `workers` is the number of its worker processes, None for a fleet. `hours` and `condition` may hold
    work back as a pause does; `unfit` says which profiles its ffmpeg cannot make, and why.
    """

    workers: int | None = None
    hours: Hours = field(default_factory=Hours)
    condition: str = ""
    unfit: Mapping[str, str] = field(default_factory=dict)


def overview(backend: Backend, clock: Clock, here: Here, *, limit: int) -> Overview:
    """Count every queue and state, and list at most `limit` running jobs.

    Raises StorageError or Unavailable.
    """
    counts = backend.ledger.counts()
    queues = []
    for name in sorted({*backend.queues, *(profile for profile, _ in counts)}):
        # Jobs of a removed profile are still shown.
        known = name in backend.queues
        depth = backend.queues[name].depth() if known else QueueDepth(0, 0, 0, 0)
        queues.append(
            QueueStatus(
                profile=name,
                ready=depth.ready,
                in_flight=depth.in_flight,
                delayed=depth.delayed,
                dead_letters=depth.dead,
                oldest_s=depth.oldest_s,
                jobs={state.value: counts.get((name, state), 0) for state in JobState},
            )
        )
    jobs = backend.ledger.jobs(JobFilter(states=frozenset({JobState.RUNNING, JobState.SPLIT})))
    running = tuple(_running(backend, job, clock.now()) for job in itertools.islice(jobs, limit))
    shut = why_closed(
        backend.ledger, backend.queues, here.hours, clock.now(), here.condition, here.unfit
    )
    return Overview(clock.now(), tuple(queues), running, here.workers, shut)


def encoded_since(ledger: Ledger, since: float) -> float:
    """Return the CPU seconds of the jobs that were done since then (wall seconds)."""
    done = ledger.jobs(JobFilter(states=frozenset({JobState.DONE}), updated_after=since))
    return sum(job.cpu_s or 0.0 for job in done)


def jobs_of(
    backend: Backend, catalog: Catalog, names: Sequence[str], unknown: list[str] | None = None
) -> Iterator[JobRecord]:
    """Yield the jobs of paths, folders, keys or job ids, each once.

    Names without a job are added to `unknown`.
    """
    from hevcq.usecases.operations.reprocess import (
        jobs_named,  # a plain `hevcq status` starts without it
    )

    seen: set[str] = set()
    for name in names:
        known = False
        for job in jobs_named(backend, name, catalog):
            known = True
            if job.job_id not in seen:
                seen.add(job.job_id)
                yield job
        if not known and unknown is not None:
            unknown.append(name)


def reason_in_words(job: JobRecord) -> str:
    """Return the reason for a job's state, of a finished one what its rendition lacks, or ""."""
    if job.state is JobState.DONE and job.rendition is not None:
        return " ".join(job.rendition.notices)
    from hevcq.domain.planning.encode_plan import skip_in_words

    return skip_in_words(job.reason)[1]


def _running(backend: Backend, job: JobRecord, now: float) -> RunningStatus:
    parts = backend.ledger.subjobs(job.job_id) if job.split is not None else [job]
    shared = split_progress(job, parts) if job.split is not None else None
    progress = shared.progress if shared is not None else job.progress
    alive = any(each.state is JobState.RUNNING and each.lease_until > now for each in parts)
    return RunningStatus(
        job_id=job.job_id,
        profile=job.profile,
        key=job.source.key,
        bucket=job.source.bucket,
        phase=progress.phase.value if progress else "",
        percent=progress.percent if progress else 0.0,
        speed=progress.speed if progress and alive else None,
        eta_s=progress.eta_s if progress and alive else None,
        owner=job.owner,
        chunks=shared.chunks if shared is not None else 0,
        chunks_done=shared.done if shared is not None else 0,
        alive=alive,
    )


def library_rows(data_dir: Path) -> list[Mapping[str, Any]]:
    """Return what waits in the libraries that running processes watch."""
    return [each for row in rows(data_dir) for each in row.get("waiting", ())]


def library_words(row: Mapping[str, Any]) -> str:
    """Return what waits in one library, and why: `2 videos waiting; it may run only at night.`"""
    name = printable(row["library"])
    why = row["reason"].removeprefix(f"Library {name} ")
    return f"{counted(row['waiting'], 'video')} waiting; " + (
        f"it {why}" if why else "queued a few at a time."
    )
