"""`hevcq undo` and `hevcq originals`: restore kept originals, or free their space."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hevcq.cli.context import (
    AsJson,
    Cli,
    DryRun,
    OfJob,
    PlainCommand,
    Yes,
    cli_of,
    confirm,
    group,
)
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.output import render
from hevcq.cli.output.render import day
from hevcq.errors import UsageError
from hevcq.settings.quantities import past_time
from hevcq.usecases.operations.reprocess import finished_since
from hevcq.usecases.placement.originals import (
    Freed,
    KeptOriginal,
    free_originals,
    kept_originals,
)
from hevcq.usecases.placement.undo import Undone, UndoResult, library_path
from hevcq.usecases.placement.undo import undo as restore
from hevcq.util.text import counted, printable, size

UPLOADS_SINCE_S = 3 * 86_400.0
"""Seconds after its end in which a job's upload is tagged; Terraform runs this once a day."""
app = group("List kept originals, and free their space.")
Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", help="Only videos at or below these (default: all)."),
]


@app.command("list", cls=PlainCommand)
def list_originals(ctx: typer.Context, paths: Paths = None, as_json: AsJson = False) -> None:
    """List the kept originals, their size and expiry date.

    `hevcq undo PATH` restores one while it is kept.
    """
    cli = cli_of(ctx)
    with cli.app() as opened:
        kept = list(kept_originals(opened.library_ports, _places(paths), follow=True))
    if as_json:
        for each in kept:
            render.emit_json({"type": "original", **_json(each)})
        return
    if kept:
        rows = [_row(each) for each in kept]
        render.emit_table(("file", "size", "replaced", "kept until"), rows)
    cli.echo(_total(kept, paths or ()))


@app.command("expire", cls=PlainCommand)
def expire(
    ctx: typer.Context,
    paths: Paths = None,
    now: Annotated[
        bool, typer.Option("--now", help="Also originals whose retention has not ended.")
    ] = False,
    uploads: Annotated[
        bool, typer.Option("--uploads", help="On AWS: tag finished uploads, so that they expire.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete originals whose retention has ended.

    Workers and `hevcq ingest` do this automatically. An original stays while its rendition is damaged
    or its disk is missing. A deleted original cannot be restored.
    """
    cli, places = cli_of(ctx), _places(paths)
    if uploads:
        _tag_uploads(cli, alone=not places and not now)
        return
    with cli.app() as opened:
        if now and not yes:
            kept = list(kept_originals(opened.library_ports, places))
            held = f"{counted(len(kept), 'original')} ({size(sum(each.size for each in kept))})"
            if kept and not confirm(f"Permanently delete {held}?"):
                cli.echo("Nothing was deleted; confirm with --yes.")
                raise typer.Exit(ExitCode.SOME_FAILED)
        freed_originals = list(free_originals(opened.library_ports, places, at_once=now))
    for each in freed_originals:
        _show(each, as_json=as_json)
    deleted = [each for each in freed_originals if each.is_gone]
    freed = size(sum(each.size for each in deleted)) or "0 B"
    cli.echo(
        f"{counted(len(deleted), 'original')} deleted, {freed} freed."
        if deleted
        else "Nothing to free."
    )
    if len(deleted) < len(freed_originals):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _tag_uploads(cli: Cli, *, alone: bool) -> None:
    with cli.app() as app:
        if not alone or not app.settings.aws.tag_done:
            raise UsageError(
                "--uploads takes no other arguments, and needs the setting aws.tag_done."
            )
        since = app.clock.now() - UPLOADS_SINCE_S
        tagged = sum(1 for _ in finished_since(app.backend, app.profiles, since))
    cli.echo(f"{counted(tagged, 'upload')} tagged hevcq=done.")


def _places(paths: list[str] | None) -> list[Path]:
    return [library_path(Path(path)) for path in paths or ()]


def _row(each: KeptOriginal) -> tuple[str, ...]:
    record = each.record
    return (
        str(record.source),
        size(each.size) if each.size else "gone",
        day(record.created_at),
        day(record.expires_at) if record.expires_at is not None else "you delete it",
    )


def _total(kept: Sequence[KeptOriginal], paths: Sequence[str]) -> str:
    if not kept and paths:
        named = ", ".join(map(printable, paths))
        return f"No originals of videos at or below {named} are kept."
    if not kept:
        return "No originals are kept."
    ends = [end for each in kept if (end := each.record.expires_at) is not None]
    first = f"; the first expires on {day(min(ends))}" if ends else ""
    held = size(sum(each.size for each in kept))
    return f"{counted(len(kept), 'original')}, {held} kept{first}."


def _json(each: KeptOriginal) -> dict[str, object]:
    record = each.record
    places = {"path": record.source, "rendition": record.target, "original": record.retained}
    return {
        "job_id": record.job_id,
        **{name: os.fspath(path) for name, path in (places | {"root": each.root}).items()},
        "size": each.size,
        "replaced_at": record.created_at,
        "expires_at": record.expires_at,
    }


def _show(each: Freed, *, as_json: bool) -> None:
    word = each.outcome.value if each.outcome is not None else "failed"
    if as_json:
        facts = {"path": os.fspath(each.path), "result": word, "reason": each.reason}
        render.emit_json({"type": "original_freed", **facts, "size": each.size})
        return
    render.emit_outcome(word, each.path, each.reason)


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
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Restore replaced originals, byte for byte.

    Name, times, permissions and attributes are restored too. A rendition that was changed, or another
    file in its place, is never touched.
    """
    cli = cli_of(ctx)
    with cli.app() as app:
        undone = restore(
            app.library_ports,
            [library_path(Path(path)) for path in paths or ()],
            job=job,
            since=past_time(since, app.clock.now()) if since else None,
            dry_run=dry_run,
        )
        results = [_show_undone(done, as_json=as_json) for done in undone]
    restored = results.count(UndoResult.RESTORED)
    if restored:
        cli.echo(f"{counted(restored, 'original')} restored.")
    if UndoResult.REFUSED in results:
        raise typer.Exit(ExitCode.REFUSED)
    if not results:
        cli.echo("Nothing to undo: no matching original is kept.")
    if UndoResult.NOTHING in results or (not results and job is not None):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _show_undone(done: Undone, *, as_json: bool) -> str:
    if as_json:
        facts = {"path": os.fspath(done.source), "rendition": os.fspath(done.target)}
        end = {"result": done.result.value, "size": done.size, "reason": done.reason}
        render.emit_json({"type": "undo", "job_id": done.job_id, **facts, **end})
    elif done.result in {UndoResult.NOTHING, UndoResult.ALREADY}:
        render.emit_sentence(printable(done.reason))
    else:
        render.emit_outcome(done.result.value, done.source, done.reason)
    return done.result
