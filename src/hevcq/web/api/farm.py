"""The operations of operators: queues, jobs, dead letters."""

from __future__ import annotations

import threading
from itertools import islice

from hevcq.domain.job import JobRecord
from hevcq.errors import Conflict, NoSuchVideo, UnknownProfile
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.operations import pausing
from hevcq.usecases.operations.cancel import CancelRequest, CancelResult
from hevcq.usecases.operations.cancel import cancel as cancel_jobs
from hevcq.usecases.operations.dead_letters import (
    MAX_REDRIVEN,
    DeadLetter,
    DeadLetterFilter,
    RedriveRequest,
    RedriveResult,
    find,
    redrive,
)
from hevcq.usecases.operations.reprocess import ReprocessRequest, ReprocessResult
from hevcq.usecases.operations.reprocess import reprocess as reprocess_jobs
from hevcq.usecases.operations.status import overview, reason_in_words
from hevcq.web.api import models
from hevcq.web.api.operation import Call, Operation

UNKNOWN = "There is no such job."


def queues(call: Call) -> models.QueuesOut:
    """Count every queue."""
    found = overview(call.app.backend, call.app.clock, limit=0, workers=call.app.workers_running())
    return models.QueuesOut(
        queues=[
            models.QueueOut(
                profile=each.profile,
                ready=each.ready,
                in_flight=each.in_flight,
                delayed=each.delayed,
                dead_letters=each.dead_letters,
                jobs=each.jobs,
            )
            for each in found.queues
        ],
        workers=found.workers,
    )


def jobs(call: Call) -> models.JobPage:
    """List jobs, most recently changed first; the cursor is the time and id of the last one."""
    query: models.JobQuery = call.query
    last, _, last_id = query.cursor.partition("-")
    wanted = JobFilter(
        states=frozenset([query.state] if query.state else []),
        profile=query.profile,
        before=(float(last), last_id) if last_id else None,
    )
    page = list(islice(call.app.backend.ledger.jobs(wanted), query.limit + 1))
    shown = page[: query.limit]
    more = len(page) > query.limit
    cursor = f"{shown[-1].updated_at!r}-{shown[-1].job_id}" if more else ""
    return models.JobPage(jobs=[job_out(each) for each in shown], cursor=cursor)


def job_out(job: JobRecord) -> models.JobOut:
    """Return a job as programs get it."""
    return models.JobOut(
        id=job.job_id,
        profile=job.profile,
        source=job.source.key,
        size=job.source.size,
        state=job.state,
        phase=job.progress.phase.value if job.progress else "",
        percent=job.progress.percent if job.progress else 0.0,
        reason=reason_in_words(job),
        failure_class=job.failure_class,
        failures=job.failures,
        updated_at=job.updated_at,
    )


def _job(call: Call) -> JobRecord:
    found = call.app.backend.ledger.get(call.path["id"])
    if found is None:
        raise NoSuchVideo(UNKNOWN)
    return found


def show_job(call: Call) -> models.JobOut:
    """Show a job."""
    return job_out(_job(call))


def cancel(call: Call) -> models.JobOut:
    """Cancel a job. Raises Conflict if it has ended."""
    job = _job(call)
    for each in cancel_jobs(call.app.backend, CancelRequest([job.job_id], who=call.person.name)):
        if each.result is CancelResult.ENDED:
            raise Conflict(f"The job is {each.detail}.")
    return job_out(_job(call))


def reprocess(call: Call) -> models.JobOut:
    """Queue a finished, skipped or failed job again. Raises Conflict if it is in no such state."""
    job = _job(call)
    request = ReprocessRequest([job.job_id], who=call.person.name)
    for each in reprocess_jobs(call.app.backend, request):
        if each.result is not ReprocessResult.QUEUED:
            raise Conflict(each.detail or f"The job is {job.state.value}.")
    return job_out(_job(call))


def pause(call: Call) -> models.ClosedListOut:
    """Let no work begin, of one profile or of all."""
    wanted, backend = call.body, call.app.backend
    request = pausing.PauseRequest(
        by=call.person.name,
        profile=_known(call, wanted.profile),
        for_s=wanted.for_s,
        running=wanted.running,
    )
    local = call.app.settings.backend == "embedded"
    pausing.pause(backend.pauses, call.app.clock, request, can_freeze=local)
    return closed(call)


def resume(call: Call) -> models.ClosedListOut:
    """End a pause, or all of them."""
    name = call.body.profile
    pausing.resume(call.app.backend.pauses, None if name is None else _known(call, name))
    return closed(call)


def closed(call: Call) -> models.ClosedListOut:
    """Say why no work begins now."""
    app, hours = call.app, call.app.hours
    found = pausing.why_closed(
        app.backend.pauses, app.profiles, hours, app.clock.now(), app.condition()
    )
    return models.ClosedListOut(
        closed=[
            models.ClosedOut(
                profiles=list(each.profiles),
                reason=each.reason,
                running=each.running,
                until=each.until,
            )
            for each in found
        ]
    )


def _known(call: Call, name: str | None) -> str:
    if name is not None and name not in call.app.profiles:
        raise UnknownProfile(f"No profile {name!r}.")
    return name or ""


def letters(call: Call) -> models.LettersOut:
    """List dead letters."""
    names = [call.query.profile] if call.query.profile else []
    known = [name for name in names if name in call.app.backend.queues]
    if names and not known:
        return models.LettersOut(letters=[])
    wanted = DeadLetterFilter(known, limit=call.query.limit)
    found = find(call.app.backend.queues, wanted)
    return models.LettersOut(letters=[_letter_out(name, each) for name, each in found])


def redrive_letter(call: Call) -> None:
    """Send a dead letter back to its queue. Raises NoSuchVideo, Conflict."""
    request = RedriveRequest(
        DeadLetterFilter(letter=call.path["id"], limit=1), who=call.person.name
    )
    stop = threading.Event()
    results = [
        each.result for each in redrive(call.app.backend, request, clock=call.app.clock, stop=stop)
    ]
    if not results or results == [RedriveResult.GONE]:
        raise NoSuchVideo("There is no such dead letter.")
    if results != [RedriveResult.REDRIVEN]:
        raise Conflict("The job was done meanwhile; delete the dead letter.")


def redrive_letters(call: Call) -> models.RedrivenOut:
    """Send the dead letters of a profile, or all, back to their queues."""
    names = [_known(call, call.body.profile)] if call.body.profile else []
    request = RedriveRequest(
        DeadLetterFilter(names, limit=MAX_REDRIVEN), who=call.person.name, why="redrive by the API"
    )
    results = redrive(call.app.backend, request, clock=call.app.clock, stop=threading.Event())
    return models.RedrivenOut(
        redriven=sum(each.result is RedriveResult.REDRIVEN for each in results)
    )


def _letter_out(profile: str, letter: DeadLetter) -> models.LetterOut:
    task = letter.task
    return models.LetterOut(
        id=letter.letter_id,
        profile=profile,
        job=task.job_id if task else None,
        source=task.source.key if task else None,
        failure_class=letter.failure_class,
        reason=letter.reason,
        attempts=letter.attempts,
        buried_at=letter.buried_at,
        tail=list(letter.tail),
    )


OPERATIONS = (
    Operation(
        "GET",
        "/queues",
        "listQueues",
        "Queues and workers",
        "operate",
        queues,
        answer=models.QueuesOut,
        operators=True,
    ),
    Operation(
        "GET",
        "/jobs",
        "listJobs",
        "Jobs, most recently changed first",
        "operate",
        jobs,
        answer=models.JobPage,
        query=models.JobQuery,
        operators=True,
    ),
    Operation(
        "GET",
        "/jobs/{id}",
        "showJob",
        "A job",
        "operate",
        show_job,
        answer=models.JobOut,
        operators=True,
    ),
    Operation(
        "POST",
        "/jobs/{id}/cancel",
        "cancelJob",
        "Cancel a job",
        "operate",
        cancel,
        answer=models.JobOut,
        operators=True,
    ),
    Operation(
        "POST",
        "/jobs/{id}/reprocess",
        "reprocessJob",
        "Queue a job again",
        "operate",
        reprocess,
        answer=models.JobOut,
        operators=True,
    ),
    Operation(
        "POST",
        "/pause",
        "pause",
        "Let no work begin",
        "operate",
        pause,
        answer=models.ClosedListOut,
        body=models.PauseIn,
        body_needed=False,
        operators=True,
    ),
    Operation(
        "POST",
        "/resume",
        "resume",
        "End a pause, or all",
        "operate",
        resume,
        answer=models.ClosedListOut,
        body=models.ResumeIn,
        body_needed=False,
        operators=True,
    ),
    Operation(
        "GET",
        "/pause",
        "showPause",
        "Why no work begins now",
        "operate",
        closed,
        answer=models.ClosedListOut,
        operators=True,
    ),
    Operation(
        "GET",
        "/dead-letters",
        "listDeadLetters",
        "Dead letters, oldest first",
        "operate",
        letters,
        answer=models.LettersOut,
        query=models.LetterQuery,
        operators=True,
    ),
    Operation(
        "POST",
        "/dead-letters/redrive",
        "redriveDeadLetters",
        "Send all dead letters back, or those of a profile",
        "operate",
        redrive_letters,
        answer=models.RedrivenOut,
        body=models.RedriveIn,
        body_needed=False,
        operators=True,
    ),
    Operation(
        "POST",
        "/dead-letters/{id}/redrive",
        "redriveDeadLetter",
        "Send a dead letter back",
        "operate",
        redrive_letter,
        status=204,
        operators=True,
    ),
)
