"""The libraries of this machine: the state of each, damaged videos, and the history of ingests.

A page of its own, not a part of the board: a file server that is gone lets its folders hang.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hevcq.ports.event_log import INGEST_ENDED
from hevcq.usecases.health.check import where
from hevcq.usecases.libraries.feed import waiting, words
from hevcq.usecases.libraries.shown import libraries_of
from hevcq.usecases.operations.savings import DAYS
from hevcq.util.text import whole
from hevcq.web.identity.person import operator_of
from hevcq.web.rendering import page
from hevcq.web.services import services_of
from hevcq.wiring.app import App
from hevcq.wiring.health import unsound_videos
from hevcq.wiring.notify import gathered

MAX_INGESTS = 30
MAX_UNSOUND = 100
"""Digits of the number of an event in an address."""


def routes() -> Sequence[BaseRoute]:
    """Return the routes of the libraries."""
    return (Route("/board/libraries", libraries),)


async def libraries(request: Request) -> Response:
    """Show the libraries of the settings, and the ingests that ended, newest first."""
    operator_of(request)
    app = services_of(request).app
    return await run_in_threadpool(_libraries, request, app)


def _libraries(request: Request, app: App) -> Response:
    log, now = gathered(app), app.clock.now()
    shown = libraries_of(app.settings, log, now, DAYS)
    given = request.query_params.get("before", "")
    before = whole(given) or 0
    unsound = unsound_videos(app)
    ended = log.latest(INGEST_ENDED, MAX_INGESTS + 1, before)
    return page(
        request,
        "libraries.html",
        libraries=shown,
        waiting={str(each["library"]): words(each) for each in waiting(app.settings.data_dir)},
        unsound=[(each, where(each.spots)) for each in unsound[:MAX_UNSOUND]],
        more=max(0, len(unsound) - MAX_UNSOUND),
        ingests=ended[:MAX_INGESTS],
        earlier=ended[MAX_INGESTS - 1].seq if len(ended) > MAX_INGESTS else 0,
        days=DAYS,
        now=now,
    )
