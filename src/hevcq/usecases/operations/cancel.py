"""End jobs that are still to be done, because a person asks for it; a video's chunks end with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.domain.keys import work_folder
from hevcq.errors import HevcqError
from hevcq.ports.backend import Backend
from hevcq.usecases.operations.reprocess import jobs_named
from hevcq.util.log import get_logger


class CancelResult(StrEnum):
    """What became of one job."""

    CANCELLED = "cancelled"
    WOULD_CANCEL = "would_cancel"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """One job as it was before, and what became of it; `detail` says how it had ended."""

    job: JobRecord
    result: CancelResult
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """What to cancel: paths, folders, keys (a trailing `/` means all below) or job ids."""

    names: Sequence[str]
    profiles: Sequence[str] = ()
    who: str = ""
    dry_run: bool = False


def cancel(backend: Backend, request: CancelRequest) -> Iterator[Cancelled]:
    """Cancel each matching job; what had ended before is only reported.

    Only the ledger is told. A worker that encodes the job, or a chunk of it, is refused at its
    next heartbeat or progress and stops; messages that wait are acknowledged when they come up.
    """
    for name in request.names:
        for job in list(jobs_named(backend, name)):
            if not request.profiles or job.profile in request.profiles:
                yield _one(backend, job, request)


def _one(backend: Backend, job: JobRecord, request: CancelRequest) -> Cancelled:
    if job.state in SETTLED:
        return _ended(job)
    if request.dry_run:
        return Cancelled(job, CancelResult.WOULD_CANCEL)
    if not backend.ledger.cancel(job.job_id, f"Cancelled by {request.who}."):
        return _ended(backend.ledger.get(job.job_id) or job)
    if job.state is JobState.SPLIT:
        _clear(backend, job.job_id)
    return Cancelled(job, CancelResult.CANCELLED)


def _clear(backend: Backend, job_id: str) -> None:
    """Remove what a split job kept in the store; what fails is left for a later sweep."""
    try:
        for stored in list(backend.store.list(work_folder(job_id))):
            backend.store.delete(stored.key)
    except HevcqError as error:
        # The job is cancelled all the same, and others may still have to be.
        get_logger(job=job_id).warning("work_not_swept", reason=str(error))


def _ended(job: JobRecord) -> Cancelled:
    return Cancelled(job, CancelResult.ENDED, f"it is {job.state.value} already")
