"""`hevcq collect`: put finished renditions in their place, without queueing or encoding any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of, require_queued
from hevcq.cli.options import EventsAsJson, Quiet, Verbose

if TYPE_CHECKING:
    from hevcq.cli.exit_codes import ExitCode
    from hevcq.cli.library.ingest_options import Options
    from hevcq.wiring.app import App


def collect(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Only files below these (default: all)."),
    ] = None,
    *,
    as_json: EventsAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put finished renditions in place, without waiting.

    `hevcq ingest --skip-upload` does the same and waits for the rest.
    """
    from hevcq.cli.library.ingest_options import Options

    cli = cli_of(ctx)
    options = Options(
        paths=tuple(paths or ()),
        skip_upload=True,
        as_json=as_json,
        quiet=quiet or cli.quiet,
        verbose=verbose or cli.verbose,
    )
    with cli.app() as app:
        require_queued(app, options.paths)
        raise typer.Exit(_collect(app, options))


def _collect(app: App, options: Options) -> ExitCode:
    from hevcq.cli.library.ingest_session import create_display, echo, print_result
    from hevcq.wiring.app import stop_signals
    from hevcq.wiring.ingest import IngestApplication

    display, began = create_display(app, options), app.clock.monotonic()
    with stop_signals() as signals, display:
        ingest = IngestApplication(app, options.request(), display, signals)
        with ingest.in_use():
            ingest.recover()
            ingest.collect_finished()
    if not ingest.summary.results:
        echo(options, "Nothing to collect.")
    code = print_result(app, ingest.summary, options, display, began)
    ingest.require_profiles()
    return code
