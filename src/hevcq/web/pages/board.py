"""The operator's board: queues, running jobs, machines, pauses, savings, libraries, and the check."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute

from hevcq.domain.keys import UPLOADS
from hevcq.domain.schedule import Pause
from hevcq.domain.videos import Video, is_video_id
from hevcq.errors import HevcqError
from hevcq.ports.catalog import INGEST_ENDED
from hevcq.usecases.check import damage_places, list_unsound
from hevcq.usecases.operations.dead_letters import ExpiredMessages
from hevcq.usecases.operations.pausing import BY_PRICE, pause, resume
from hevcq.usecases.operations.status import (
    library_rows,
    library_words,
    overview,
    state_of,
)
from hevcq.usecases.stats import DAYS, libraries_of, savings
from hevcq.util.text import bars_svg, size, whole
from hevcq.web.checks import findings
from hevcq.web.identity.person import operator_of
from hevcq.web.rendering import page, render, time_left
from hevcq.web.services import OperatorRoute, form_endpoint, services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import up_to_date_log

MAX_RUNNING = 50
MAX_LETTERS = 50
PAUSES: dict[str, float | None] = {"": None, "1h": 3600, "8h": 28_800}
"""Seconds that a pause from the page may last; None lasts until somebody resumes."""
NOTICES = {
    "paused": "Paused: running encodes finish, no new ones start.",
    "resumed": "Resumed.",
    "not_paused": "Nothing was paused.",
    "drained": "That machine finishes its encodes and takes no new work.",
    "works": "That machine works again.",
    "unknown": "That machine is no longer listed.",
}
"""The message after a change, by the word in the redirect's address."""


def routes() -> Sequence[BaseRoute]:
    return (
        OperatorRoute("/board", board),
        OperatorRoute("/board/now", now),
        OperatorRoute("/board/doctor", doctor),
        OperatorRoute("/board/libraries", libraries),
        OperatorRoute("/board/pause", form_endpoint(pause_work), methods=["POST"]),
        OperatorRoute("/board/resume", resume_work, methods=["POST"]),
        OperatorRoute("/board/drain", form_endpoint(drain), methods=["POST"]),
    )


def now(request: Request) -> Response:
    return HTMLResponse(_now(services_of(request).app))


def doctor(request: Request) -> Response:
    return page(request, "doctor.html", findings=findings(services_of(request).app))


def pause_work(request: Request, form: Mapping[str, str]) -> Response:
    """Stop new work for the form's time or until resumed. Raises HTTPException 400."""
    app, length = services_of(request).app, form.get("for", "")
    if length not in PAUSES:
        raise HTTPException(400, "Choose how long to pause.")
    new = Pause(by=operator_of(request).name, since=app.clock.now())
    pause(app.backend.ledger, new, PAUSES[length])
    return _back("paused")


def resume_work(request: Request) -> Response:
    """End every pause; the hours of the settings still apply."""
    pauses = resume(services_of(request).app.backend.ledger, None)
    return _back("resumed" if pauses else "not_paused")


def drain(request: Request, form: Mapping[str, str]) -> Response:
    """Drain a machine, or with `work` resume it. Raises HTTPException 404."""
    machines, who = services_of(request).app.backend.machines, operator_of(request).name
    if machines is None:
        raise HTTPException(404)
    resumes = form.get("work") == "yes"
    is_listed = machines.drain(form.get("machine", ""), "" if resumes else who)
    return _back("unknown" if not is_listed else "works" if resumes else "drained")


def board(request: Request) -> Response:
    app = services_of(request).app
    # Dead letters that SQS made by itself are recorded first, as `hevcq status` does.
    ExpiredMessages(app.backend, most=MAX_LETTERS).check()
    saved = savings(up_to_date_log(app), app.profiles, app.clock.now())
    bars = [(f"{day:%d %b}".lstrip("0"), count) for day, count in saved.by_day]
    chart = bars_svg(bars, "Bytes saved each day", lambda count: size(round(count)))
    return page(
        request,
        "board.html",
        now_html=_now(app),
        paused=any(each.profile != BY_PRICE for each in app.backend.ledger.pauses()),
        notice=NOTICES.get(request.query_params.get("notice", ""), ""),
        saved=saved,
        chart=Markup(chart),  # noqa: S704 - it escapes names
        days=DAYS,
    )


def _now(app: App) -> str:
    farm = overview(app.backend, app.clock, app.settings, app.condition(), limit=MAX_RUNNING)
    running = []
    for job in farm.running:
        left = time_left(job.phase, job.percent, job.eta_s) if job.alive else ""
        running.append((job, left, video_of(app, job.key)))
    default_profiles, profiles = app.settings.ingest.profiles, set[str]()
    for library in app.settings.libraries:
        profiles |= {*library.chosen, *(library.profiles or default_profiles)}
    queues = [queue for queue in farm.queues if queue.profile in profiles or queue.is_used]
    registry = app.backend.machines
    machines = [
        (machine, state_of(machine), [(job, video_of(app, job.key)) for job in machine.jobs])
        for machine in (registry.processes() if registry else ())
    ]
    facts = {"found": farm, "queues": queues, "running": running, "machines": machines}
    return render("board_now.html", **facts, libraries=bool(app.settings.libraries))


def video_of(app: App, key: str) -> Video | None:
    """Return the uploaded video of a source's key; None for a library's file."""
    folder, _, name = key.rpartition("/")
    video_id = name.partition(".")[0]
    if folder != UPLOADS or not is_video_id(video_id):
        return None
    try:
        return app.videos.get(video_id)
    except HevcqError:  # then the page only lacks its title
        return None


def _back(notice: str) -> Response:
    return RedirectResponse(f"/board?notice={notice}", 303)


MAX_INGESTS = 30
MAX_UNSOUND = 100


def libraries(request: Request) -> Response:
    """Show the libraries of the settings, and the finished ingests, newest first.

    A page of its own, because folders of a file server that is gone may block for long.
    """
    app = services_of(request).app
    log, now = up_to_date_log(app), app.clock.now()
    before = whole(request.query_params.get("before", "")) or 0
    damaged = list_unsound(app)
    ingests = log.latest(INGEST_ENDED, MAX_INGESTS + 1, before)
    return page(
        request,
        "libraries.html",
        libraries=libraries_of(app.settings, log, now, DAYS),
        waiting={
            str(each["library"]): library_words(each)
            for each in library_rows(app.settings.data_dir)
        },
        unsound=[(each, damage_places(each.spots)) for each in damaged[:MAX_UNSOUND]],
        more=max(0, len(damaged) - MAX_UNSOUND),
        ingests=ingests[:MAX_INGESTS],
        earlier=ingests[MAX_INGESTS - 1].seq if len(ingests) > MAX_INGESTS else 0,
        days=DAYS,
        now=now,
    )
