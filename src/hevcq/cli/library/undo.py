"""`hevcq undo`: restore replaced originals, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, OfJob
from hevcq.cli.output import table as render

if TYPE_CHECKING:
    from hevcq.usecases.placement.undo import Undone


def undo(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Originals, renditions or their folders."),
    ] = None,
    job: OfJob = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only files replaced in the last 12h, 2d, or since an ISO date.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be restored.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore replaced originals, byte for byte.

    Name, times, rights and attributes are restored too. A rendition that was changed since, or
    another file in its place, is never touched.
    """
    from hevcq.settings.quantities import past_time
    from hevcq.usecases.placement.undo import UndoRequest, UndoResult, library_path
    from hevcq.usecases.placement.undo import undo as restore

    cli = cli_of(ctx)
    with cli.app() as app:
        request = UndoRequest(
            paths=tuple(library_path(Path(path)) for path in paths or ()),
            job=job,
            since=past_time(since, app.clock.now()) if since else None,
            dry_run=dry_run,
        )
        undone = restore(request, app.library_ports)
        results = [_render(done, as_json=as_json) for done in undone]
    if UndoResult.REFUSED in results:
        raise typer.Exit(ExitCode.REFUSED)
    if not results:
        cli.echo("Nothing to undo: no matching original is kept.")
    if UndoResult.NOTHING in results or (not results and job is not None):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _render(done: Undone, *, as_json: bool) -> str:
    if as_json:
        render.emit_json(
            {
                "type": "undo",
                "job_id": done.job_id,
                "path": os.fspath(done.source),
                "rendition": os.fspath(done.target),
                "result": done.result.value,
                "size": done.size,
                "reason": done.reason,
            }
        )
    else:
        reason = f"  ({render.printable(done.reason)})" if done.reason else ""
        if done.result == "nothing":
            render.emit_sentence(render.printable(done.reason))
        else:
            result = done.result.value.replace("_", " ")
            render.emit(f"{result}  {render.printable(done.source)}{reason}")
    return done.result
