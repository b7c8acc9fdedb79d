"""The operations for operators: queues, jobs, machines, pauses and savings."""

from typing import Annotated, Literal

from fastapi import Body, Query

from hevcq.domain.job import JobRecord, Move
from hevcq.domain.schedule import Pause
from hevcq.errors import Conflict, NoSuchVideo, UnknownProfile, UsageError
from hevcq.ports.backend import WorkerProcess
from hevcq.ports.ledger import JobFilter
from hevcq.running.ingest import Submitted, submit_key, submit_path
from hevcq.usecases.operations import pausing, status
from hevcq.usecases.operations.pausing import ClosedStatus
from hevcq.usecases.operations.reprocess import JobResult, ReprocessRequest, keep_failed
from hevcq.usecases.operations.reprocess import cancel as cancel_jobs
from hevcq.usecases.operations.reprocess import move as move_jobs
from hevcq.usecases.operations.reprocess import reprocess as reprocess_jobs
from hevcq.usecases.operations.status import Overview, overview, reason_in_words
from hevcq.usecases.placement.undo import UndoResult, undo
from hevcq.usecases.stats import Savings, savings
from hevcq.web.api import models
from hevcq.web.api.call import Call, Operates, new_router
from hevcq.wiring.contexts import up_to_date_log

router = new_router()
OfProfile = Annotated[models.ProfileIn, Body(default_factory=models.ProfileIn)]

UNKNOWN = "No such job."
NOT_REPLACED = "The original was not replaced, or was already restored."


@router.get("/queues")
def show_queues(call: Operates, query: Annotated[models.PageQuery, Query()]) -> Overview:
    """Count queues and workers, list running jobs, and tell why no work starts now.

    `workers` is null on AWS. A job's `percent` and `eta_s` are those of its phase; its checks follow. A job
    that is not `alive` lost its worker; the next worker continues it.
    """
    app = call.app
    return overview(app.backend, app.clock, app.settings, app.condition(), limit=query.limit)


@router.get("/jobs")
def list_jobs(call: Operates, query: Annotated[models.JobQuery, Query()]) -> models.JobPage:
    """List jobs, most recently changed first; `cursor` continues after the last one."""
    states = frozenset([query.state] if query.state else [])
    job_filter = JobFilter(states, query.profile, before=status.parse_cursor(query.cursor))
    page = status.list_jobs(call.app.backend.ledger, job_filter, query.limit)
    return models.JobPage(jobs=[job_out(each) for each in page.jobs], cursor=page.cursor)


@router.post("/jobs")
def submit_job(call: Operates, body: models.JobIn) -> list[Submitted]:
    """Queue a video by its path or key. Repeated, it returns the same jobs and queues nothing."""
    if bool(body.path) == bool(body.key):
        raise UsageError("Send either a path or a key.")
    submit = submit_path if body.path else submit_key
    return submit(call.app, body.path or body.key, body.profiles)


@router.post("/jobs/imported")
def submit_import(call: Operates, body: models.ImportIn) -> list[Submitted]:
    """Queue what Sonarr or Radarr imported. This is the address for their webhook; other events do nothing."""
    return [each for path in body.paths() for each in submit_path(call.app, path, ())]


def job_out(job: JobRecord) -> models.JobOut:
    out = models.JobOut.model_validate(job)
    return out.model_copy(update={"reason": reason_in_words(job)})


def _job(call: Call, job_id: str) -> JobRecord:
    job = call.app.backend.ledger.get(job_id)
    if job is None:
        raise NoSuchVideo(UNKNOWN)
    return job


@router.get("/jobs/{job_id}")
def show_job(call: Operates, job_id: str) -> models.JobOut:
    """Show a job."""
    return job_out(_job(call, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(call: Operates, job_id: str) -> models.JobOut:
    """Cancel a queued or running job."""
    job = _job(call, job_id)
    for each in cancel_jobs(call.app.backend, [job.job_id], call.person.name):
        if each.result is JobResult.ENDED:
            raise Conflict(f"The job is {each.detail}.")
    return job_out(_job(call, job_id))


@router.post("/jobs/{job_id}/move")
def move_job(call: Operates, job_id: str, to: Move) -> models.JobOut:
    """Move a waiting job in its queue: first, last, or a priority higher or lower (not with SQS)."""
    job = _job(call, job_id)
    if not list(move_jobs(call.app.backend, [job.job_id], to)):
        raise Conflict("The job is not waiting in its queue.")
    return job_out(job)


@router.post("/jobs/{job_id}/reprocess")
def reprocess_job(call: Operates, job_id: str) -> models.JobOut:
    """Queue a finished, skipped or failed job again."""
    job = _job(call, job_id)
    request = ReprocessRequest([job.job_id], who=call.person.name)
    for each in reprocess_jobs(call.app.backend, request):
        if each.result is not JobResult.QUEUED:
            raise Conflict(each.detail or f"The job is {job.state.value}.")
    return job_out(_job(call, job_id))


@router.post("/jobs/{job_id}/keep")
def keep_job(call: Operates, job_id: str) -> models.JobOut:
    """Keep a failed video of a library as it is, and stop reporting it."""
    job, who = _job(call, job_id), call.person.name
    names = [job.job_id] if status.may_keep(job) else []
    if not list(keep_failed(call.app.backend, call.app.catalog, names, who)):
        raise Conflict("Only a failed video of a library can be kept as it is.")
    return job_out(_job(call, job_id))


@router.post("/jobs/{job_id}/undo")
def undo_job(call: Operates, job_id: str) -> models.JobOut:
    """Restore the original that the job's rendition replaced."""
    job = _job(call, job_id)
    undone = list(undo(call.app.library_ports, job=job.job_id))
    if all(each.result is not UndoResult.RESTORED for each in undone):
        raise Conflict(next((each.reason for each in undone if each.reason), NOT_REPLACED))
    return job_out(_job(call, job_id))


@router.get("/machines")
def list_machines(call: Operates) -> list[WorkerProcess]:
    """List the machines that encode, and their running jobs."""
    return status.machines_of(call.app.backend).processes()


@router.post("/machines/{name}/{to}")
def change_machine(
    call: Operates, name: str, to: Literal["drain", "resume"]
) -> list[WorkerProcess]:
    """Drain a machine: it finishes its encodes and takes no new work. Or resume it."""
    status.drain(call.app.backend, name, call.person.name if to == "drain" else "")
    return list_machines(call)


@router.post("/pause")
def pause(
    call: Operates, body: Annotated[models.PauseIn, Body(default_factory=models.PauseIn)]
) -> list[ClosedStatus]:
    """Pause one profile, or all."""
    app = call.app
    new = Pause(
        by=call.person.name,
        profile=_require_profile(call, body.profile),
        since=app.clock.now(),
        running=body.running,
    )
    pausing.pause(app.backend.ledger, new, body.for_s, can_freeze=not app.settings.on_aws)
    return show_pause(call)


@router.post("/resume")
def resume(call: Operates, body: OfProfile) -> list[ClosedStatus]:
    """End the pause of one profile, or all pauses."""
    name = body.profile
    pausing.resume(call.app.backend.ledger, None if name is None else _require_profile(call, name))
    return show_pause(call)


@router.get("/pause")
def show_pause(call: Operates) -> list[ClosedStatus]:
    """Tell why no work starts now."""
    app, now = call.app, call.app.clock.now()
    return list(
        pausing.why_closed(app.backend.ledger, app.profiles, app.hours, now, app.condition())
    )


def _require_profile(call: Call, name: str | None) -> str:
    if name is not None and name not in call.app.profiles:
        raise UnknownProfile(f"No profile {name!r}.")
    return name or ""


@router.get("/savings")
def show_savings(call: Operates) -> Savings:
    """Sum up the savings of the last 30 days, by day (UTC): bytes of sources and of their renditions."""
    return savings(up_to_date_log(call.app), call.app.profiles, call.app.clock.now())
