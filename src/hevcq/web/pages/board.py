"""The operator's board: queues, running and failed jobs, savings, libraries, and this machine's check."""

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
from hevcq.usecases.stats import DAYS, Savings, libraries_of, savings
from hevcq.util.text import bars_svg, size, whole
from hevcq.web.checks import findings
from hevcq.web.identity.person import operator_of
from hevcq.web.rendering import page, render, time_left
from hevcq.web.services import OperatorRoute, of_form, services_of
from hevcq.wiring.app import App
from hevcq.wiring.contexts import up_to_date_log

MAX_RUNNING = 50
MAX_LETTERS = 50
PAUSES: dict[str, float | None] = {"": None, "1h": 3600, "8h": 28_800}
"""How long a pause from the page may last, in seconds; None is until somebody resumes."""
NOTICES = {
    "paused": "Paused: running encodes finish, nothing new begins.",
    "resumed": "Work goes on.",
    "not_paused": "Nothing was paused.",
    "drained": "That machine finishes what it encodes, and takes no new work.",
    "works": "That machine works again.",
    "unknown": "That machine is not in the list any more.",
}
"""The message that a redirect after a change shows."""


def routes() -> Sequence[BaseRoute]:
    return (
        OperatorRoute("/board", board),
        OperatorRoute("/board/now", now),
        OperatorRoute("/board/doctor", doctor),
        OperatorRoute("/board/libraries", libraries),
        OperatorRoute("/board/pause", of_form(hold), methods=["POST"]),
        OperatorRoute("/board/resume", go_on, methods=["POST"]),
        OperatorRoute("/board/drain", of_form(drain), methods=["POST"]),
    )


def now(request: Request) -> Response:
    return HTMLResponse(_now(services_of(request).app))


def doctor(request: Request) -> Response:
    return page(request, "doctor.html", findings=findings(services_of(request).app))


def hold(request: Request, form: Mapping[str, str]) -> Response:
    """Let nothing new begin, for some time or until resumed; running encodes finish.

    Raises HTTPException 400.
    """
    app, length = services_of(request).app, form.get("for", "")
    if length not in PAUSES:
        raise HTTPException(400, "Say for how long.")
    wanted = Pause(by=operator_of(request).name, since=app.clock.now())
    pause(app.backend.ledger, wanted, PAUSES[length])
    return _back("paused")


def go_on(request: Request) -> Response:
    """End every pause; the hours of the settings still hold."""
    ended = resume(services_of(request).app.backend.ledger, None)
    return _back("resumed" if ended else "not_paused")


def drain(request: Request, form: Mapping[str, str]) -> Response:
    """Let a machine take no new work, or with `work` let it work again. Raises HTTPException 404."""
    machines, who = services_of(request).app.backend.machines, operator_of(request).name
    if machines is None:
        raise HTTPException(404)
    works = form.get("work") == "yes"
    known = machines.drain(form.get("machine", ""), "" if works else who)
    return _back("unknown" if not known else "works" if works else "drained")


def board(request: Request) -> Response:
    app = services_of(request).app
    # Letters that a service made by itself are recorded first, as `hevcq status` does.
    ExpiredMessages(app.backend, most=MAX_LETTERS).check()
    saved = savings(up_to_date_log(app), app.profiles, app.clock.now())
    return page(
        request,
        "board.html",
        now_html=_now(app),
        paused=any(each.profile != BY_PRICE for each in app.backend.ledger.pauses()),
        notice=NOTICES.get(request.query_params.get("notice", ""), ""),
        saved=saved,
        chart=savings_chart(saved),
        days=DAYS,
    )


def _now(app: App) -> str:
    found = overview(app.backend, app.clock, app.settings, app.condition(), limit=MAX_RUNNING)
    running = []
    for job in found.running:
        left = time_left(job.phase, job.percent, job.eta_s) if job.alive else ""
        running.append((job, left, video_of(app, job.key)))
    usual, chosen = app.settings.ingest.profiles, set[str]()
    for library in app.settings.libraries:
        chosen |= {*library.chosen, *(library.profiles or usual)}
    queues = [each for each in found.queues if each.profile in chosen or each.is_used]
    known = app.backend.machines
    machines = [
        (each, state_of(each), [(job, video_of(app, job.key)) for job in each.jobs])
        for each in (known.processes() if known else ())
    ]
    facts = {"found": found, "queues": queues, "running": running, "machines": machines}
    return render("board_now.html", **facts, libraries=bool(app.settings.libraries))


def video_of(app: App, key: str) -> Video | None:
    """Return the uploaded video that a source's key belongs to; None for a library's file."""
    folder, _, name = key.rpartition("/")
    video_id = name.partition(".")[0]
    if folder != UPLOADS or not is_video_id(video_id):
        return None
    try:
        return app.videos.get(video_id)
    except HevcqError:  # its name is all that is missing
        return None


def _back(notice: str) -> Response:
    return RedirectResponse(f"/board?notice={notice}", 303)


MAX_INGESTS = 30
MAX_UNSOUND = 100


def libraries(request: Request) -> Response:
    """Show the libraries of the settings, and the ingests that ended, newest first.

    A page of its own, not a part of the board: a file server that is gone lets its folders hang.
    """
    app = services_of(request).app
    log, now = up_to_date_log(app), app.clock.now()
    shown = libraries_of(app.settings, log, now, DAYS)
    before = whole(request.query_params.get("before", "")) or 0
    found = list_unsound(app)
    ended = log.latest(INGEST_ENDED, MAX_INGESTS + 1, before)
    return page(
        request,
        "libraries.html",
        libraries=shown,
        waiting={
            str(each["library"]): library_words(each)
            for each in library_rows(app.settings.data_dir)
        },
        unsound=[(each, damage_places(each.spots)) for each in found[:MAX_UNSOUND]],
        more=max(0, len(found) - MAX_UNSOUND),
        ingests=ended[:MAX_INGESTS],
        earlier=ended[MAX_INGESTS - 1].seq if len(ended) > MAX_INGESTS else 0,
        days=DAYS,
        now=now,
    )


def savings_chart(saved: Savings) -> Markup:
    """Return the bytes saved each day as bars, with a sentence for who cannot see them.

    A day on which the renditions were larger in sum has no bar.
    """
    bars = [(f"{day:%d %b}".lstrip("0"), count) for day, count in saved.by_day]
    drawn = bars_svg(bars, "Bytes saved each day", lambda count: size(round(count)))
    return Markup(drawn)  # noqa: S704 - it escapes names
