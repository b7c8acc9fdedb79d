"""`hevcq retry` and `hevcq cancel`: queue jobs again, or end them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import NO_WORKER, cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, ProfileNames
from hevcq.cli.output import table as render
from hevcq.cli.queue.failures import current_user
from hevcq.domain.job import SETTLED, JobState
from hevcq.domain.keys import INBOX
from hevcq.errors import UsageError
from hevcq.settings.profile_files import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hevcq.usecases.operations.reprocess import Reprocessed, ReprocessRequest
    from hevcq.wiring.app import App


NO_MATCH = "No matching job; `hevcq ingest` queues new files."
NOTHING_FAILED = (
    "Nothing to do: no failed job. `hevcq retry --missing` looks for renditions that are gone."
)
NOTHING_MISSING = "Nothing to do: no rendition is missing."


def retry(
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
            help="Jobs in this state instead of failed ones (repeatable): done, skipped or dead.",
        ),
    ] = None,
    missing: Annotated[
        bool,
        typer.Option("--missing", help="Only sources whose rendition is missing."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be queued.")] = False,
    as_json: AsJson = False,
) -> None:
    """Queue failed jobs again.

    All of them, or those below the named folders; a named file or job is queued again whatever became
    of it. After changing a profile, --state done encodes finished videos again. A source that changed
    on disk is reported, not queued.
    """
    from hevcq.usecases.operations.reprocess import ReprocessRequest, ReprocessResult

    if missing and state:
        raise UsageError("--missing cannot be combined with --state.")
    cli = cli_of(ctx)
    seen: list[Reprocessed] = []
    with cli.app() as app:
        picked = [found.name for found in pick(app.profiles, profile or [])]
        whole = ReprocessRequest(
            names or [f"{INBOX}/"], picked, who=current_user(), dry_run=dry_run
        )
        for request in [whole] if missing else _by_state(whole, state):
            for done in _queued(app, request, missing=missing):
                word = done.result.value
                render.emit_result("retry", done.job, word, done.detail, as_json=as_json)
                seen.append(done)
        idle = app.workers_running() == 0
    results = {done.result for done in seen}
    named = bool(state) or any(not _is_folder(name) for name in names or ())
    if idle and ReprocessResult.QUEUED in results:
        cli.echo(NO_WORKER)
    if not seen and missing:
        cli.echo(NOTHING_MISSING)
    elif not seen:
        cli.echo(NO_MATCH if named else NOTHING_FAILED)
    if ReprocessResult.SOURCE_CHANGED in results or (named and not seen and not missing):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _by_state(whole: ReprocessRequest, state: list[JobState] | None) -> Iterator[ReprocessRequest]:
    """Yield what to queue of the folders, failed jobs unless a state is given, and of the rest."""
    folders = [name for name in whole.names if _is_folder(name)]
    failed = frozenset(state or {JobState.DEAD})
    yield replace(whole, names=folders, states=failed, exact=not state)
    files = [name for name in whole.names if name not in folders]
    yield replace(whole, names=files, states=frozenset(state or SETTLED))


def _queued(app: App, request: ReprocessRequest, *, missing: bool) -> Iterator[Reprocessed]:
    from hevcq.usecases.operations.reprocess import reprocess, reprocess_missing

    if missing:
        return reprocess_missing(app.backend, request, app.profiles, app.catalog)
    return reprocess(app.backend, request, app.catalog)


def _is_folder(name: str) -> bool:
    return name.endswith("/") or Path(name).is_dir()


NOTHING_TO_CANCEL = "No matching job; `hevcq status` lists jobs."


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
    from hevcq.usecases.operations.reprocess import CancelRequest, CancelResult
    from hevcq.usecases.operations.reprocess import cancel as end

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
        cli.echo(NOTHING_TO_CANCEL)
        raise typer.Exit(ExitCode.SOME_FAILED)
