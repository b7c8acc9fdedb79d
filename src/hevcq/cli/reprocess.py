"""`hevcq reprocess`: queue finished or failed sources again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli import render
from hevcq.cli.context import cli_of
from hevcq.cli.exits import ExitCode
from hevcq.cli.options import AsJson, ProfileNames
from hevcq.cli.redrive import person
from hevcq.domain.job import SETTLED, JobState
from hevcq.profiles import pick

if TYPE_CHECKING:
    from hevcq.usecases.reprocess import Reprocessed


def reprocess(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH|KEY...",
            help="Files, folders, keys (`/` at the end: all below) or job ids.",
        ),
    ],
    profile: ProfileNames = None,
    state: Annotated[
        list[JobState] | None, typer.Option("--state", help="Only jobs in this end state.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be queued.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Queue finished or failed sources again.

    For instance after a profile changed. A source that changed on disk is reported, not queued.
    """
    from hevcq.usecases.reprocess import Order, Result
    from hevcq.usecases.reprocess import reprocess as queue_again

    cli = cli_of(ctx)
    seen: list[Reprocessed] = []
    with cli.app() as app:
        picked = [found.name for found in pick(app.profiles, profile or [])]
        states = frozenset(state) if state else SETTLED
        for done in queue_again(
            app.backend, Order(names, picked, states, who=person(), dry_run=dry_run)
        ):
            _render(done, as_json=as_json)
            seen.append(done)
    if not seen:
        cli.say("No job matches: `hevcq ingest` queues files that are new.")
    if not seen or any(done.result is Result.SOURCE_CHANGED for done in seen):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _render(done: Reprocessed, *, as_json: bool) -> None:
    job, word = done.job, done.result.value
    if as_json:
        facts = {"job_id": job.job_id, "profile": job.profile, "key": job.source.key}
        render.emit_json({"type": "reprocess", **facts, "result": word, "detail": done.detail})
        return
    detail = f"  ({render.printable(done.detail)})" if done.detail else ""
    render.emit(f"{word}  {job.profile}  {render.printable(job.source.key)}{detail}")
