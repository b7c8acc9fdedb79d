"""Build the ASGI application of an opened farm: guards, sign-in, pages, errors, upkeep."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from hevcq.errors import HevcqError
from hevcq.running.machines import JoinedMachines
from hevcq.usecases.compare import Comparisons
from hevcq.usecases.videos.playback import Pictures, TextReader
from hevcq.usecases.videos.uploads import EVERY_AWS_S, EVERY_S, process_due
from hevcq.util.log import get_logger
from hevcq.web import joined, media, uploads
from hevcq.web.api.openapi import API
from hevcq.web.identity.attempts import AttemptLimiter
from hevcq.web.identity.authentication import Authenticator, SignInFirst, make_mode
from hevcq.web.identity.person import maybe_person
from hevcq.web.identity.session import Cookies, configured_key, stored_key
from hevcq.web.pages import (
    board,
    compare,
    figures,
    home,
    jobs,
    profiles,
    settings,
    setup,
    sign_in,
    video,
)
from hevcq.web.problems import error_problem, problem, status_of, validation_problem
from hevcq.web.rendering import page
from hevcq.web.services import Services
from hevcq.web.shield import FOR_PROGRAMS, OwnRequests, SecurityHeaders, content_policy
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm, video_messages

PAGES = (sign_in, setup, home, video, board, compare, figures, jobs, settings, profiles)
YEAR_S = 31_536_000
MIN_COMPRESSED = 1024
UNCOMPRESSED = (*FOR_PROGRAMS, "/p/")
"""Paths whose answers are never compressed: files requested by range, and answers to programs."""


def create_app(app: App) -> FastAPI:
    """Return the application. Raises ConfigError, StorageError, or Unavailable on AWS."""
    web = app.settings.web
    secure = web.url.startswith("https://")
    configured = web.session_key.get_secret_value()
    key = configured_key(configured) if configured else stored_key(app.settings.data_dir / "web")
    mode = make_mode(web, app.accounts, app.clock)
    authenticator = Authenticator(mode, Cookies(key, secure=secure), app.accounts, app.clock)
    policy = content_policy(() if not app.settings.uploads_direct else app.video_files.origins())
    application = FastAPI(
        openapi_url=None,
        routes=_routes(),
        middleware=[
            Middleware(SecurityHeaders, policy=policy, secure=secure),
            Middleware(OwnRequests, name=urlsplit(web.url).hostname),
            Middleware(SignInFirst, authenticator=authenticator),
            Middleware(CompressPages),
        ],
        lifespan=_lifespan,
        exception_handlers={
            HTTPException: _http_error,
            HevcqError: _hevcq_error,
            RequestValidationError: _invalid_values,
        },
    )
    application.include_router(API)
    application.state.send_event = video_messages(app)
    application.state.services = Services(
        app,
        authenticator,
        AttemptLimiter(app.clock),
        Pictures(app.encoder, app.settings.data_dir / "web" / "pictures"),
        TextReader(app.encoder, app.settings.data_dir / "web" / "texts"),
        JoinedMachines(app),
        Comparisons(app, app.settings.data_dir / "web" / "compare"),
    )
    return application


class CompressPages:
    """Compress pages and assets, but never a video, which clients request by range."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._compressing = app, GZipMiddleware(app, MIN_COMPRESSED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] != "http" or scope["path"].startswith(UNCOMPRESSED)
        await (self._app if plain else self._compressing)(scope, receive, send)


class Assets(StaticFiles):
    """Static files, which browsers cache for a year: their address changes with their content."""

    def file_response(self, *args: object, **named: object) -> Response:
        response: Response = super().file_response(*args, **named)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        return response


def _routes() -> list[BaseRoute]:
    return [
        Route("/healthz", _healthy),
        Route("/favicon.ico", lambda _request: Response(status_code=204)),
        *(route for page in PAGES for route in page.routes()),
        *uploads.routes(),
        *joined.routes(),
        *media.routes(),
        Mount("/static", Assets(packages=[("hevcq.web", "static")])),
    ]


async def _healthy(_request: Request) -> Response:
    """Answer that this process is alive. It asks no database, so a busy one restarts no server."""
    return PlainTextResponse("ok")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "Not found.", 405: "This address can't do that."}
    sentence = words.get(error.status_code, error.detail)
    if request.url.path.startswith(FOR_PROGRAMS):
        return problem(error.status_code, sentence, headers=error.headers)
    return _error_page(request, error.status_code, sentence)


async def _invalid_values(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return validation_problem(error.errors())


async def _hevcq_error(request: Request, error: Exception) -> Response:
    """Show the sentence of an error that hevcq raised: it names no secret."""
    assert isinstance(error, HevcqError)
    path = request.url.path
    get_logger().warning("request_failed", path=path, reason=str(error))
    if path.startswith("/uploads"):
        return uploads.error_answer(request, error)
    if path.startswith(FOR_PROGRAMS) or "/media/" in path:
        return error_problem(error)
    person = maybe_person(request)
    words = str(error) if person is not None and person.is_operator else error.message
    return _error_page(request, status_of(error), words)


def _error_page(request: Request, status: int, words: str) -> Response:
    return page(request, "error.html", status=status, words=words, code=status)


JOIN_S = 10.0
"""Seconds that a stop waits for a running upkeep; the next start repairs one that was killed."""


def _run_upkeep(
    app: App, step: Callable[[], object], every_s: float, stop: threading.Event
) -> None:
    """Call `step` every `every_s` seconds until the stop; an error is logged and the next call tries again."""
    while not stop.is_set():
        try:
            step()
        except HevcqError as error:
            get_logger().warning("videos_not_kept_up", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a bug here must not end the upkeep
            get_logger().error("videos_not_kept_up", reason=f"{type(error).__name__}: {error}")
        app.clock.wait(stop, every_s)


@asynccontextmanager
async def _lifespan(application: Starlette) -> AsyncIterator[None]:
    """Run the upkeep of videos in a thread while the application runs."""
    services: Services = application.state.services
    app = services.app
    every_s = EVERY_S if not app.settings.on_aws else EVERY_AWS_S
    stop, send = threading.Event(), application.state.send_event

    def step() -> None:
        process_due(video_farm(app), send)
        if app.settings.on_aws:
            app.daily_cap.check()

    work = (app, step, every_s, stop)
    upkeep = threading.Thread(target=_run_upkeep, args=work, name="hevcq-web-upkeep", daemon=True)
    upkeep.start()
    try:
        yield
    finally:
        stop.set()
        upkeep.join(JOIN_S)
        for each in (services.trial, services.texts, services.machines, services.comparisons):
            each.close()
