"""The queue: every job by state, library, profile, cause and words, a page at a time; and each job's page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import get_args
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JOB_ID, SETTLED, JobRecord, JobState, Move
from hevcq.domain.keys import UPLOADS
from hevcq.domain.planning.encode_plan import skip_in_words
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos import Video, use_upload_name
from hevcq.errors import HevcqError
from hevcq.ports.ledger import JobFilter, ListOrder
from hevcq.usecases.operations import status
from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find
from hevcq.usecases.operations.reprocess import (
    NO_ORDER,
    JobResult,
    ReprocessRequest,
    cancel,
    filters,
    keep_failed,
    move,
    reprocess,
)
from hevcq.usecases.operations.status import RETRY_HELPS, UNDER_WAY, reason_in_words
from hevcq.usecases.proofs import proof_at
from hevcq.util.log import get_logger
from hevcq.util.text import counted, whole
from hevcq.web.identity.person import operator_of
from hevcq.web.pages.board import video_of
from hevcq.web.rendering import page, render, time_left
from hevcq.web.services import OperatorRoute, certificate_file, find_job, of_form, services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import event_log, video_farm

A_PAGE = 50
MAX_SEARCH = 200
MAX_HISTORY = 50
MAX_EXAMPLES = 5
STEP = 200
"""Jobs that are changed before the page answers; the others follow without anybody waiting."""
STATES: Mapping[str, frozenset[JobState]] = {
    "": frozenset(),
    "waiting": frozenset({JobState.QUEUED}),
    "running": frozenset({JobState.RUNNING, JobState.SPLIT}),
    "failed": frozenset({JobState.DEAD}),
    "skipped": frozenset({JobState.SKIPPED}),
    "done": frozenset({JobState.DONE}),
}
"""The states of a list, by their word in the address; "" is every state."""
OF_UPLOADS = "uploads/"
"""The library of the address that stands for uploaded videos; no library's name has a slash."""
FAILED = STATES["failed"]
MOVES: tuple[Move, ...] = get_args(Move)
ACTIONS: dict[str, tuple[frozenset[JobState], str]] = {
    "retry": (FAILED, "Retry {}"),
    "keep": (FAILED, "Keep {} unchanged"),
    "cancel": (UNDER_WAY, "Cancel {}"),
    **{word: (STATES["waiting"], f"Put {{}} {word}") for word in MOVES},
}
"""What a button does with all jobs of a list: which states it takes, and its words."""
NOTICES = {
    "retry": "Queued again: {n}.",
    "keep": "Kept as they are, and reported no more: {n}.",
    "cancel": "Cancelled: {n}.",
    "first": "Moved to the front of its queue: {n}.",
    "higher": "One priority higher in its queue: {n}.",
    "lower": "One priority lower in its queue: {n}.",
    "last": "Moved to the end of its queue: {n}.",
    "nothing": "Nothing was changed: those jobs have moved on, or their file has changed.",
}
FIELDS = ("state", "profile", "library", "cause", "q", "size", "changed", "sort", "codec")
SIZES = {"": 0, "1": 10**9, "5": 5 * 10**9, "20": 20 * 10**9}
CHANGED = {"": 0, "1": 86_400, "7": 7 * 86_400, "30": 30 * 86_400}
CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "vc1", "prores", "mjpeg")
"""Names that the field for a codec offers; it takes every name of ffprobe."""
HEADS = {"path": (ListOrder.PATH, ListOrder.PATH_BACK), "size": (ListOrder.LARGEST, ListOrder.SMALLEST),
         "changed": (ListOrder.NEWEST, ListOrder.OLDEST)}  # fmt: skip
"""What the links in the table's head sort by: at the first press, and at the second."""


def routes() -> Sequence[BaseRoute]:
    return (
        OperatorRoute("/board/jobs", jobs),
        OperatorRoute("/board/jobs/now", news),
        OperatorRoute("/board/jobs/ask", ask),
        OperatorRoute("/board/jobs/change", of_form(change), methods=["POST"]),
        OperatorRoute("/board/jobs/{job_id}", show),
        OperatorRoute("/board/jobs/{job_id}/now", now),
        OperatorRoute("/board/jobs/{job_id}/certificate", certificate),
    )


def wanted_of(app: App, asked: Mapping[str, str], now: float | None = None) -> JobFilter:
    """Return which jobs the fields of an address or a form name, as of `now`.

    Raises HTTPException 400.
    """
    state, profile, name, cause = (asked.get(each, "") for each in FIELDS[:4])
    library = next((each for each in app.settings.libraries if each.name == name), None)
    known = state in STATES and (not name or name == OF_UPLOADS or library is not None)
    size, changed, sort, codec = (asked.get(each, "") for each in FIELDS[5:])
    known = known and size in SIZES and changed in CHANGED and len(codec) <= MAX_SEARCH
    sort = sort or ListOrder.NEWEST
    if not known or (cause and cause not in list(FailureClass)) or sort not in list(ListOrder):
        raise HTTPException(400, "There is no such list of jobs.")
    prefixes: tuple[str, ...] = (f"{UPLOADS}/",) if name == OF_UPLOADS else ()
    if library is not None:
        below = filters(str(library.path), app.backend)
        prefixes = next(each.key_prefixes for each in below if each.key_prefixes)
    if codec and app.settings.on_aws:
        raise HTTPException(400, "Jobs of this farm are not listed by codec.")
    if ListOrder(sort) not in app.backend.ledger.orders:
        raise HTTPException(400, "Jobs of this farm are listed by their last change only.")
    since = (app.clock.now() if now is None else now) - CHANGED[changed] if changed else None
    return JobFilter(
        states=STATES[state],
        profile=profile or None,
        key_prefixes=prefixes,
        updated_after=since,
        larger_than=SIZES[size],
        order=ListOrder(sort),
        text=asked.get("q", "").strip()[:MAX_SEARCH],
        cause=FailureClass(cause) if cause else None,
        codec=codec.strip().lower(),
    )


def _fields(asked: Mapping[str, str]) -> dict[str, str]:
    return {name: asked[name] for name in FIELDS if asked.get(name)}


def _shown(asked: Mapping[str, str]) -> dict[str, str]:
    return {name: asked.get(name, "") for name in FIELDS}


async def jobs(request: Request) -> Response:
    """Show a page of jobs. A search for words looks at many records, so that few run at a time."""
    services, asked = services_of(request), request.query_params
    wanted = wanted_of(services.app, asked)
    turns = services.searches if _searches(wanted) else None
    shown = await run_sync(_list, services.app, wanted, dict(asked), limiter=turns)
    live = not _searches(wanted) and not asked.get("before")
    return page(
        request,
        "jobs.html",
        list_html=shown,
        live=f"/board/jobs/now?{urlencode(_fields(asked))}" if live else "",
        asked=_shown(asked),
        sizes=[(each, f"over {each} GB") for each in SIZES if each],
        ages=[("1", "in the last day"), ("7", "in 7 days"), ("30", "in 30 days")],
        states=[(word, word) for word in STATES if word],
        codecs=() if services.app.settings.on_aws else CODECS,
        profiles=[(name, name) for name in sorted(services.app.profiles)],
        libraries=[
            *((each.name, each.name) for each in services.app.settings.libraries),
            (OF_UPLOADS, "uploads"),
        ],
        notice=_notice(asked),
    )


def _notice(asked: Mapping[str, str]) -> str:
    """Return what a redirect after a change says, or ""."""
    said = NOTICES.get(asked.get("notice", ""), "").format(n=whole(asked.get("n", "0")) or 0)
    return f"{said} The others follow." if said and asked.get("more") else said


def _searches(wanted: JobFilter) -> bool:
    """Return whether many jobs may be read for a few."""
    return bool(wanted.text or wanted.cause or wanted.codec)


def news(request: Request) -> Response:
    services, asked = services_of(request), _fields(request.query_params)
    wanted = wanted_of(services.app, asked)
    if _searches(wanted):  # again and again, it would hold up everybody's pages
        raise HTTPException(400, "A search is not kept up to date.")
    return HTMLResponse(_list(services.app, wanted, asked))


def _list(app: App, wanted: JobFilter, asked: Mapping[str, str]) -> str:
    ledger, fields = app.backend.ledger, _fields(asked)
    before = status.parse_cursor(asked.get("before", ""))
    found = status.list_jobs(ledger, replace(wanted, before=before), A_PAGE, app.catalog)
    counts = ledger.counts()
    numbers = {
        word: sum(
            count
            for (profile, state), count in counts.items()
            if state in states and wanted.profile in (None, profile)
        )
        for word, states in STATES.items()
        if word
    }
    heads = {}
    for name, (first, second) in HEADS.items():
        to = second if wanted.order is first else first
        address = f"/board/jobs?{urlencode({**fields, 'sort': to.value})}"
        heads[name] = address if to in ledger.orders else ""
    return render(
        "jobs_list.html",
        jobs=[_row(app, job) for job in found.jobs],
        places=_places(app, wanted),
        now=app.clock.now(),
        counts=numbers,
        asked=_shown(asked),
        heads=heads,
        order=wanted.order.value,
        states={word: f"/board/jobs?{urlencode({**fields, 'state': word})}" for word in numbers},
        causes=[
            (cause, count, status.remedy(cause), urlencode({**fields, "cause": cause.value}))
            for cause, count in (
                status.causes(ledger, wanted, app.catalog) if wanted.states == FAILED else ()
            )
        ],
        read=found.read,
        unordered="" if _ordered(app) else NO_ORDER,
        actions=_actions(app, wanted, found.jobs, fields),
        more=f"/board/jobs?{urlencode({**fields, 'before': found.cursor})}" if found.cursor else "",
    )


def _places(app: App, wanted: JobFilter) -> Mapping[str, int]:
    """Return which place in its queue each waiting job has, for a list of them alone."""
    queues = app.backend.queues.values() if wanted.states == STATES["waiting"] else ()
    return {job: place for queue in queues for place, job in enumerate(queue.waiting(), 1)}


def _row(app: App, job: JobRecord) -> tuple[JobRecord, str, Video | None]:
    """Return a job, why it is in its state, and the uploaded video that it is of."""
    video = video_of(app, job.source.key)
    return job, use_upload_name(video, reason_in_words(job)), video


def _actions(
    app: App, wanted: JobFilter, found: Sequence[JobRecord], fields: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return what can be done with all jobs of a list: words and the address of the question."""
    return [
        (words.format("all"), f"/board/jobs/ask?{urlencode({**fields, 'action': action})}")
        for action, (states, words) in ACTIONS.items()
        if any(job.state in states for job in found)
        and (action not in MOVES or (wanted.states == states and _ordered(app)))
    ]


def _ordered(app: App) -> bool:
    return any(queue.ordered for queue in app.backend.queues.values())


def ask(request: Request) -> Response:
    """Ask before all jobs of a list are changed, with how many they are."""
    app, asked = services_of(request).app, request.query_params
    action, words = _action(asked)
    asked_at = app.clock.now()
    count = hopeless = 0
    examples = []
    for job in _changeable(app, asked, action, asked_at):
        count += 1
        hopeless += job.failure_class is not None and job.failure_class not in RETRY_HELPS
        if count <= MAX_EXAMPLES:
            examples.append(status.shown_path(job))
    return page(
        request,
        "jobs_ask.html",
        question=words.format(counted(count, "job")),
        button=words.format(count),
        count=count,
        hopeless=hopeless if action == "retry" else 0,
        examples=examples,
        asked={**_fields(asked), "action": action, "asked_at": repr(asked_at)},
        back=f"/board/jobs?{urlencode(_fields(asked))}",
    )


def _action(asked: Mapping[str, str]) -> tuple[str, str]:
    """Return what is to be done, and its words. Raises HTTPException 400."""
    action = asked.get("action", "")
    if action not in ACTIONS:
        raise HTTPException(400, "Say what to do with these jobs.")
    return action, ACTIONS[action][1]


def _changeable(
    app: App, asked: Mapping[str, str], action: str, asked_at: float
) -> Iterator[JobRecord]:
    """Yield all jobs of a list that the action takes, but for those that changed after `asked_at`."""
    wanted, states = wanted_of(app, asked, asked_at), ACTIONS[action][0]
    found = status.changeable(app.backend.ledger, wanted, states, asked_at, app.catalog)
    return (job for job in found if action != "keep" or status.may_keep(job))


def _one(app: App, name: str, action: str) -> list[JobRecord]:
    """Return the job that a form names, unless it is not to be kept. Raises HTTPException 400."""
    if not JOB_ID.fullmatch(name):  # a path would change everything below it
        raise HTTPException(400, "Say which job.")
    job = app.backend.ledger.get(name)
    return [job] if job is not None and (action != "keep" or status.may_keep(job)) else []


def change(request: Request, form: Mapping[str, str]) -> Response:
    """Change one job, or all jobs of a list as it was when somebody was asked: the first ones now."""
    app, who = services_of(request).app, operator_of(request).name
    action, _ = _action(form)
    one = form.get("job", "")
    found = iter(_one(app, one, action)) if one else _asked_for(app, form, action)

    def step() -> tuple[int, int]:
        names = [job.job_id for job in islice(found, STEP)]
        return len(names), len(_changed(app, action, names, who))

    def go_on() -> None:
        try:
            while step()[0]:
                pass
        except HevcqError as error:  # the list shows what is left
            get_logger().warning("jobs_not_changed", action=action, reason=str(error))

    looked, count = step()
    more = BackgroundTask(go_on) if looked == STEP else None
    where = f"/board/jobs/{one}?" if one else f"/board/jobs?{urlencode(_fields(form))}&"
    where = f"{where}notice={action if count else 'nothing'}&n={count}{'&more=1' if more else ''}"
    return RedirectResponse(where, 303, background=more)


def _asked_for(app: App, form: Mapping[str, str], action: str) -> Iterator[JobRecord]:
    """Yield the jobs that somebody was asked about. Raises HTTPException 400."""
    try:
        asked_at = float(form.get("asked_at", ""))
    except ValueError:
        asked_at = math.nan
    if not 0 <= asked_at <= app.clock.now():  # false for a nan
        raise HTTPException(400, "Say when these jobs were asked about.")
    return _changeable(app, form, action, asked_at)


def _changed(app: App, action: str, names: Sequence[str], who: str) -> set[str]:
    """Do it, and return the ids of the jobs that it changed."""
    if action == "keep":
        return {job.job_id for job in keep_failed(app.backend, app.catalog, names, who)}
    for where in MOVES:
        if where == action:
            return {each.job.job_id for each in move(app.backend, names, where)}
    why = ReprocessRequest(names, states=FAILED, who=who, why="retry from the page", exact=True)
    made = cancel(app.backend, names, who) if action == "cancel" else reprocess(app.backend, why)
    good = {JobResult.CANCELLED, JobResult.QUEUED}
    return {each.job.job_id for each in made if each.result in good}


def _job(request: Request) -> JobRecord:
    return find_job(request, request.path_params["job_id"])


def show(request: Request) -> Response:
    """Show one job: what became of it and why, its history, its checks, and the commands."""
    app, job = services_of(request).app, _job(request)
    letters = DeadLetterFilter([job.profile], letter=job.job_id, limit=1)
    known = job.state is JobState.DEAD and job.profile in app.backend.queues
    letter = next((each for _, each in find(app.backend.queues, letters)), None) if known else None
    video = video_of(app, job.source.key)
    return page(
        request,
        "job.html",
        job=job,
        video=video,
        now_html=_now(app, job),
        proof=certificate_of(app, job),
        tail=letter.tail if letter is not None else (),
        history=_history(app, job, video),
        settled=job.state in SETTLED,
        notice=_notice(request.query_params),
    )


def _history(app: App, job: JobRecord, video: Video | None) -> list[tuple[float, str, str]]:
    """Return what happened to a job, newest first: when, what and why. Of attempts the last one is known."""
    rows = [
        (
            each.at,
            each.name.partition(".")[2],
            use_upload_name(video, skip_in_words(each.reason)[1]),
        )
        for each in event_log(app).of_job(job.job_id, MAX_HISTORY)
    ]
    if job.started_at:
        by = f"begun by {job.owner}" if job.owner else "begun"
        rows.append((job.started_at, f"{by}, attempt {job.fence}", ""))
    rows.append((job.created_at, "queued", ""))
    return sorted(rows, key=lambda row: row[0], reverse=True)


def now(request: Request) -> Response:
    return HTMLResponse(_now(services_of(request).app, _job(request)))


def _now(app: App, job: JobRecord) -> str:
    """Return what changes of a job, and what can be done about it."""
    progress = job.progress if job.state in UNDER_WAY else None
    queue = app.backend.queues.get(job.profile)
    return render(
        "job_now.html",
        job=job,
        words=_row(app, job)[1],
        remedy=status.remedy(job.failure_class) if job.state is JobState.DEAD else "",
        hopeful=job.failure_class in RETRY_HELPS,
        progress=progress,
        left=time_left(progress.phase.value, progress.percent, progress.eta_s) if progress else "",
        under_way=job.state in UNDER_WAY,
        ordered=queue.ordered if queue and job.state is JobState.QUEUED else None,
        may_keep=status.may_keep(job),
        now=app.clock.now(),
    )


def certificate_of(app: App, job: JobRecord) -> Certificate | None:
    """Return the proof of a rendition, in the store until it is placed, or in its library since."""
    made = job.rendition
    if job.state is not JobState.DONE or made is None:
        return None
    if (proof := video_farm(app).certificate(made.certificate_key)) is not None:
        return proof
    placement = app.catalog.placement(job.job_id)
    return None if placement is None else proof_at(placement.target, made)


def certificate(request: Request) -> Response:
    app, job = services_of(request).app, _job(request)
    return certificate_file(certificate_of(app, job), job.job_id)
