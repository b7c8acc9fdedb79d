"""Serve the page until a stop signal: check the address, say where it is, stop gracefully."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette

from hevcq.errors import Unavailable
from hevcq.ports.videos import AccountKind, Accounts
from hevcq.settings.web import WebSettings
from hevcq.usecases.first_run import FirstRun
from hevcq.util.signals import StopSignals
from hevcq.util.text import reason_of
from hevcq.web.app import create_app
from hevcq.web.checks import refuse_open_doors
from hevcq.web.identity.modes import OneToken
from hevcq.web.shield import is_loopback
from hevcq.wiring.app import App

KEEP_ALIVE_S = 30
STOP_S = 10
"""Seconds that requests under way get to end; an upload resumes at what was written."""
MAX_HEADERS = 32 * 1024
BACKLOG = 64
MAX_CONNECTIONS = 400
"""Served at once: each takes up to two of the 1,024 files that a process may open as shipped."""


def serve(app: App, signals: StopSignals, echo: Callable[[str], None], *, terminal: bool) -> None:
    """Serve the page until `signals` asks for a stop; `echo` prints its address.

    The token is printed only on a `terminal`: a journal keeps its lines.

    Raises ConfigError if the address may not be offered like this, and Unavailable if it is taken.
    """
    settings = app.settings.web
    refuse_open_doors(settings)
    application = create_app(app)
    listening = listen(settings.host, settings.port)
    try:
        code = open_setup(app)
        for line in greeting(settings, app.accounts, listening, terminal=terminal, code=code):
            echo(line)
        run_until(application, signals, listening)
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # asyncio sets TCP_NODELAY only where a socket names its protocol; without, each answer on a
        # kept connection waits 40 ms for the browser's delayed acknowledgement.
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {host}:{port}: {reason_of(error)}.",
            remedy="Choose another address with --host and --port.",
        ) from error
    return made


def open_setup(app: App) -> str | None:
    """Open the screens of the first run where nothing was ever done; return their code, None without.

    The code is "" where signing in is configured or chosen already.
    """
    settings, first = app.settings, FirstRun(app.settings.data_dir)
    if settings.on_aws:
        return None
    if first.begun:
        going = first.read() is not None
    else:
        users = app.accounts.all(AccountKind.USER) or OneToken(app.accounts).exists()
        going = not (settings.libraries or users)
        going = going and not app.backend.ledger.counts() and not app.videos.usage().videos
    if not going:
        return None
    web = settings.web
    return first.begin(password=web.auth == "users" or "auth" not in web.model_fields_set)


def greeting(
    settings: WebSettings,
    accounts: Accounts,
    listening: socket.socket,
    *,
    terminal: bool,
    code: str | None = None,
) -> Iterator[str]:
    """Yield the lines printed at the start: the page's address, and once, on a `terminal`, the token.

    `code` opens the screens of the first run; None: hevcq is set up.
    """
    host, port = listening.getsockname()[:2]
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - it is compared
    shown = f"[{shown}]" if ":" in shown else shown
    address = settings.url or f"http://{shown}:{port}"
    if code:
        yield f"Set up hevcq at {address}/setup#{code}"
        yield "The code works once, until the next start."
    elif settings.auth == "token":
        if OneToken(accounts).exists():
            yield f"The page is at {address}; sign in with the token of the first start."
            yield "Lost it? `hevcq serve new-token` makes another."
        elif not terminal:
            yield f"The page is at {address}; `hevcq serve new-token` prints the token to sign in with."
        else:
            yield f"Sign in at {address}/sign-in#{OneToken(accounts).new()}"
            yield "Keep this address: it is shown only once."
    else:
        yield f"The page is at {address}."
    if code == "":
        yield f"Setting up goes on at {address}/setup."
    if not is_loopback(settings.host) and not settings.url.startswith("https://"):
        yield (
            "Others in the network can reach it, unencrypted: put a reverse proxy with TLS before"
            " it, and set web.url."
        )
    if terminal:
        yield "Ctrl-C stops."


def run_until(application: Starlette, signals: StopSignals, listening: socket.socket) -> None:
    """Serve until a stop is asked for; a second signal drops the requests under way."""
    server, ended = _Quiet(_configured(application)), threading.Event()

    def watch() -> None:
        signals.asked.wait()
        application.state.services.machines.close_soon()
        server.should_exit = True
        signals.insisted.wait()
        if not ended.is_set():
            server.force_exit = True

    logging.getLogger("uvicorn.error").addFilter(_tells)
    watching = threading.Thread(target=watch, name="hevcq-web-stop", daemon=True)
    watching.start()
    try:
        asyncio.run(server.serve(sockets=[listening]))
    finally:
        ended.set()
        signals.ask()  # lets the watching thread go
        signals.ask()
        watching.join()


def _tells(record: logging.LogRecord) -> bool:
    """Leave out the tracebacks of requests that a stop cut off: uvicorn says how many they are."""
    return record.exc_info is None or record.exc_info[0] is not asyncio.CancelledError


def _configured(application: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http="h11",
        ws="none",
        backlog=BACKLOG,
        limit_concurrency=MAX_CONNECTIONS,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        h11_max_incomplete_event_size=MAX_HEADERS,
    )


class _Quiet(uvicorn.Server):
    """Leaves the signals to StopSignals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
