"""`hevcq worker`: work on what is queued."""

from __future__ import annotations

from typing import Annotated

import typer

from hevcq.cli.context import Cli, cli_of


def worker(
    ctx: typer.Context,
    profiles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROFILE]...", help="Work for these profiles; none: for all."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-w", metavar="N", min=0, help="Encodes at a time; 0: what it carries."
        ),
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="End once these queues are empty.")
    ] = False,
) -> None:
    """Work on what is queued until told to stop.

    Ctrl-C or SIGTERM takes nothing new and lets running encodes end within stop_grace_s; a second
    one gives them back to their queue at once. Several workers may share one data folder.
    """
    from hevcq.wiring.app import build_pool, run_pool, stop_signals

    cli = cli_of(ctx)
    with stop_signals() as signals, cli.app(**_flags(cli, workers)) as app:
        pool = build_pool(app, profiles or (), measured=True)
        if app.settings.log_style == "console":  # the log says it to machines
            cli.say(f"Working with {app.capacity.slots} slots; Ctrl-C stops.")
        run_pool(pool, app, signals, drain=(profiles or sorted(app.profiles)) if drain else ())


def _flags(cli: Cli, workers: int | None) -> dict[str, tuple[str, object]]:
    """A worker logs what it does, unless the settings say otherwise: it has no display."""
    flags: dict[str, tuple[str, object]] = {"workers": ("--workers", workers)}
    if cli.loaded().origins["log_level"] == "default":
        flags["log_level"] = ("(what a worker does by itself)", "info")
    return flags
