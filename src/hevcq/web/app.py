"""Make the ASGI application over an opened farm: guards, sign-in, pages."""

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
from hevcq.web.identity.authentication import Authenticator, Limiter, SignInFirst, make_mode
from hevcq.web.identity.person import maybe_person
from hevcq.web.identity.session import Cookies, configured_key, kept_key
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
from hevcq.web.problems import of_error, of_values, problem, status_of
from hevcq.web.rendering import page
from hevcq.web.services import Services
from hevcq.web.shield import OwnRequests, SecurityHeaders, content_policy
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm, video_messages

YEAR_S = 31_536_000
MIN_COMPRESSED = 1024
RAW = ("/api/", "/media/", "/uploads", "/p/")
"""Paths whose answers are left as they are: ranges of files, and what programs read."""


def create_app(app: App) -> FastAPI:
    """Return the application. Raises ConfigError, StorageError, or Unavailable on AWS."""
    web = app.settings.web
    secure = web.url.startswith("https://")
    configured = web.session_key.get_secret_value()
    key = configured_key(configured) if configured else kept_key(app.settings.data_dir / "web")
    mode = make_mode(web, app.accounts, app.clock)
    authenticator = Authenticator(mode, Cookies(key, secure=secure), app.accounts, app.clock)
    policy = content_policy(() if not app.settings.uploads_direct else app.video_files.origins())
    made = FastAPI(
        openapi_url=None,
        routes=_routes(),
        middleware=[
            Middleware(SecurityHeaders, policy=policy, secure=secure),
            Middleware(OwnRequests, name=urlsplit(web.url).hostname),
            Middleware(SignInFirst, authenticator=authenticator),
            Middleware(Compressed),
        ],
        lifespan=kept_up,
        exception_handlers={
            HTTPException: _refused,
            HevcqError: _failed,
            RequestValidationError: _invalid,
        },
    )
    made.include_router(API)
    made.state.send_event = video_messages(app)
    made.state.services = Services(
        app,
        authenticator,
        Limiter(app.clock),
        Pictures(app.encoder, app.settings.data_dir / "web" / "pictures"),
        TextReader(app.encoder, app.settings.data_dir / "web" / "texts"),
        JoinedMachines(app),
        Comparisons(app, app.settings.data_dir / "web" / "compare"),
    )
    return made


class Compressed:
    """Compress pages and assets; never the bytes of a video, which clients ask for by range."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._small = app, GZipMiddleware(app, MIN_COMPRESSED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] != "http" or scope["path"].startswith(RAW)
        await (self._app if plain else self._small)(scope, receive, send)


class Assets(StaticFiles):
    """Static files, which browsers keep for a year: their address changes with their content."""

    def file_response(self, *args: object, **named: object) -> Response:
        response: Response = super().file_response(*args, **named)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        return response


def _routes() -> list[BaseRoute]:
    return [
        Route("/healthz", _healthy),
        Route("/favicon.ico", _no_icon),
        *sign_in.routes(),
        *setup.routes(),
        *home.routes(),
        *video.routes(),
        *board.routes(),
        *compare.routes(),
        *figures.routes(),
        *jobs.routes(),
        *settings.routes(),
        *profiles.routes(),
        *uploads.routes(),
        *joined.routes(),
        *media.routes(),
        Mount("/static", Assets(packages=[("hevcq.web", "static")])),
    ]


async def _healthy(_request: Request) -> Response:
    """Say that this process answers; it opens nothing, so that a busy database ends no server."""
    return PlainTextResponse("ok")


async def _no_icon(_request: Request) -> Response:
    return Response(status_code=204)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "Not found.", 405: "This address can't do that."}
    said = words.get(error.status_code, error.detail)
    if request.url.path.startswith(RAW[:3]):
        return problem(error.status_code, said, headers=error.headers)
    return _page(request, error.status_code, said)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return of_values(error.errors())


async def _failed(request: Request, error: Exception) -> Response:
    """Show an error that hevcq raises on purpose: its sentence names no secret."""
    assert isinstance(error, HevcqError)
    path = request.url.path
    get_logger().warning("request_failed", path=path, reason=str(error))
    if path.startswith("/uploads"):
        return uploads.refused(request, error)
    if path.startswith(RAW[:3]) or "/media/" in path:
        return of_error(error)
    person = maybe_person(request)
    words = str(error) if person is not None and person.is_operator else error.message
    return _page(request, status_of(error), words)


def _page(request: Request, status: int, words: str) -> Response:
    return page(request, "error.html", status=status, words=words, code=status)


JOIN_S = 10.0
"""Seconds that a stop waits for a look under way; a kill in between is mended by the next start."""


def keep_up(app: App, look: Callable[[], object], every_s: float, stop: threading.Event) -> None:
    """Call `look` every `every_s` seconds until the stop; an error waits for the next turn."""
    while not stop.is_set():
        try:
            look()
        except HevcqError as error:
            get_logger().warning("videos_not_kept_up", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a bug here must not end all later looks
            get_logger().error("videos_not_kept_up", reason=f"{type(error).__name__}: {error}")
        app.clock.wait(stop, every_s)


@asynccontextmanager
async def kept_up(made: Starlette) -> AsyncIterator[None]:
    """Look after videos as long as the application runs."""
    app: App = made.state.services.app
    every_s = EVERY_S if not app.settings.on_aws else EVERY_AWS_S
    stop, send = threading.Event(), made.state.send_event

    def look() -> None:
        process_due(video_farm(app), send)
        if app.settings.on_aws:
            app.daily_cap.check()

    work = (app, look, every_s, stop)
    upkeep = threading.Thread(target=keep_up, args=work, name="hevcq-web-upkeep", daemon=True)
    upkeep.start()
    try:
        yield
    finally:
        stop.set()
        upkeep.join(JOIN_S)
        made.state.services.trial.close()
        made.state.services.texts.close()
        made.state.services.machines.close()
        made.state.services.comparisons.close()
