"""`hevcq ingest`: find videos, encode them, and put verified renditions in their place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.cli.library.ingest_options import Options
from hevcq.cli.options import ProfileNames

if TYPE_CHECKING:
    from hevcq.cli.exit_codes import ExitCode


def ingest(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Folders and files to look through."),
    ] = None,
    *,
    profile: ProfileNames = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-w", metavar="N", min=1, help="Encodes at a time (else what it carries)."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="Only matching names; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Not these names; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Mirror the tree there."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put renditions in their originals' place.")
    ] = False,
    keep_originals: Annotated[
        float | None,
        typer.Option("--keep-originals", metavar="DAYS", min=0, help="With --replace (30)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would do.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only queue.")] = False,
    skip_upload: Annotated[
        bool, typer.Option("--skip-upload", help="Only wait for and collect what was queued.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and take up files once they stop growing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print events, one JSON object a line, on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Find every video below PATH, encode it, verify it, and put it in its place.

    Beside the original as <stem>.<profile>.<ext>, unless --output or --replace says otherwise.
    Interrupted at any point, the same command goes on where it was.
    """
    cli = cli_of(ctx)
    options = Options(
        paths=tuple(paths or ()),
        profiles=tuple(profile or ()),
        workers=workers,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        output=output,
        replace=replace,
        keep_originals=keep_originals,
        dry_run=dry_run,
        no_wait=no_wait,
        skip_upload=skip_upload,
        watch=watch,
        as_json=as_json,
        quiet=quiet or cli.quiet,
        verbose=verbose or cli.verbose,
    )
    options.check()
    raise typer.Exit(_run(cli, options))


def _run(cli: Cli, options: Options) -> ExitCode:
    from hevcq.cli.library.ingest_session import run_shown

    flags: dict[str, tuple[str, object]] = {"workers": ("--workers", options.workers)}
    if not options.verbose and cli.loaded().origins["log_level"] == "default":
        # The display tells people what the log would tell them a second time.
        flags["log_level"] = ("(what a display does by itself)", "error")
    with cli.app(**flags) as app:
        return run_shown(app, options)
