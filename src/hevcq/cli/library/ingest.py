"""`hevcq ingest`: find videos, encode them, and put verified renditions in their place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hevcq.cli.context import Cli, cli_of, require_existing, require_queued
from hevcq.cli.library.ingest_options import Options, named_libraries
from hevcq.cli.options import EventsAsJson, ExcludeGlobs, IncludeGlobs, ProfileNames, Quiet, Verbose

if TYPE_CHECKING:
    from hevcq.cli.exit_codes import ExitCode
    from hevcq.settings.libraries import Library


def ingest(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Folders, files, or names of libraries (default: all libraries).",
        ),
    ] = None,
    *,
    profile: ProfileNames = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-w", metavar="N", min=1, help="Parallel encodes (default: automatic)."
        ),
    ] = None,
    include: IncludeGlobs = None,
    exclude: ExcludeGlobs = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Mirror the folder tree into DIR."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace originals by their renditions.")
    ] = False,
    keep_originals: Annotated[
        float | None,
        typer.Option(
            "--keep-originals",
            metavar="DAYS",
            min=0,
            help="Days to keep replaced originals (default 30).",
        ),
    ] = None,
    order: Annotated[
        Literal["path", "saving"],
        typer.Option(metavar="ORDER", help="Work by path, or by saving (largest expected first)."),
    ] = "path",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, change nothing.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Queue and exit.")] = False,
    skip_upload: Annotated[
        bool,
        typer.Option("--skip-upload", help="Queue nothing; wait for queued jobs and collect them."),
    ] = False,
    collect_only: Annotated[
        bool,
        typer.Option("--collect-only", help="Put finished renditions in place, without waiting."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running; ingest new files once they stop growing.")
    ] = False,
    as_json: EventsAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode, verify and put in place every video below PATH.

    Without a PATH, every library of the settings, as its settings say. Uses the profiles in
    ingest.profiles (default: hevc) unless --profile names others. Renditions go beside their
    originals as <stem>.<profile>.<ext>, unless --output or --replace is given. After an
    interruption, run the same command to resume.
    """
    cli = cli_of(ctx)
    libraries, places = named_libraries(
        paths or (), _known(cli, queued=skip_upload or collect_only)
    )
    options = Options(
        paths=places,
        libraries=libraries,
        profiles=tuple(profile or ()),
        workers=workers,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        output=output,
        replace=replace,
        keep_originals=keep_originals,
        order=order,
        dry_run=dry_run,
        no_wait=no_wait,
        skip_upload=skip_upload,
        collect_only=collect_only,
        watch=watch,
        as_json=as_json,
        quiet=quiet or cli.quiet,
        verbose=verbose or cli.verbose,
    )
    options.check()
    if not options.queued_only:  # what was queued may have been moved since
        require_existing(options.paths)
    raise typer.Exit(_run(cli, options))


def _known(cli: Cli, *, queued: bool) -> tuple[Library, ...]:
    """Return the libraries of the settings; of queued jobs no name means everything."""
    return () if queued else cli.loaded().settings.libraries


def _run(cli: Cli, options: Options) -> ExitCode:
    from hevcq.cli.library.ingest_session import collect, run_shown

    flags: dict[str, tuple[str, object]] = {"workers": ("--workers", options.workers)}
    if not options.verbose and cli.loaded().origins["log_level"] == "default":
        # The display already shows what the log would repeat.
        flags["log_level"] = ("(default with a display)", "error")
    with cli.app(**flags) as app:
        if options.queued_only:
            require_queued(app, options.paths)
        return collect(app, options) if options.collect_only else run_shown(app, options)
