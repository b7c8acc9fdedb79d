"""Overview of queues and ledger, the machines that encode, and lists and searches of jobs."""

import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hevcq.domain.job import JOB_ID, SETTLED, JobRecord, JobState, split_progress
from hevcq.domain.keys import UPLOADS, path_of_key
from hevcq.domain.schedule import Hours
from hevcq.domain.verdict import FailureClass
from hevcq.errors import UsageError
from hevcq.ports.backend import Backend, Machines, WorkerProcess
from hevcq.ports.ledger import JobFilter, Ledger, ListOrder
from hevcq.ports.queue import QueueDepth
from hevcq.settings.model import Settings
from hevcq.sql.catalog import Catalog
from hevcq.usecases.operations.pausing import ClosedStatus, why_closed
from hevcq.util.clock import Clock
from hevcq.util.processes import process_rows
from hevcq.util.text import counted, duration, printable


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One profile: the messages in its queue (the oldest waits `oldest_s` seconds), and its jobs by state."""

    profile: str
    ready: int
    in_flight: int
    delayed: int
    dead_letters: int
    oldest_s: float | None
    jobs: dict[str, int]

    @property
    def is_used(self) -> bool:
        waiting = self.ready, self.in_flight, self.delayed, self.dead_letters
        return any(waiting) or any(self.jobs.values())


@dataclass(frozen=True, slots=True)
class RunningStatus:
    """One running job; for a split video also its chunks and how many are done.

    `percent` is that of the phase, 0 to 100; `speed` is 1 at real time. `alive` is whether a worker holds
    the job: after a killed worker it stays running in the ledger until another worker claims it.
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

    `workers` is the number of worker processes on this data folder, None for a fleet. `closed` is why
    work may not begin now.
    """

    at: float
    queues: tuple[QueueStatus, ...]
    running: tuple[RunningStatus, ...]
    workers: int | None = None
    closed: tuple[ClosedStatus, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {"type": "status", **asdict(self)}


def workers_running(settings: Settings) -> int | None:
    """Return the number of worker processes on this data folder; None if workers may run elsewhere."""
    if settings.on_aws:
        return None
    here = sum(
        (bool(row.get("slots")) and not row["stopping"]) or bool(row.get("joined"))
        for row in process_rows(settings.data_dir)
    )
    return here if settings.backend == "embedded" else here or None


def overview(
    backend: Backend, clock: Clock, settings: Settings, condition: str, *, limit: int
) -> Overview:
    """Count every queue and state, and list at most `limit` running jobs.

    `closed` covers pauses and, except for a fleet, this machine's hours, its `condition` and the profiles
    that its ffmpeg cannot encode. Raises StorageError or Unavailable.
    """
    counts = backend.ledger.counts()
    queues = []
    for name in sorted({*backend.queues, *(profile for profile, _ in counts)}):
        # A removed profile has jobs but no queue.
        has_queue = name in backend.queues
        depth = backend.queues[name].depth() if has_queue else QueueDepth(0, 0, 0, 0)
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
    local, unfit = not settings.on_aws, dict[str, str]()
    for row in process_rows(settings.data_dir) if local else ():
        unfit |= row.get("unfit", {})
    hours = settings.schedule.hours() if local else Hours()
    shut = why_closed(
        backend.ledger, backend.queues, hours, clock.now(), condition if local else "", unfit
    )
    return Overview(clock.now(), tuple(queues), running, workers_running(settings), shut)


COST_WINDOW_S = 86_400.0
"""Seconds whose encodes' cost the overview ends with."""


def encoded_since(ledger: Ledger, since: float) -> float:
    """Return the CPU seconds of the jobs that ended as done since `since` (wall seconds)."""
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
    """Return the reason for a job's state; for a done job, its rendition's notices; or ""."""
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
    """Return the waiting videos of libraries, from the rows of the processes that watch them."""
    return [each for row in process_rows(data_dir) for each in row.get("waiting", ())]


def library_words(row: Mapping[str, Any]) -> str:
    """Return how many videos wait in a library, and why: `2 videos waiting; it may run only at night.`"""
    name = printable(row["library"])
    why = row["reason"].removeprefix(f"Library {name} ")
    return f"{counted(row['waiting'], 'video')} waiting; " + (
        f"it {why}" if why else "queued a few at a time."
    )


ON_AWS = (
    "On AWS, ECS runs the workers: `aws ecs describe-services` lists them, `hevcq status` shows what "
    "they encode."
)
NONE = "No machine works: start `hevcq worker` or `hevcq service` on one."


def machines_of(backend: Backend) -> Machines:
    """Return the list of machines. Raises UsageError on AWS, where ECS has it."""
    if backend.machines is None:
        raise UsageError(ON_AWS)
    return backend.machines


def machines(backend: Backend) -> list[dict[str, object]]:
    """Return every process that encodes, as `hevcq workers --json` prints it."""
    return [
        {
            "type": "worker",
            "name": each.facts.machine,
            **each.facts.model_dump(mode="json"),
            **each.model_dump(mode="json", exclude={"facts"}),
            "alive": each.alive,
            "joined": each.joined,
            "state": state_of(each),
        }
        for each in machines_of(backend).processes()
    ]


def state_of(each: WorkerProcess) -> str:
    if each.ended:
        return "drained, stopped" if each.drained_by else "stopped"
    if not each.alive:
        return f"silent for {duration(each.seen_s)}"
    if each.drained_by:
        return f"draining {counted(len(each.jobs), 'job')}" if each.jobs else "drained"
    return "works" if each.jobs else "waits" if each.facts.waits else "idle"


def drain(backend: Backend, name: str, by: str) -> None:
    """Stop a machine from taking new work; an empty `by` lets it work again.

    Raises UsageError for an unknown machine.
    """
    _processes_of(backend, name)
    machines_of(backend).drain(name, by)


def remove(backend: Backend, name: str) -> None:
    """Remove a machine's ended processes from the list. Raises UsageError if all of them still work."""
    ended = [each for each in _processes_of(backend, name) if not each.alive]
    if not ended:
        raise UsageError(f"{printable(name)} still works: stop hevcq there first.")
    for each in ended:
        machines_of(backend).remove(each.owner)


def _processes_of(backend: Backend, name: str) -> list[WorkerProcess]:
    processes = machines_of(backend).processes()
    if mine := [each for each in processes if each.facts.machine == name]:
        return mine
    names = sorted({printable(each.facts.machine) for each in processes})
    known = f"There are: {', '.join(names)}." if names else NONE
    raise UsageError(f"No machine {printable(name)}. {known}")


MAX_READ = 5_000
"""Most records read for one page; a search for rare words then shows a part, and how to go on."""
MAX_LOOKED_UP, AT_ONCE = 300, 50
"""The same for a page of one codec, and records for which the catalog is asked at once."""
UNDER_WAY = frozenset(JobState) - SETTLED
RETRY_HELPS = frozenset(FailureClass) - {
    FailureClass.DAMAGED, FailureClass.UNREADABLE, FailureClass.UNSUPPORTED, FailureClass.GONE,
    FailureClass.CHANGED, FailureClass.VERIFICATION, FailureClass.REVIEW, FailureClass.MESSAGE,
}  # fmt: skip
"""The causes of failures that a retry may overcome; the others come back until something changes."""
REMEDIES: dict[FailureClass, str] = {
    FailureClass.DAMAGED: "The file is damaged: replace it by an intact copy, or keep it as it is.",
    FailureClass.UNREADABLE: "It can't be read as a video: remove it, or keep it as it is.",
    FailureClass.UNSUPPORTED: "This profile can't hold it: choose another, or keep it as it is.",
    FailureClass.GONE: "The file is gone or its disk is not mounted: bring it back, then retry.",
    FailureClass.CHANGED: "The file changed since it was queued: the next ingest takes it up anew.",
    FailureClass.VERIFICATION: "The rendition failed a check and was discarded: look at the check below.",
    FailureClass.REVIEW: "Another rendition is in its place: look which of them is right.",
    FailureClass.MESSAGE: "Its message can't be read: forget it, and ingest the file again.",
    FailureClass.LIMIT: "It took longer or more than the profile allows: raise the bound, then retry.",
    FailureClass.MEMORY: "The machine ran out of memory: run fewer workers, then retry.",
    FailureClass.DISK: "Free disk space, then retry.",
    FailureClass.NETWORK: "Retry once the network or the store answers again.",
    FailureClass.CANCELLED: "Somebody cancelled it; retry it if it is wanted after all.",
    FailureClass.WORKER: "The machine can't do it: see “Check this machine”, then retry.",
}
OTHERWISE = "Retry it once; if it fails again, keep the file as it is and report it."


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """A page of jobs, for which `read` records were read; the next page begins after `last` (None: no next)."""

    jobs: list[JobRecord] = field(default_factory=list)
    last: tuple[float, str] | None = None
    read: int = 0

    @property
    def cursor(self) -> str:
        """`last` as a string that `parse_cursor` reads; "" at the end."""
        return f"{self.last[0]!r}-{self.last[1]}" if self.last else ""


def parse_cursor(cursor: str) -> tuple[float, str] | None:
    """Return the position of a page's cursor; None if it is invalid."""
    moment, _, job_id = cursor.partition("-")
    try:
        return (float(moment), job_id) if JOB_ID.fullmatch(job_id) else None
    except ValueError:
        return None


def shown_path(job: JobRecord) -> str:
    """Return the path of a job's source, or its key if it has none."""
    return path_of_key(job.source.key) or job.source.key


def list_jobs(
    ledger: Ledger, criteria: JobFilter, limit: int, catalog: Catalog | None = None
) -> FoundJobs:
    """Return a page of at most `limit` jobs in the order of `criteria`; `catalog` has their codecs.

    Raises StorageError or Unavailable.
    """
    jobs: list[JobRecord] = []
    read, last = 0, None
    for job, matches in _with_match(ledger, criteria, catalog):
        if len(jobs) == limit or read == (MAX_LOOKED_UP if criteria.codec else MAX_READ):
            return FoundJobs(jobs, last, read)
        read, last = read + 1, (job.updated_at, job.job_id)
        if matches:
            jobs.append(job)
    return FoundJobs(jobs, None, read)


def changeable(
    ledger: Ledger,
    criteria: JobFilter,
    states: frozenset[JobState],
    until: float = math.inf,
    catalog: Catalog | None = None,
) -> Iterator[JobRecord]:
    """Yield the matching jobs in any of these states, newest first, without those changed after `until`."""
    within = states & criteria.states if criteria.states else states
    if not within:
        return
    narrowed = replace(criteria, states=within, order=ListOrder.NEWEST)
    for job, matches in _with_match(ledger, narrowed, catalog):
        if job.updated_at <= until and matches:
            yield job


def causes(
    ledger: Ledger, criteria: JobFilter, catalog: Catalog | None = None
) -> list[tuple[FailureClass, int]]:
    """Return the number of failed jobs for each cause, the most frequent first.

    A codec, or words that the ledger cannot search, are counted only in the first records of the list.
    """
    dead = replace(criteria, states=frozenset({JobState.DEAD}), cause=None, before=None)
    if not criteria.codec and (not criteria.text or ledger.searches):
        counts = Counter[FailureClass]()
        for cause, count in ledger.causes(dead).items():
            counts[cause or FailureClass.INTERNAL] += count
        return counts.most_common()
    most = MAX_LOOKED_UP if criteria.codec else MAX_READ
    jobs = (job for job, matches in islice(_with_match(ledger, dead, catalog), most) if matches)
    return Counter(job.failure_class or FailureClass.INTERNAL for job in jobs).most_common()


def may_keep(job: JobRecord) -> bool:
    """Return whether an operator may keep a failed video as it is; an uploaded video is its owner's."""
    return not job.source.key.startswith(f"{UPLOADS}/")


def remedy(cause: FailureClass | None) -> str:
    return "" if cause is None else REMEDIES.get(cause, OTHERWISE)


def _with_match(
    ledger: Ledger, criteria: JobFilter, catalog: Catalog | None
) -> Iterator[tuple[JobRecord, bool]]:
    """Yield the ledger's jobs, each with whether it matches; codecs are read in batches of AT_ONCE."""
    jobs = ledger.jobs(criteria)
    if not criteria.codec or catalog is None:
        yield from ((job, _matches(job, criteria)) for job in jobs)
        return
    here = catalog.database.paths.local_path
    while batch := list(islice(jobs, AT_ONCE)):
        files = [(here(os.fsencode(shown_path(job))), job.source.size) for job in batch]
        codecs = catalog.codecs([path for path, _ in files])
        for job, file in zip(batch, files, strict=True):
            yield job, codecs.get(file) == criteria.codec and _matches(job, criteria)


def _matches(job: JobRecord, criteria: JobFilter) -> bool:
    cause = job.failure_class or FailureClass.INTERNAL
    if criteria.cause is not None and (
        job.state is not JobState.DEAD or cause is not criteria.cause
    ):
        return False
    return criteria.text.casefold() in shown_path(job).casefold()
