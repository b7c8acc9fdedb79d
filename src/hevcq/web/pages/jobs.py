"""The queue: lists of jobs by state, library, profile, cause and text; changing them; a job's page."""

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
from hevcq.web.services import OperatorRoute, certificate_file, find_job, form_endpoint, services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import event_log, video_farm

A_PAGE = 50
MAX_SEARCH = 200
MAX_HISTORY = 50
MAX_EXAMPLES = 5
STEP = 200
"""Jobs that are changed before the page answers; the others are changed in the background."""
STATES: Mapping[str, frozenset[JobState]] = {
    "": frozenset(),
    "waiting": frozenset({JobState.QUEUED}),
    "running": frozenset({JobState.RUNNING, JobState.SPLIT}),
    "failed": frozenset({JobState.DEAD}),
    "skipped": frozenset({JobState.SKIPPED}),
    "done": frozenset({JobState.DONE}),
}
"""The states of a list, by the word in the address; "" is every state."""
OF_UPLOADS = "uploads/"
"""Stands for uploaded videos in place of a library's name, which never has a slash."""
FAILED = STATES["failed"]
MOVES: tuple[Move, ...] = get_args(Move)
ACTIONS: dict[str, tuple[frozenset[JobState], str]] = {
    "retry": (FAILED, "Retry {}"),
    "keep": (FAILED, "Keep {} unchanged"),
    "cancel": (UNDER_WAY, "Cancel {}"),
    **{word: (STATES["waiting"], f"Put {{}} {word}") for word in MOVES},
}
"""Actions on all jobs of a list: the states that each applies to, and the words of its button."""
NOTICES = {
    "retry": "Queued again: {n}.",
    "keep": "Kept as they are, no longer reported: {n}.",
    "cancel": "Cancelled: {n}.",
    "first": "Moved to the front of its queue: {n}.",
    "higher": "One priority higher in its queue: {n}.",
    "lower": "One priority lower in its queue: {n}.",
    "last": "Moved to the end of its queue: {n}.",
    "nothing": "Nothing was changed: those jobs or their files have changed.",
}
FIELDS = ("state", "profile", "library", "cause", "q", "size", "changed", "sort", "codec")
SIZES = {"": 0, "1": 10**9, "5": 5 * 10**9, "20": 20 * 10**9}
CHANGED = {"": 0, "1": 86_400, "7": 7 * 86_400, "30": 30 * 86_400}
CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "vc1", "prores", "mjpeg")
"""Suggestions of the field for a codec, which accepts every name of ffprobe."""
HEADS = {"path": (ListOrder.PATH, ListOrder.PATH_BACK), "size": (ListOrder.LARGEST, ListOrder.SMALLEST),
         "changed": (ListOrder.NEWEST, ListOrder.OLDEST)}  # fmt: skip
"""The sort orders of the links in the table's head: at the first click, and at the second."""


def routes() -> Sequence[BaseRoute]:
    return (
        OperatorRoute("/board/jobs", jobs),
        OperatorRoute("/board/jobs/now", poll_list),
        OperatorRoute("/board/jobs/ask", ask),
        OperatorRoute("/board/jobs/change", form_endpoint(change), methods=["POST"]),
        OperatorRoute("/board/jobs/{job_id}", show),
        OperatorRoute("/board/jobs/{job_id}/now", now),
        OperatorRoute("/board/jobs/{job_id}/certificate", certificate),
    )


def job_filter_of(app: App, asked: Mapping[str, str], now: float | None = None) -> JobFilter:
    """Return the filter in the fields of an address or a form, as of `now`. Raises HTTPException 400."""
    state, profile, name, cause = (asked.get(each, "") for each in FIELDS[:4])
    library = next((each for each in app.settings.libraries if each.name == name), None)
    is_valid = state in STATES and (not name or name == OF_UPLOADS or library is not None)
    size, changed, sort, codec = (asked.get(each, "") for each in FIELDS[5:])
    is_valid = is_valid and size in SIZES and changed in CHANGED and len(codec) <= MAX_SEARCH
    sort = sort or ListOrder.NEWEST
    if not is_valid or (cause and cause not in list(FailureClass)) or sort not in list(ListOrder):
        raise HTTPException(400, "This list of jobs does not exist.")
    prefixes: tuple[str, ...] = (f"{UPLOADS}/",) if name == OF_UPLOADS else ()
    if library is not None:
        below = filters(str(library.path), app.backend)
        prefixes = next(each.key_prefixes for each in below if each.key_prefixes)
    if codec and app.settings.on_aws:
        raise HTTPException(400, "On this farm jobs cannot be listed by codec.")
    if ListOrder(sort) not in app.backend.ledger.orders:
        raise HTTPException(400, "On this farm jobs can be sorted by their last change only.")
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
    """Show a page of jobs. A search reads many records, so only a few run at a time."""
    services, asked = services_of(request), request.query_params
    job_filter = job_filter_of(services.app, asked)
    turns = services.searches if _searches(job_filter) else None
    list_html = await run_sync(_list, services.app, job_filter, dict(asked), limiter=turns)
    live = not _searches(job_filter) and not asked.get("before")
    return page(
        request,
        "jobs.html",
        list_html=list_html,
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
    """Return the message after a change, or ""."""
    message = NOTICES.get(asked.get("notice", ""), "").format(n=whole(asked.get("n", "0")) or 0)
    return f"{message} The others follow." if message and asked.get("more") else message


def _searches(job_filter: JobFilter) -> bool:
    """Return whether finding a few jobs may read many."""
    return bool(job_filter.text or job_filter.cause or job_filter.codec)


def poll_list(request: Request) -> Response:
    services, asked = services_of(request), _fields(request.query_params)
    job_filter = job_filter_of(services.app, asked)
    if _searches(job_filter):  # repeated every few seconds, it would slow down everybody's pages
        raise HTTPException(400, "A search is not updated.")
    return HTMLResponse(_list(services.app, job_filter, asked))


def _list(app: App, job_filter: JobFilter, asked: Mapping[str, str]) -> str:
    ledger, fields = app.backend.ledger, _fields(asked)
    before = status.parse_cursor(asked.get("before", ""))
    listed = status.list_jobs(ledger, replace(job_filter, before=before), A_PAGE, app.catalog)
    is_failed = job_filter.states == FAILED
    causes = status.causes(ledger, job_filter, app.catalog) if is_failed else ()
    counts, cursor = ledger.counts(), listed.cursor
    numbers = {
        word: sum(
            count
            for (profile, state), count in counts.items()
            if state in states and job_filter.profile in (None, profile)
        )
        for word, states in STATES.items()
        if word
    }
    heads = {}
    for name, (first, second) in HEADS.items():
        to = second if job_filter.order is first else first
        address = f"/board/jobs?{urlencode({**fields, 'sort': to.value})}"
        heads[name] = address if to in ledger.orders else ""
    return render(
        "jobs_list.html",
        jobs=[_row(app, job) for job in listed.jobs],
        places=_places(app, job_filter),
        now=app.clock.now(),
        counts=numbers,
        asked=_shown(asked),
        heads=heads,
        order=job_filter.order.value,
        states={word: f"/board/jobs?{urlencode({**fields, 'state': word})}" for word in numbers},
        causes=[
            (cause, count, status.remedy(cause), urlencode({**fields, "cause": cause.value}))
            for cause, count in causes
        ],
        read=listed.read,
        unordered="" if _ordered(app) else NO_ORDER,
        actions=_actions(app, job_filter, listed.jobs, fields),
        more=f"/board/jobs?{urlencode({**fields, 'before': cursor})}" if cursor else "",
    )


def _places(app: App, job_filter: JobFilter) -> Mapping[str, int]:
    """Return each waiting job's position in its queue, if the list shows only waiting jobs."""
    queues = app.backend.queues.values() if job_filter.states == STATES["waiting"] else ()
    return {job: place for queue in queues for place, job in enumerate(queue.waiting(), 1)}


def _row(app: App, job: JobRecord) -> tuple[JobRecord, str, Video | None]:
    """Return a job, the reason of its state, and its uploaded video."""
    video = video_of(app, job.source.key)
    return job, use_upload_name(video, reason_in_words(job)), video


def _actions(
    app: App, job_filter: JobFilter, found: Sequence[JobRecord], fields: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the actions on all jobs of a list: words, and the address of the confirmation."""
    return [
        (words.format("all"), f"/board/jobs/ask?{urlencode({**fields, 'action': action})}")
        for action, (states, words) in ACTIONS.items()
        if any(job.state in states for job in found)
        and (action not in MOVES or (job_filter.states == states and _ordered(app)))
    ]


def _ordered(app: App) -> bool:
    return any(queue.ordered for queue in app.backend.queues.values())


def ask(request: Request) -> Response:
    """Ask whether to change all jobs of a list, and show how many they are."""
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
    """Return the action in a form, and its words. Raises HTTPException 400."""
    action = asked.get("action", "")
    if action not in ACTIONS:
        raise HTTPException(400, "Choose what to do with these jobs.")
    return action, ACTIONS[action][1]


def _changeable(
    app: App, asked: Mapping[str, str], action: str, asked_at: float
) -> Iterator[JobRecord]:
    """Yield the jobs of a list that the action applies to and that have not changed since `asked_at`."""
    job_filter, states = job_filter_of(app, asked, asked_at), ACTIONS[action][0]
    changeable = status.changeable(app.backend.ledger, job_filter, states, asked_at, app.catalog)
    return (job for job in changeable if action != "keep" or status.may_keep(job))


def _one(app: App, name: str, action: str) -> list[JobRecord]:
    """Return the job with this id, if the action applies to it. Raises HTTPException 400."""
    if not JOB_ID.fullmatch(name):  # a path would change everything below it
        raise HTTPException(400, "Choose a job.")
    job = app.backend.ledger.get(name)
    return [job] if job is not None and (action != "keep" or status.may_keep(job)) else []


def change(request: Request, form: Mapping[str, str]) -> Response:
    """Change one job, or all jobs of a confirmed list: STEP of them now, the others in the background."""
    app, who = services_of(request).app, operator_of(request).name
    action, _ = _action(form)
    one = form.get("job", "")
    to_change = iter(_one(app, one, action)) if one else _confirmed_jobs(app, form, action)

    def step() -> tuple[int, int]:
        names = [job.job_id for job in islice(to_change, STEP)]
        return len(names), len(_apply(app, action, names, who))

    def change_others() -> None:
        try:
            while step()[0]:
                pass
        except HevcqError as error:  # the list shows what is left
            get_logger().warning("jobs_not_changed", action=action, reason=str(error))

    read, count = step()
    more = BackgroundTask(change_others) if read == STEP else None
    where = f"/board/jobs/{one}?" if one else f"/board/jobs?{urlencode(_fields(form))}&"
    where = f"{where}notice={action if count else 'nothing'}&n={count}{'&more=1' if more else ''}"
    return RedirectResponse(where, 303, background=more)


def _confirmed_jobs(app: App, form: Mapping[str, str], action: str) -> Iterator[JobRecord]:
    """Yield the jobs of the list that was confirmed. Raises HTTPException 400."""
    try:
        asked_at = float(form.get("asked_at", ""))
    except ValueError:
        asked_at = math.nan
    if not 0 <= asked_at <= app.clock.now():  # false for a nan
        raise HTTPException(400, "The time of the question is missing.")
    return _changeable(app, form, action, asked_at)


def _apply(app: App, action: str, names: Sequence[str], who: str) -> set[str]:
    """Carry out the action; return the ids of the jobs that it changed."""
    if action == "keep":
        return {job.job_id for job in keep_failed(app.backend, app.catalog, names, who)}
    for where in MOVES:
        if where == action:
            return {each.job.job_id for each in move(app.backend, names, where)}
    why = ReprocessRequest(names, states=FAILED, who=who, why="retry from the page", exact=True)
    changes = cancel(app.backend, names, who) if action == "cancel" else reprocess(app.backend, why)
    good = {JobResult.CANCELLED, JobResult.QUEUED}
    return {each.job.job_id for each in changes if each.result in good}


def _job(request: Request) -> JobRecord:
    return find_job(request, request.path_params["job_id"])


def show(request: Request) -> Response:
    """Show one job: its state and reason, progress, checks, commands and history."""
    app, job = services_of(request).app, _job(request)
    letters = DeadLetterFilter([job.profile], letter=job.job_id, limit=1)
    has_letter = job.state is JobState.DEAD and job.profile in app.backend.queues
    dead_letters = find(app.backend.queues, letters) if has_letter else ()
    letter = next((each for _, each in dead_letters), None)
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
    """Return a job's history, newest first: time, event and reason. Of its attempts only the last is known."""
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
    """Return the part of a job's page that changes: state, progress and actions."""
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
    """Return the certificate of a rendition, from the store or, once it was placed, from its library."""
    rendition = job.rendition
    if job.state is not JobState.DONE or rendition is None:
        return None
    if (proof := video_farm(app).certificate(rendition.certificate_key)) is not None:
        return proof
    placement = app.catalog.placement(job.job_id)
    return None if placement is None else proof_at(placement.target, rendition)


def certificate(request: Request) -> Response:
    app, job = services_of(request).app, _job(request)
    return certificate_file(certificate_of(app, job), job.job_id)
