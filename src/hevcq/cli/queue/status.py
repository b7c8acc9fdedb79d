"""`hevcq status`: queues, jobs, progress and dead letters."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.options import AsJson
from hevcq.cli.output import status_table as status_text
from hevcq.cli.output import table as render
from hevcq.cli.output.sentences import without_path

if TYPE_CHECKING:
    from hevcq.usecases.operations.status import Unqueued
    from hevcq.wiring.app import App

MAX_DEAD_LETTERS_CHECKED = 500
"""Dead letters checked per queue: a person waits here, and workers check all of them."""
CLEAR = "\x1b[2J\x1b[H"
"""Clears a terminal and moves to its top (ECMA-48: ED, CUP)."""


def status(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Files, folders, keys or job ids to look up."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep refreshing.")] = False,
    every_s: Annotated[
        float,
        typer.Option(
            "--every-s", metavar="SECONDS", min=0.1, help="Refresh interval with --watch."
        ),
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show queues, progress and failed jobs.

    With PATHs, show the jobs of those sources.
    """
    from hevcq.usecases.operations.expired_messages import ExpiredMessages

    with cli_of(ctx).app() as app:
        expired = ExpiredMessages(app.backend, most=MAX_DEAD_LETTERS_CHECKED)
        while True:
            expired.check()
            if watch and sys.stdout.isatty():
                render.emit(CLEAR)
            _show(app, names or [], as_json=as_json)
            if not watch:
                return
            app.clock.wait(threading.Event(), every_s)


def _show(app: App, names: list[str], *, as_json: bool) -> None:
    if names:
        _show_jobs(app, names, as_json=as_json)
        return
    from hevcq.usecases.operations.status import overview

    found = overview(app.backend, app.clock, app.here(), limit=status_text.MAX_RUNNING).to_dict()
    found["libraries"] = _waiting(app)
    if as_json:
        render.emit_json(found)
        return
    for line in status_text.lines(found, render.screen_width(sys.stdout)):
        render.emit(line)


def _waiting(app: App) -> list[dict[str, object]]:
    """Return what waits in the libraries of a running service."""
    if not app.settings.libraries:
        return []
    from hevcq.usecases.libraries.feed import waiting

    return waiting(app.settings.data_dir)


def _show_jobs(app: App, names: list[str], *, as_json: bool) -> None:
    from hevcq.usecases.operations.status import jobs_of, reason_in_words

    unknown: list[str] = []
    jobs = jobs_of(app.backend, app.catalog, names, unknown)
    if as_json:
        for job in jobs:
            render.emit_json({"type": "job", **job.model_dump(mode="json", by_alias=True)})
        for each in _without_job(app, unknown):
            render.emit_json({"type": "file", **asdict(each)})
        _refuse(unknown)
        return
    rows = []
    for job in jobs:
        percent = f"{job.progress.percent:.0f}%" if job.progress and not job.finished_at else ""
        state = f"{job.state.value} {percent}".strip()
        source = render.place(job.source.bucket, job.source.key)
        why = without_path(source, reason_in_words(job))
        rows.append([job.job_id[:12], job.profile, state, source, why])
    for each in _without_job(app, unknown):
        why = without_path(each.path, each.reason)
        rows.append(["", each.profile, each.state, render.printable(each.path), why])
    if rows:
        render.emit_table(("job", "profile", "state", "source", "why"), rows)
    _refuse(unknown)


def _without_job(app: App, unknown: list[str]) -> list[Unqueued]:
    """Return what an ingest found of files that it made no job of; remove them from `unknown`."""
    from hevcq.usecases.operations.status import unqueued

    profiles = [app.profiles[name] for name in app.settings.ingest.profiles if name in app.profiles]
    found_without: list[Unqueued] = []
    for name in list(unknown):
        path = Path(os.path.abspath(name))  # noqa: PTH100 - links stay unresolved
        found = list(unqueued(app.catalog, profiles, path))
        if found:
            unknown.remove(name)
        found_without.extend(found)
    return found_without


def _refuse(unknown: list[str]) -> None:
    """Raise UsageError if there is a name without a job."""
    from hevcq.errors import UsageError

    if unknown:
        names = ", ".join(render.printable(name) for name in unknown)
        raise UsageError(f"No job for {names}; `hevcq ingest` queues new files.")
