"""`hevcq reprocess`: queue finished or failed jobs again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, ProfileNames
from hevcq.cli.output import table as render
from hevcq.cli.output.status_table import NO_WORKER
from hevcq.cli.queue.redrive import current_user
from hevcq.domain.job import SETTLED, JobState
from hevcq.domain.keys import INBOX
from hevcq.errors import UsageError
from hevcq.settings.profile_files import pick

if TYPE_CHECKING:
    from hevcq.usecases.operations.reprocess import Reprocessed

NO_MATCH = "No matching job; `hevcq ingest` queues new files."
NOTHING_FAILED = "Nothing to do: no failed job, no missing rendition."


def reprocess(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH|KEY|JOB",
            help="Files, folders, keys (a trailing `/` means all below) or job ids.",
        ),
    ] = None,
    profile: ProfileNames = None,
    state: Annotated[
        list[JobState] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only jobs in this state: done, skipped, dead, queued, running or split.",
        ),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Failed jobs only (all, if no path is given).")
    ] = False,
    missing: Annotated[
        bool,
        typer.Option("--missing", help="Only sources missing their rendition."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be queued.")] = False,
    as_json: AsJson = False,
) -> None:
    """Queue finished or failed jobs again.

    For instance after changing a profile. A source that changed on disk is reported, not queued.
    """
    from hevcq.usecases.operations.reprocess import (
        ReprocessRequest,
        ReprocessResult,
        reprocess_missing,
    )
    from hevcq.usecases.operations.reprocess import reprocess as queue_again

    cli = cli_of(ctx)
    wanted = _names(names or [], failed=failed, missing=missing, states=bool(state))
    seen: list[Reprocessed] = []
    with cli.app() as app:
        picked = [found.name for found in pick(app.profiles, profile or [])]
        states = frozenset({JobState.DEAD}) if failed else frozenset(state or SETTLED)
        request = ReprocessRequest(
            wanted, picked, states, who=current_user(), dry_run=dry_run, exact=failed
        )
        found = (
            reprocess_missing(app.backend, request, app.profiles, app.catalog)
            if missing
            else queue_again(app.backend, request, app.catalog)
        )
        for done in found:
            word = done.result.value
            render.emit_result("reprocess", done.job, word, done.detail, as_json=as_json)
            seen.append(done)
        idle = app.workers_running() == 0
    if idle and any(done.result is ReprocessResult.QUEUED for done in seen):
        cli.echo(NO_WORKER)
    if not seen:
        cli.echo(NOTHING_FAILED if failed or missing else NO_MATCH)
    if (not seen and not (failed or missing)) or any(
        done.result is ReprocessResult.SOURCE_CHANGED for done in seen
    ):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _names(names: list[str], *, failed: bool, missing: bool, states: bool) -> list[str]:
    """Return the names to reprocess; raise UsageError for a senseless combination."""
    if missing and (failed or states):
        raise UsageError("--missing cannot be combined with --failed or --state.")
    if failed and states:
        raise UsageError("--failed cannot be combined with --state: it means --state dead.")
    if not names and not (failed or missing):
        raise UsageError("Name a path, key or job, or add --failed or --missing for all.")
    return names or [f"{INBOX}/"]
