"""What the board shows besides queues and jobs: running work, savings, libraries, ingests, checks, messages."""

from __future__ import annotations

from hevcq.ports.event_log import INGEST_ENDED
from hevcq.usecases.doctor import run_checks
from hevcq.usecases.libraries.shown import libraries_of
from hevcq.usecases.operations.savings import DAYS, savings
from hevcq.usecases.operations.status import RunningStatus, overview
from hevcq.web.api import models
from hevcq.web.api.operation import Call, Operation
from hevcq.web.checks import findings
from hevcq.web.rendering import seconds_left
from hevcq.wiring.app import doctor_context
from hevcq.wiring.notify import event_log, gathered, states


def running(call: Call) -> models.RunningListOut:
    """List the jobs that are encoded now, with the range of their time left."""
    app = call.app
    found = overview(app.backend, app.clock, limit=call.query.limit)
    return models.RunningListOut(running=[_running_out(each) for each in found.running])


def _running_out(job: RunningStatus) -> models.RunningOut:
    left = seconds_left(job.phase, job.percent, job.eta_s) if job.alive else None
    return models.RunningOut(
        id=job.job_id,
        profile=job.profile,
        source=job.key,
        phase=job.phase,
        percent=job.percent,
        speed=job.speed,
        least_left_s=left[0] if left else None,
        most_left_s=left[1] if left else None,
        chunks=job.chunks,
        chunks_done=job.chunks_done,
        alive=job.alive,
    )


def saved(call: Call) -> models.SavingsOut:
    """Sum up what was saved, by day."""
    found = savings(call.app.backend.ledger, call.app.profiles, call.app.clock.now())
    days = [models.DayOut(day=day.isoformat(), saved=count) for day, count in found.by_day]
    return models.SavingsOut(
        jobs=found.jobs,
        before=found.before,
        after=found.after,
        saved=found.saved,
        complete=found.complete,
        days=days,
    )


def libraries(call: Call) -> models.LibrariesOut:
    """List the libraries of this machine with their state, and what was made of each."""
    app = call.app
    found = libraries_of(app.settings, gathered(app), app.clock.now(), DAYS)
    return models.LibrariesOut(
        libraries=[
            models.LibraryOut(
                name=each.library.name,
                path=str(each.library.path),
                place=each.library.place,
                profiles=list(each.profiles),
                watched=each.library.watch,
                problem=each.state.problem,
                free=each.state.free,
                encoded=each.line.renditions,
                failed=each.line.failed,
                saved=each.line.saved,
            )
            for each in found
        ],
        days=DAYS,
    )


def ingests(call: Call) -> models.IngestPage:
    """List the ingests that ended, newest first."""
    limit = call.query.limit
    found = event_log(call.app).latest(INGEST_ENDED, limit + 1, int(call.query.cursor or 0))
    shown = found[:limit]
    return models.IngestPage(
        ingests=[
            models.IngestOut(at=each.at, result=each.reason, before=each.before, after=each.after)
            for each in shown
        ],
        cursor=str(shown[-1].seq) if len(found) > limit else "",
    )


def doctor(call: Call) -> models.FindingsOut:
    """Check this machine; this takes seconds."""
    found = [*run_checks(doctor_context(call.app)), *findings(call.app)]
    return models.FindingsOut(
        ok=all(each.check.ok for each in found),
        findings=[
            models.FindingOut(
                area=each.area.value,
                name=each.check.name,
                ok=each.check.ok,
                detail=each.check.detail,
                remedy=each.check.remedy,
            )
            for each in found
        ],
    )


def messages(call: Call) -> models.ReceiversOut:
    """List the receivers of notifications, what waits for them, and what went wrong last."""
    return models.ReceiversOut(
        receivers=[models.ReceiverOut.model_validate(each) for each in states(call.app)]
    )


OPERATIONS = (
    Operation(
        "GET",
        "/running",
        "listRunning",
        "Running jobs with the range of their time left",
        "operate",
        running,
        answer=models.RunningListOut,
        query=models.RunningQuery,
        operators=True,
    ),
    Operation(
        "GET",
        "/savings",
        "showSavings",
        f"What was saved in {DAYS} days, by day",
        "operate",
        saved,
        answer=models.SavingsOut,
        operators=True,
    ),
    Operation(
        "GET",
        "/libraries",
        "listLibraries",
        "Libraries of this machine",
        "operate",
        libraries,
        answer=models.LibrariesOut,
        operators=True,
    ),
    Operation(
        "GET",
        "/ingests",
        "listIngests",
        "Ingests that ended, newest first",
        "operate",
        ingests,
        answer=models.IngestPage,
        query=models.IngestQuery,
        operators=True,
    ),
    Operation(
        "GET",
        "/doctor",
        "checkMachine",
        "Check this machine",
        "operate",
        doctor,
        answer=models.FindingsOut,
        operators=True,
    ),
    Operation(
        "GET",
        "/messages",
        "listReceivers",
        "Receivers of notifications",
        "operate",
        messages,
        answer=models.ReceiversOut,
        operators=True,
    ),
)
