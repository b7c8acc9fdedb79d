"""`hevcq worker`: encode queued jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.util.text import counted


def worker(
    ctx: typer.Context,
    profiles: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROFILE", help="Serve these profiles (default: all)."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-w", metavar="N", min=0, help="Parallel encodes (default: automatic)."
        ),
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Exit when the queues are empty.")] = False,
) -> None:
    """Encode queued jobs until stopped.

    On Ctrl-C or SIGTERM, running encodes get stop_grace_s seconds to finish; a second signal returns
    them to their queue at once. Several workers may share one data folder.
    """
    from hevcq.wiring.app import stop_signals
    from hevcq.wiring.worker import build_pool, run_pool

    cli = cli_of(ctx)
    with stop_signals() as signals, cli.app(**_flags(cli, workers)) as app:
        pool = build_pool(app, profiles or (), measured=True)
        if app.settings.log_style == "console":  # a JSON log has its own line
            cli.echo(f"Running {counted(app.capacity.slots, 'encode slot')}; Ctrl-C stops.")
        run_pool(pool, app, signals, drain=(profiles or sorted(app.profiles)) if drain else ())


def _flags(cli: Cli, workers: int | None) -> dict[str, tuple[str, object]]:
    """Log at `info` unless the settings say otherwise: a worker has no display."""
    flags: dict[str, tuple[str, object]] = {"workers": ("--workers", workers)}
    if cli.loaded().origins["log_level"] == "default":
        flags["log_level"] = ("(default of a worker)", "info")
    return flags
