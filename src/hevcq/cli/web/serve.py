"""`hevcq serve`: the web page."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.errors import UsageError

PACKAGES = frozenset(
    {"argon2", "fastapi", "httpx2", "jinja2", "joserfc", "sse_starlette", "starlette", "uvicorn"}
)
"""What the extra `web` installs."""


app = typer.Typer(
    help="Serve the web page until stopped.",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on (web.host).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Port to listen on (web.port)."),
    ] = None,
) -> None:
    """Serve the web page until stopped.

    The first start on a terminal prints an address with a token that signs in; elsewhere (a journal,
    a container's log) `hevcq serve new-token` prints one. Encodes run in `hevcq worker`, on
    the same data folder or farm.
    """
    if ctx.invoked_subcommand is not None:
        return
    from hevcq.wiring.app import stop_signals

    flags = {"web.host": ("--host", host), "web.port": ("--port", port)}
    cli = cli_of(ctx)
    with stop_signals() as signals, cli.app(**flags) as app:
        try:
            from hevcq.web.server import serve as serve_page
        except ModuleNotFoundError as error:
            raise missing(error) from error
        serve_page(app, signals, cli.warn, terminal=sys.stderr.isatty())


def missing(error: ModuleNotFoundError) -> Exception:
    """Return the sentence for a package of the extra that is not installed, else the error itself."""
    if (error.name or "").partition(".")[0] not in PACKAGES:
        return error
    return UsageError(
        "The web page needs packages that are not installed.",
        remedy="Install them: pip install 'hevcq[web]'.",
    )
