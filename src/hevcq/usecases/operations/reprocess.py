"""Queue ended jobs again on request, cancel open ones, or keep failed videos as they are.

A video that is kept as it is becomes a skipped job. A file that changed since is another video.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path

from hevcq.domain.job import JOB_ID, SETTLED, JobRecord, JobState, Move, Source, Task, job_id
from hevcq.domain.keys import (
    EVERY_PROFILE,
    INBOX,
    MACHINE,
    SET_EXTENSION,
    UPLOADS,
    is_routed_to,
    key_for_path,
    rendition_key,
)
from hevcq.domain.media.containers import EXTENSIONS
from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError, PermanentError, UsageError
from hevcq.ports.backend import Backend
from hevcq.ports.catalog import UNPLACED, PlacementState
from hevcq.ports.ledger import JobFilter
from hevcq.sql.catalog import Catalog
from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find, purge, skip_waiting
from hevcq.util.log import get_logger


class JobResult(StrEnum):
    """The result for one job; values are stable."""

    QUEUED = "queued"
    WOULD_QUEUE = "would_queue"
    WAITING = "waiting"
    SOURCE_CHANGED = "source_changed"
    CANCELLED = "cancelled"
    WOULD_CANCEL = "would_cancel"
    ENDED = "ended"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class JobChange:
    """The result for one job; `detail` is why it was not queued, or how it had ended."""

    job: JobRecord
    result: JobResult
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReprocessRequest:
    """What to reprocess: paths, folders, keys (a trailing `/` means all below) or job ids.

    `exact` omits queued and running jobs from the results unless `states` names them.
    """

    names: Sequence[str]
    profiles: Sequence[str] = ()
    states: frozenset[JobState] = SETTLED
    who: str = ""
    why: str = "reprocess"
    dry_run: bool = False
    exact: bool = False


def reprocess(
    backend: Backend, request: ReprocessRequest, catalog: Catalog | None = None
) -> Iterator[JobChange]:
    """Queue each matching job again; a job with a changed source is reported instead.

    A dead job's letter is deleted after the job is queued again.
    """
    buried: dict[str, set[str]] = {}
    for name in request.names:
        for job in list(jobs_named(backend, name, catalog)):
            if request.profiles and job.profile not in request.profiles:
                continue
            if job.state not in request.states and (request.exact or job.state in SETTLED):
                continue
            change = _requeue(backend, job, request)
            if job.state is JobState.DEAD and change.result is JobResult.QUEUED:
                buried.setdefault(job.profile, set()).add(job.job_id)
            yield change
    for profile, ids in buried.items():
        for _, letter in find(backend.queues, DeadLetterFilter([profile])):
            if letter.task is not None and letter.task.job_id in ids:
                backend.queues[profile].purge(letter)


def redrive(
    backend: Backend, request: ReprocessRequest, criteria: DeadLetterFilter
) -> Iterator[JobChange]:
    """Queue the jobs of dead letters again, as `reprocess` does, and delete each letter afterwards.

    The letter stays if its job ended well or its task is unreadable. Each task is sent once, so a task
    that fails again at once does not loop. After a kill, run it again.
    """
    seen: set[str] = set()
    for profile, letter in find(backend.queues, criteria):
        if letter.task is None or letter.task.unit_id in seen:
            continue
        seen.add(letter.task.unit_id)
        change = _redrive_task(backend, letter.task, request)
        if change.result is JobResult.QUEUED:
            backend.queues[profile].purge(letter)
        yield change


def _redrive_task(backend: Backend, task: Task, request: ReprocessRequest) -> JobChange:
    job = backend.ledger.get(task.job_id) or _new_record(task.source, task.profile)
    if job.state in ENDED_WELL:
        return _ended(job)
    if job.state is JobState.DEAD:
        return _requeue(backend, job, request)
    if request.dry_run:
        return JobChange(job, JobResult.WOULD_QUEUE)
    # The job has no other message: SNS or SQS gave up this one, or a kill left its letter.
    backend.queues[task.profile].send([task])
    return JobChange(job, JobResult.QUEUED)


def reprocess_missing(
    backend: Backend, request: ReprocessRequest, profiles: Mapping[str, Profile], catalog: Catalog
) -> Iterator[JobChange]:
    """Queue work whose rendition is missing.

    That is dead jobs, done jobs whose rendition is neither stored nor in place, and inbox sources without
    a job for a profile that wants them. Skipped jobs need no rendition; queued and running jobs are in
    progress, unless their message expired.
    """
    for name in request.names:
        ids = [
            job.job_id
            for job in jobs_named(backend, name, catalog)
            if (not request.profiles or job.profile in request.profiles)
            and _lacks_rendition(backend, catalog, job)
        ]
        yield from reprocess(backend, replace(request, names=ids, profiles=()))
        for criteria in filters(name, backend):
            yield from _queue_unknown(backend, request, profiles, criteria)


def _lacks_rendition(backend: Backend, catalog: Catalog, job: JobRecord) -> bool:
    if backend.task_publisher.message_expired(job):
        return True
    if job.state is not JobState.DONE:
        return job.state is JobState.DEAD
    if job.rendition is not None and backend.store.stat(job.rendition.key) is not None:
        return False
    placement = catalog.placement(job.job_id)
    if placement is None or placement.state in UNPLACED:
        return True
    # A placed rendition has left the store; an undone or expired one is gone on request.
    return placement.state in IN_PLACE and not os.path.lexists(placement.target)


def _queue_unknown(
    backend: Backend,
    request: ReprocessRequest,
    profiles: Mapping[str, Profile],
    criteria: JobFilter,
) -> Iterator[JobChange]:
    """Queue sources without job or rendition, whose event was lost or whose profile is newer."""
    known = frozenset(profiles)
    places = criteria.key_prefixes or (criteria.source_key or "",)
    for source in chain.from_iterable(backend.store.sources(place) for place in places):
        if criteria.source_key not in (None, source.key):
            continue
        for name, profile in list(profiles.items()):  # one may be added meanwhile
            if request.profiles and name not in request.profiles:
                continue
            if not is_routed_to(source.key, name, subscribed=profile.subscribe, known=known):
                continue
            if backend.ledger.get(job_id(source, name)) is not None:
                continue
            if not _is_published(backend, source, name):
                yield _publish(backend, source, name, request)


def _is_published(backend: Backend, source: Source, profile: str) -> bool:
    """Return whether a rendition of this job is published.

    A ledger may expire ended jobs (on AWS after half a year). Queued again, such a job would be encoded
    in vain: its fences restart, and may not replace the existing rendition.
    """
    name = job_id(source, profile)
    for extension in sorted({*EXTENSIONS.values(), SET_EXTENSION}):
        stored = backend.store.stat(rendition_key(source.key, profile, extension))
        if stored is not None and stored.metadata.get("job") == name:
            return True
    return False


def _publish(
    backend: Backend, source: Source, profile: str, request: ReprocessRequest
) -> JobChange:
    if request.dry_run:
        return JobChange(_new_record(source, profile), JobResult.WOULD_QUEUE, "no job yet")
    backend.store.unmark_source_finished(source)
    (job,) = backend.task_publisher.publish(source, [profile], announced=False)
    return JobChange(job, JobResult.QUEUED, "no job yet")


def _new_record(source: Source, profile: str) -> JobRecord:
    return JobRecord(
        job_id=job_id(source, profile),
        source=source,
        profile=profile,
        state=JobState.QUEUED,
        created_at=0.0,
        updated_at=0.0,
    )


def jobs_named(backend: Backend, name: str, catalog: Catalog | None = None) -> Iterator[JobRecord]:
    """Yield the jobs of a path, folder, key or job id, most recently updated first.

    With a catalog, jobs of videos that were moved to the path follow, whose keys hold the old path.
    """
    record = backend.ledger.get(name) if JOB_ID.fullmatch(name) else None
    if record is not None:
        yield record
        return
    seen: set[str] = set()
    for criteria in filters(name, backend):
        for job in backend.ledger.jobs(criteria):
            seen.add(job.job_id)
            yield job
    if catalog is None or name.startswith(f"{INBOX}/"):
        return
    for placement in catalog.placements(under=_absolute(name)):
        record = None if placement.job_id in seen else backend.ledger.get(placement.job_id)
        if record is not None:
            yield record


def filters(name: str, backend: Backend) -> tuple[JobFilter, ...]:
    """Return the filters for a key, or for a path or folder on this machine.

    A path has a key in each routing folder.
    """
    if name.startswith(f"{INBOX}/"):
        if name.endswith("/"):
            return (JobFilter(key_prefixes=(name,)),)
        return (JobFilter(source_key=name),)
    path = backend.common(_absolute(name))
    folders, own = (EVERY_PROFILE, *backend.queues), backend.namespace()
    if path == Path(path.anchor):
        tail = f"{MACHINE}{own}/" if own else ""
        return (JobFilter(key_prefixes=tuple(f"{INBOX}/{f}/{tail}" for f in folders)),)
    keys = [key_for_path(str(path), f, own) for f in folders]
    exact = (JobFilter(source_key=key) for key in keys)
    return *exact, JobFilter(key_prefixes=tuple(f"{key}/" for key in keys))


def _absolute(name: str) -> Path:
    return Path(os.path.abspath(Path(name).expanduser()))  # noqa: PTH100 - links stay unresolved


def _requeue(backend: Backend, job: JobRecord, request: ReprocessRequest) -> JobChange:
    if job.state not in SETTLED and not backend.task_publisher.message_expired(job):
        return JobChange(job, JobResult.WAITING, f"it is {job.state.value} already")
    try:
        backend.store.check(job.source)
    except PermanentError as error:
        return JobChange(job, JobResult.SOURCE_CHANGED, str(error))
    if request.dry_run:
        return JobChange(job, JobResult.WOULD_QUEUE)
    backend.store.unmark_source_finished(job.source)
    if backend.task_publisher.requeue(job, who=request.who, why=request.why):
        return JobChange(job, JobResult.QUEUED)
    return JobChange(job, JobResult.WAITING, "another process queued it first")


def cancel(
    backend: Backend,
    names: Sequence[str],
    who: str,
    *,
    profiles: Sequence[str] = (),
    dry_run: bool = False,
    catalog: Catalog | None = None,
) -> Iterator[JobChange]:
    """Cancel the jobs of paths, folders, keys or job ids, as `reprocess` names them.

    Only the ledger changes. A worker that holds the job or one of its chunks is refused at its next
    heartbeat or progress report, and stops; waiting messages are acknowledged when received.
    """
    for name in names:
        for job in list(jobs_named(backend, name, catalog)):
            if not profiles or job.profile in profiles:
                yield _cancel_one(backend, job, who, dry_run=dry_run)


def _cancel_one(backend: Backend, job: JobRecord, who: str, *, dry_run: bool) -> JobChange:
    if job.state in SETTLED:
        return _ended(job)
    if dry_run:
        return JobChange(job, JobResult.WOULD_CANCEL)
    if not backend.ledger.cancel(job.job_id, f"Cancelled by {who}."):
        return _ended(backend.ledger.get(job.job_id) or job)
    if job.state is JobState.SPLIT:
        _delete_chunks(backend, job)
    return JobChange(job, JobResult.CANCELLED)


NO_ORDER = "Amazon SQS keeps no order and no priorities, so no job can be moved."


def move(backend: Backend, names: Sequence[str], where: Move) -> Iterator[JobChange]:
    """Move the queued ones among these jobs, named by their ids, in their queues.

    Raises UsageError if a queue keeps no order.
    """
    named = chain.from_iterable(jobs_named(backend, name) for name in names)
    queued = {
        job.job_id: job
        for job in named
        if job.state is JobState.QUEUED and job.profile in backend.queues
    }
    for profile in {job.profile for job in queued.values()}:
        if not backend.queues[profile].ordered:
            raise UsageError(NO_ORDER)
        mine = [job for job in queued.values() if job.profile == profile]
        tasks = [Task(source=job.source, profile=profile) for job in mine]
        moved = backend.queues[profile].move(tasks, where)
        yield from (JobChange(job, JobResult.MOVED) for job in mine if job.job_id in moved)


def _delete_chunks(backend: Backend, job: JobRecord) -> None:
    """Delete a split job's chunks from the store; a later sweep deletes those that could not be deleted."""
    try:
        for stored in list(backend.store.list(job.work_folder)):
            backend.store.delete(stored.key)
    except HevcqError as error:
        get_logger(job=job.job_id).warning("work_not_swept", reason=str(error))


def _ended(job: JobRecord) -> JobChange:
    return JobChange(job, JobResult.ENDED, f"already {job.state.value}")


KEPT = "Kept as it is, as asked."


def keep_failed(
    backend: Backend, catalog: Catalog, names: Iterable[str], who: str
) -> Iterator[JobRecord]:
    """Mark the failed jobs of paths, folders, keys or job ids as skipped; yield each.

    The dead letter is deleted last, so that a job that a kill left queued is found again by its letter.
    """
    for name in names:
        for job in list(jobs_named(backend, name, catalog)):
            letters = DeadLetterFilter([job.profile], letter=job.job_id)
            known = job.profile in backend.queues
            interrupted = (
                job.state is JobState.QUEUED and known and any(find(backend.queues, letters))
            )
            if job.state is not JobState.DEAD and not interrupted:
                continue
            backend.ledger.reopen(job.job_id, who=who, why="acknowledged")
            words = f"{KEPT} {job.reason.removeprefix(KEPT).strip()}".strip()
            if skip_waiting(backend, job.source, job.profile, words):
                if known:
                    purge(backend.queues, letters)
                yield job


ENDED_WELL = frozenset({JobState.DONE, JobState.SKIPPED})


def finished_jobs(
    source: Source,
    profiles: Mapping[str, Profile],
    record_of: Callable[[str], JobRecord | None],
) -> tuple[JobRecord, ...]:
    """Return the jobs of this source version if all are done or skipped and at least one is done; else ().

    Every profile to which the routing sends the source must have a job, and jobs of other profiles must
    have ended too. If all profiles skipped the source, it may be the only copy and is not finished. An
    upload through the page is never finished here: its record decides.
    """
    if source.key.startswith(f"{UPLOADS}/"):
        return ()
    known, found = frozenset(profiles), []
    for name, profile in list(profiles.items()):  # one may be added meanwhile
        record = record_of(job_id(source, name))
        if record is None:
            if is_routed_to(source.key, name, subscribed=profile.subscribe, known=known):
                return ()
            continue
        if record.state not in ENDED_WELL:
            return ()
        found.append(record)
    return tuple(found) if any(record.state is JobState.DONE for record in found) else ()


IN_PLACE = frozenset({PlacementState.PLACED, PlacementState.REPLACED})


class SourceFinisher:
    """Marks a source as finished. Repeating it is harmless; an error only keeps the source for longer.

    With the `catalog` of the machine that queued the source, every rendition must be in its place there;
    without a catalog, in the store.
    """

    def __init__(
        self, backend: Backend, profiles: Mapping[str, Profile], catalog: Catalog | None = None
    ) -> None:
        self._backend, self._profiles, self._catalog = backend, profiles, catalog

    def __call__(self, source: Source) -> bool:
        """Mark the source if it is finished; return whether it was marked. Errors are logged."""
        try:
            jobs = finished_jobs(source, self._profiles, self._backend.ledger.get)
            if not jobs or not all(self._in_place(j) for j in jobs if j.state is JobState.DONE):
                return False
            collected = self._catalog is not None
            return self._backend.store.mark_source_finished(source, collected=collected)
        except HevcqError as error:
            get_logger().warning("source_not_marked_finished", source=source.key, reason=str(error))
            return False

    def _in_place(self, job: JobRecord) -> bool:
        if self._catalog is not None:
            placement = self._catalog.placement(job.job_id)
            return placement is not None and placement.state in IN_PLACE
        ref = job.rendition
        stored = self._backend.store.stat(ref.key) if ref else None
        return ref is not None and stored is not None and stored.sha256 == ref.sha256


def finished_since(
    backend: Backend, profiles: Mapping[str, Profile], since: float
) -> Iterator[Source]:
    """Mark and yield the finished sources with a job that ended well after `since` (Unix seconds).

    Workers never mark sources: a worker that was taken over could have every original deleted.
    """
    finish, seen = SourceFinisher(backend, profiles), set[str]()
    for job in backend.ledger.jobs(JobFilter(states=ENDED_WELL, updated_after=since)):
        if job.source.source_id not in seen:
            seen.add(job.source.source_id)
            if finish(job.source):
                yield job.source
