"""Cancel queued and running jobs, with the chunks of split videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hevcq.domain.job import SETTLED, JobRecord, JobState
from hevcq.errors import HevcqError
from hevcq.ports.backend import Backend
from hevcq.ports.catalog import Catalog
from hevcq.usecases.operations.reprocess import jobs_named
from hevcq.util.log import get_logger


class CancelResult(StrEnum):
    """The result for one job; values are stable."""

    CANCELLED = "cancelled"
    WOULD_CANCEL = "would_cancel"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """One job as it was before, and the result; `detail` says how it had ended."""

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


def cancel(
    backend: Backend, request: CancelRequest, catalog: Catalog | None = None
) -> Iterator[Cancelled]:
    """Cancel each matching job; report those that had ended.

    Only the ledger changes. A worker on the job, or on a chunk of it, is refused at its next heartbeat
    or progress and stops; waiting messages are acknowledged when received.
    """
    for name in request.names:
        for job in list(jobs_named(backend, name, catalog)):
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
        _clear(backend, job)
    return Cancelled(job, CancelResult.CANCELLED)


def _clear(backend: Backend, job: JobRecord) -> None:
    """Delete a split job's objects from the store; failures are left for a later sweep."""
    try:
        for stored in list(backend.store.list(job.work_folder)):
            backend.store.delete(stored.key)
    except HevcqError as error:
        # The job is cancelled anyway; go on with the others.
        get_logger(job=job.job_id).warning("work_not_swept", reason=str(error))


def _ended(job: JobRecord) -> Cancelled:
    return Cancelled(job, CancelResult.ENDED, f"already {job.state.value}")
