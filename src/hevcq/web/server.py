"""Serve the page: check and bind the address, print it, stop gracefully on a signal."""

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
from hevcq.web.checks import require_loopback_or_sign_in
from hevcq.web.identity.modes import OneToken
from hevcq.web.shield import is_loopback
from hevcq.wiring.app import App

KEEP_ALIVE_S = 30
STOP_S = 10
"""Seconds that running requests get to finish; an upload resumes at the bytes written."""
MAX_HEADERS = 32 * 1024
BACKLOG = 64
MAX_CONNECTIONS = 400
"""Connections at a time: each needs up to two of the 1,024 files that a process may open by default."""


def serve(app: App, signals: StopSignals, echo: Callable[[str], None], *, terminal: bool) -> None:
    """Serve the page until `signals` asks for a stop; `echo` prints its address.

    The token is printed only on a `terminal`, since a journal would keep it. Raises ConfigError for
    an address that needs a sign-in, and Unavailable if the address is in use.
    """
    settings = app.settings.web
    require_loopback_or_sign_in(settings)
    application = create_app(app)
    listening = listen(settings.host, settings.port)
    try:
        code = open_setup(app)
        for line in startup_lines(settings, app.accounts, listening, terminal=terminal, code=code):
            echo(line)
        run_until(application, signals, listening)
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        # asyncio sets TCP_NODELAY only on a socket that names its protocol. Without it, each answer
        # on a kept connection waits 40 ms for the browser's delayed acknowledgement.
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {host}:{port}: {reason_of(error)}.",
            remedy="Choose another address with --host and --port.",
        ) from error
    return listening


def open_setup(app: App) -> str | None:
    """Open the set-up in an unused data folder, and return its code; None if hevcq is set up.

    The code is "" if the way to sign in is already configured or chosen.
    """
    settings, first = app.settings, FirstRun(app.settings.data_dir)
    if settings.on_aws:
        return None
    if first.begun:
        is_open = first.read() is not None
    else:
        users = app.accounts.all(AccountKind.USER) or OneToken(app.accounts).exists()
        is_open = not (settings.libraries or users)
        is_open = is_open and not app.backend.ledger.counts() and not app.videos.usage().videos
    if not is_open:
        return None
    web = settings.web
    return first.begin(password=web.auth == "users" or "auth" not in web.model_fields_set)


def startup_lines(
    settings: WebSettings,
    accounts: Accounts,
    listening: socket.socket,
    *,
    terminal: bool,
    code: str | None = None,
) -> Iterator[str]:
    """Yield the lines printed at the start: the page's address, and on the first `terminal` the token.

    `code` opens the set-up; it is None if hevcq is set up.
    """
    host, port = listening.getsockname()[:2]
    name = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - it is compared
    name = f"[{name}]" if ":" in name else name
    address = settings.url or f"http://{name}:{port}"
    if code:
        yield f"Set up hevcq at {address}/setup#{code}"
        yield "The code is valid once, until the next start."
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
        yield f"Continue the set-up at {address}/setup."
    if not is_loopback(settings.host) and not settings.url.startswith("https://"):
        yield (
            "Anyone on the network can reach it, unencrypted: put a reverse proxy with TLS in front of"
            " it, and set web.url."
        )
    if terminal:
        yield "Ctrl-C stops."


def run_until(application: Starlette, signals: StopSignals, listening: socket.socket) -> None:
    """Serve until a stop signal; a second signal drops the running requests."""
    server, ended = _PageServer(_server_config(application)), threading.Event()

    def watch() -> None:
        signals.asked.wait()
        application.state.services.machines.close_soon()
        server.should_exit = True
        signals.insisted.wait()
        if not ended.is_set():
            server.force_exit = True

    logging.getLogger("uvicorn.error").addFilter(_is_worth_logging)
    watching = threading.Thread(target=watch, name="hevcq-web-stop", daemon=True)
    watching.start()
    try:
        asyncio.run(server.serve(sockets=[listening]))
    finally:
        ended.set()
        signals.ask()  # ends the watching thread
        signals.ask()
        watching.join()


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Drop tracebacks of requests that a stop cancelled: uvicorn logs how many they were."""
    return record.exc_info is None or record.exc_info[0] is not asyncio.CancelledError


def _server_config(application: Starlette) -> uvicorn.Config:
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


class _PageServer(uvicorn.Server):
    """A server that leaves the signals to StopSignals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
