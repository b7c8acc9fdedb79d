"""`hevcq service` and `hevcq worker`: process the libraries; encode queued jobs."""

import os
import sys
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Annotated

import typer

from hevcq.cli.context import Cli, EventsAsJson, cli_of
from hevcq.domain.events import EventName, IngestEvent
from hevcq.errors import HevcqError, UsageError
from hevcq.running.machines import join as join_farm
from hevcq.running.machines import membership, work_for_farm
from hevcq.util import log
from hevcq.util.signals import StopSignals
from hevcq.util.text import counted
from hevcq.wiring.app import App
from hevcq.wiring.worker import build_pool

NO_LIBRARY = "no library; add one with `hevcq libraries add PATH`"


def service(
    ctx: typer.Context,
    unit: Annotated[
        bool, typer.Option("--unit", help="Print a unit file for systemd and exit.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Serve the web page too, if it is installed.")
    ] = True,
    as_json: EventsAsJson = False,
) -> None:
    """Watch and process the configured libraries.

    Encodes new videos of the libraries by their rules, runs workers, deletes kept originals when
    their retention ends, and serves the page if it is installed. SIGHUP reloads the settings; SIGTERM
    or Ctrl-C gives running encodes stop_grace_s seconds to finish.
    """
    if unit:
        typer.echo((files("hevcq") / "hevcq.service").read_text(encoding="utf-8"), nl=False)
        return
    _run(cli_of(ctx), page=page, as_json=as_json)


def _run(cli: Cli, *, page: bool, as_json: bool) -> None:
    # Imported here, since a worker does not need them.
    from hevcq.cli.output.live import open_display
    from hevcq.running.service import PAGE_ENDS_S, Outlets, Service
    from hevcq.util.signals import notifier_of

    reload = threading.Event()
    with StopSignals(reload) as signals, cli.app() as opened:
        display = open_display(
            opened.clock, as_json=as_json, quiet=cli.quiet, verbose=cli.verbose, terminal=False
        )

        def emit(event: IngestEvent) -> None:
            if as_json or cli.verbose or event.event is not EventName.SCAN_STARTED:
                display(event)

        notifier = notifier_of(os.environ, os.getpid(), opened.clock)
        with display:
            running = Service(
                opened,
                signals,
                Outlets(emit, cli.echo, notifier, page),
                reload,
                lambda: cli.loaded().settings,
            )
            if not as_json:
                log.configure(
                    opened.settings.log_level, opened.settings.log_style, shown=running.shows
                )
            names = [each.name for each in opened.settings.libraries if each.watch]
            ends = "; Ctrl-C stops" if sys.stderr.isatty() else ""
            cli.echo(f"Watching {', '.join(names) or NO_LIBRARY}{ends}.")
            stop_page = _serve_page(opened, cli, PAGE_ENDS_S) if page else None
            try:
                running.run()
            finally:
                if stop_page is not None:
                    stop_page()
        cli.echo("Stopped.")


def _serve_page(opened: App, cli: Cli, ends_s: float) -> Callable[[], None] | None:
    """Serve the page in a thread, if its packages are installed; return a function that stops it."""
    try:
        from hevcq.web.server import serve
    except ModuleNotFoundError:
        return None
    # Opened here, by one thread alone.
    _ = opened.backend, opened.catalog, opened.profiles, opened.encoder
    stop = StopSignals()  # its own: a page that fails must not stop the encodes

    def run() -> None:
        try:
            serve(opened, stop, cli.echo, terminal=sys.stderr.isatty())
        except HevcqError as error:
            cli.echo(f"The page is not served: {error}")

    thread = threading.Thread(target=run, name="hevcq-page", daemon=True)
    thread.start()

    def stop_page() -> None:
        stop.ask()
        thread.join(ends_s)

    return stop_page


def worker(
    ctx: typer.Context,
    profiles: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROFILE", help="Encode jobs of these profiles (default: all)."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-w", metavar="N", min=0, help="Parallel encodes (default: automatic)."
        ),
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Exit when the queues are empty.")] = False,
    join: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Join the farm whose `hevcq workers invite` printed this URL."
        ),
    ] = None,
) -> None:
    """Encode queued jobs until stopped.

    On Ctrl-C or SIGTERM, running encodes get stop_grace_s seconds to finish; a second signal returns
    them to their queue at once. Several workers may share one data folder. A machine that joined a farm
    encodes the farm's videos: it fetches them and sends the renditions back.
    """
    cli = cli_of(ctx)
    level = cli.log_level("(default of a worker)", "info")  # it has no display
    with StopSignals() as signals, cli.app(workers=("--workers", workers), **level) as app:
        member = None if join else membership(app.settings.data_dir)
        if (join or member is not None) and (profiles or drain):
            # Before joining, which uses up the invitation.
            raise UsageError(
                "A joined machine takes no PROFILE and no --drain: its farm chooses its work."
            )
        farm = join_farm(app, join, cli.echo) if join else member
        if farm is not None:
            cli.echo(f"Working for {farm.address} as {farm.name}; Ctrl-C stops.")
            work_for_farm(app, farm, signals, cli.echo)
            return
        pool = build_pool(app, profiles or (), measured=True)
        if app.settings.log_style == "console":  # a JSON log has an event for this
            cli.echo(f"Running {counted(app.capacity.slots, 'encode slot')}; Ctrl-C stops.")
        from hevcq.running.service import run_pool

        run_pool(pool, app, signals, drain=(profiles or sorted(app.profiles)) if drain else ())
