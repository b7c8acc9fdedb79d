"""`hevcq worker`: work on what is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.errors import HevcqError

if TYPE_CHECKING:
    from hevcq.wiring.app import App
    from hevcq.worker.loop import Outcome
    from hevcq.worker.pool import WorkerPool
    from hevcq.worker.stop import StopSignals

DRAIN_LOOK_S = 0.25
"""With --drain: how often the queues are looked at while nothing is left to begin."""


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
    from hevcq.wiring.app import build_pool
    from hevcq.worker.loop import Outcome
    from hevcq.worker.stop import StopSignals

    cli = cli_of(ctx)
    with StopSignals() as signals, cli.app(**_flags(cli, workers)) as app:
        pool = build_pool(app, profiles or (), measured=True)
        if app.settings.log_style == "console":  # the log says it to machines
            cli.say(f"Working with {app.capacity.slots} slots; Ctrl-C stops.")
        outcome = _drain(pool, app, profiles or [], signals) if drain else pool.run(signals)
        if outcome is not Outcome.STOPPED:
            raise pool.error or HevcqError("The worker ended by itself.")


def _flags(cli: Cli, workers: int | None) -> dict[str, tuple[str, object]]:
    """A worker logs what it does, unless the settings say otherwise: it has no display."""
    flags: dict[str, tuple[str, object]] = {"workers": ("--workers", workers)}
    if cli.loaded().origins["log_level"] == "default":
        flags["log_level"] = ("(what a worker does by itself)", "info")
    return flags


def _drain(pool: WorkerPool, app: App, profiles: list[str], signals: StopSignals) -> Outcome:
    """Run the pool until its queues are empty and its slots idle, or until told to stop."""
    names = profiles or sorted(app.profiles)
    pool.start()
    while not pool.stopped:
        if signals.asked.is_set() or _idle(pool, app, names):
            pool.ask()
        if signals.insisted.is_set():
            pool.insist()
        pool.step()
        app.clock.wait(signals.insisted, DRAIN_LOOK_S)
    return pool.finish()


def _idle(pool: WorkerPool, app: App, names: list[str]) -> bool:
    """Whether nothing waits, now or later, and no slot of this process works."""
    depths = [app.worker_backend.queues[name].depth() for name in names]
    waiting = sum(depth.ready + depth.delayed + depth.in_flight for depth in depths)
    return waiting == 0 and not any(slot.busy for slot in pool.workers)
