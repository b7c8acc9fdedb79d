"""`hevcq cancel`: cancel queued and running jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, ProfileNames
from hevcq.cli.output import table as render
from hevcq.cli.queue.failures import current_user
from hevcq.settings.profile_files import pick

NO_MATCH = "No matching job; `hevcq status` lists jobs."


def cancel(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH|KEY|JOB",
            help="Files, folders, keys (a trailing `/` means all below) or job ids.",
        ),
    ],
    profile: ProfileNames = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be cancelled.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Cancel queued and running jobs.

    Running encodes stop within a heartbeat; a split video's chunks are cancelled too. Originals and
    finished renditions are not touched; `hevcq retry` queues a cancelled job again.
    """
    from hevcq.usecases.operations.cancel import CancelRequest, CancelResult
    from hevcq.usecases.operations.cancel import cancel as end

    cli = cli_of(ctx)
    counts = dict.fromkeys(CancelResult, 0)
    with cli.app() as app:
        picked = [found.name for found in pick(app.profiles, profile or [])]
        request = CancelRequest(names, picked, who=current_user(), dry_run=dry_run)
        for done in end(app.backend, request, app.catalog):
            word = done.result.value
            render.emit_result("cancel", done.job, word, done.detail, as_json=as_json)
            counts[done.result] += 1
    if not any(counts.values()):
        cli.echo(NO_MATCH)
        raise typer.Exit(ExitCode.SOME_FAILED)
