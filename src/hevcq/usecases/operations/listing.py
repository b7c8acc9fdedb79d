"""Find jobs as the queue page lists them: by state, profile, folder, cause and words, a page at a time."""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.domain.keys import UPLOADS, path_of_key
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import JobFilter, Ledger, ListOrder
from hevcq.sql.catalog import Catalog
from hevcq.usecases.operations.reprocess import JOB_ID

MAX_READ = 5_000
"""Records read for one page: a search for rare words shows what it found in so many, and how to go on."""
MAX_LOOKED_UP, AT_ONCE = 300, 50
"""Records read for a page of one codec, which the catalog is asked for, so many at once."""
UNDER_WAY = frozenset(JobState) - SETTLED
RETRY_HELPS = frozenset(FailureClass) - {
    FailureClass.DAMAGED, FailureClass.UNREADABLE, FailureClass.UNSUPPORTED, FailureClass.GONE,
    FailureClass.CHANGED, FailureClass.VERIFICATION, FailureClass.REVIEW, FailureClass.MESSAGE,
}  # fmt: skip
"""The causes of failures that another try may overcome; the others come back until something changes."""
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
    """A page of jobs; `last` is where the next one begins, None at the end. `read` records were looked at."""

    jobs: list[JobRecord] = field(default_factory=list)
    last: tuple[float, str] | None = None
    read: int = 0

    @property
    def cursor(self) -> str:
        """`last` as a word, which `place_of` reads again; "" at the end."""
        return f"{self.last[0]!r}-{self.last[1]}" if self.last else ""


def place_of(cursor: str) -> tuple[float, str] | None:
    """Return where the page of a cursor begins, None of one that is no cursor."""
    moment, _, job_id = cursor.partition("-")
    try:
        return (float(moment), job_id) if JOB_ID.fullmatch(job_id) else None
    except ValueError:
        return None


def shown_path(job: JobRecord) -> str:
    """Return the path of a job's source, or its key if it has none."""
    return path_of_key(job.source.key) or job.source.key


def listed(
    ledger: Ledger, wanted: JobFilter, limit: int, catalog: Catalog | None = None
) -> FoundJobs:
    """Return a page of at most `limit` jobs in the wanted order; `catalog` knows their codecs.

    Raises StorageError or Unavailable.
    """
    found: list[JobRecord] = []
    read, last = 0, None
    for job, fits in _judged(ledger, wanted, catalog):
        if len(found) == limit or read == (MAX_LOOKED_UP if wanted.codec else MAX_READ):
            return FoundJobs(found, last, read)
        read, last = read + 1, (job.updated_at, job.job_id)
        if fits:
            found.append(job)
    return FoundJobs(found, None, read)


def changeable(
    ledger: Ledger,
    wanted: JobFilter,
    states: frozenset[JobState],
    until: float = math.inf,
    catalog: Catalog | None = None,
) -> Iterator[JobRecord]:
    """Yield the listed jobs in any of these states, newest first, but for those changed after `until`."""
    within = states & wanted.states if wanted.states else states
    if not within:
        return
    whole = replace(wanted, states=within, order=ListOrder.NEWEST)
    for job, fits in _judged(ledger, whole, catalog):
        if job.updated_at <= until and fits:
            yield job


def causes(
    ledger: Ledger, wanted: JobFilter, catalog: Catalog | None = None
) -> list[tuple[FailureClass, int]]:
    """Return how many failed jobs each cause has, the most frequent first; by words of MAX_READ where it must."""
    whole = replace(wanted, states=frozenset({JobState.DEAD}), cause=None, before=None)
    if not wanted.codec and (not wanted.text or ledger.searches):
        counted = Counter[FailureClass]()
        for cause, count in ledger.causes(whole).items():
            counted[cause or FailureClass.INTERNAL] += count
        return counted.most_common()
    most = MAX_LOOKED_UP if wanted.codec else MAX_READ
    read = (job for job, fits in islice(_judged(ledger, whole, catalog), most) if fits)
    return Counter(job.failure_class or FailureClass.INTERNAL for job in read).most_common()


def may_keep(job: JobRecord) -> bool:
    """Return whether an operator may keep a failed video as it is: an uploaded one is its owner's."""
    return not job.source.key.startswith(f"{UPLOADS}/")


def remedy(cause: FailureClass | None) -> str:
    """Return what an operator can do about a failure of this cause."""
    return "" if cause is None else REMEDIES.get(cause, OTHERWISE)


def _judged(
    ledger: Ledger, wanted: JobFilter, catalog: Catalog | None
) -> Iterator[tuple[JobRecord, bool]]:
    """Yield the ledger's jobs, each with whether it is wanted; codecs are looked up for many at once."""
    jobs = ledger.jobs(wanted)
    if not wanted.codec or catalog is None:
        yield from ((job, _matches(job, wanted)) for job in jobs)
        return
    here = catalog.database.paths.here
    while part := list(islice(jobs, AT_ONCE)):
        files = [(here(os.fsencode(shown_path(job))), job.source.size) for job in part]
        known = catalog.codecs([path for path, _ in files])
        for job, file in zip(part, files, strict=True):
            yield job, known.get(file) == wanted.codec and _matches(job, wanted)


def _matches(job: JobRecord, wanted: JobFilter) -> bool:
    cause = job.failure_class or FailureClass.INTERNAL
    if wanted.cause is not None and (job.state is not JobState.DEAD or cause is not wanted.cause):
        return False
    return wanted.text.casefold() in shown_path(job).casefold()
