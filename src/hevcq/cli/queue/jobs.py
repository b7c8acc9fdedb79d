"""`hevcq retry` and `cancel`: queue jobs again, or end them; `pause` and `resume`: hold work back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hevcq.cli.context import NO_WORKER, cli_of, current_user
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, DryRun, JobNames, ProfileNames
from hevcq.cli.output import table as render
from hevcq.domain.job import SETTLED, JobState
from hevcq.domain.keys import INBOX
from hevcq.domain.pause import Pause, RunningWork, in_words
from hevcq.errors import UsageError
from hevcq.settings.profile_files import pick
from hevcq.usecases.operations import pausing
from hevcq.usecases.operations import reprocess as work
from hevcq.usecases.operations.reprocess import (
    JobChange,
    JobResult,
    ReprocessRequest,
)
from hevcq.wiring.app import App

NO_MATCH = "No matching job; `hevcq ingest` queues new files."
NOTHING_FAILED = (
    "Nothing to do: no failed job. `hevcq retry --missing` looks for renditions that are gone."
)
NOTHING_MISSING = "Nothing to do: no rendition is missing."


def retry(
    ctx: typer.Context,
    names: Annotated[list[str] | None, JobNames] = None,
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
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Queue failed jobs again.

    All of them, or those below the named folders; a named file or job is queued again whatever became
    of it. After changing a profile, --state done encodes finished videos again. A source that changed
    on disk is reported, not queued.
    """
    if missing and state:
        raise UsageError("Only one of --missing and --state can be given.")
    cli = cli_of(ctx)
    seen: list[JobChange] = []
    with cli.app() as app:
        picked = [found.name for found in pick(app.profiles, profile or [])]
        whole = ReprocessRequest(
            names or [f"{INBOX}/"], picked, who=current_user(), dry_run=dry_run
        )
        for request in [whole] if missing else _by_state(whole, state):
            for done in _queued(app, request, missing=missing):
                render.emit_result(
                    "retry", done.job, done.result.value, done.detail, as_json=as_json
                )
                seen.append(done)
        idle = app.workers_running() == 0
    results = {done.result for done in seen}
    named = bool(state) or any(not _is_folder(name) for name in names or ())
    if idle and JobResult.QUEUED in results:
        cli.echo(NO_WORKER)
    if not seen and missing:
        cli.echo(NOTHING_MISSING)
    elif not seen:
        cli.echo(NO_MATCH if named else NOTHING_FAILED)
    if JobResult.SOURCE_CHANGED in results or (named and not seen and not missing):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _by_state(whole: ReprocessRequest, state: list[JobState] | None) -> Iterator[ReprocessRequest]:
    """Yield what to queue of the folders, failed jobs unless a state is given, and of the rest."""
    folders = [name for name in whole.names if _is_folder(name)]
    failed = frozenset(state or {JobState.DEAD})
    yield replace(whole, names=folders, states=failed, exact=not state)
    files = [name for name in whole.names if name not in folders]
    yield replace(whole, names=files, states=frozenset(state or SETTLED))


def _queued(app: App, request: ReprocessRequest, *, missing: bool) -> Iterator[JobChange]:
    if missing:
        return work.reprocess_missing(app.backend, request, app.profiles, app.catalog)
    return work.reprocess(app.backend, request, app.catalog)


def _is_folder(name: str) -> bool:
    return name.endswith("/") or Path(name).is_dir()


NOTHING_TO_CANCEL = "No matching job; `hevcq status` lists jobs."


def cancel(
    ctx: typer.Context,
    names: Annotated[list[str], JobNames],
    profile: ProfileNames = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Cancel queued and running jobs.

    Running encodes stop within a heartbeat; a split video's chunks are cancelled too. Originals and
    finished renditions are not touched; `hevcq retry` queues a cancelled job again.
    """
    cli = cli_of(ctx)
    none = True
    with cli.app() as app:
        picked = [found.name for found in pick(app.profiles, profile or [])]
        cancelled = work.cancel(
            app.backend,
            names,
            current_user(),
            profiles=picked,
            dry_run=dry_run,
            catalog=app.catalog,
        )
        for done in cancelled:
            render.emit_result("cancel", done.job, done.result.value, done.detail, as_json=as_json)
            none = False
    if none:
        cli.echo(NOTHING_TO_CANCEL)
        raise typer.Exit(ExitCode.SOME_FAILED)


ProfileName = Annotated[
    str | None, typer.Option("--profile", "-p", metavar="NAME", help="Only this profile's work.")
]


def pause(
    ctx: typer.Context,
    length: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", help="Resume automatically after this time, e.g. 2h."
        ),
    ] = None,
    after_current: Annotated[
        bool,
        typer.Option("--after-current", help="Finish videos that have begun, split ones too."),
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Stop running encodes; they start again later.")
    ] = False,
    freeze: Annotated[
        bool,
        typer.Option("--freeze", help="Let running encodes stand still in memory (one machine)."),
    ] = False,
    profile: ProfileName = None,
    as_json: AsJson = False,
) -> None:
    """Stop new work until `hevcq resume`.

    Encodes that run end, but no further chunk of a split video begins. Every process on the data
    folder, or the whole farm, obeys within seconds. On AWS a chunk looks like any other task until it is
    received, so --after-current changes nothing there.
    """
    if sum((after_current, now, freeze)) > 1:
        raise UsageError("Only one of --after-current, --now and --freeze can be given.")
    chosen = {after_current: "finish", freeze: "freeze", now: "stop"}.get(True, "border")
    with cli_of(ctx).app() as app:
        wanted = Pause(
            by=current_user(),
            profile=_known(app, profile) or "",
            since=app.clock.now(),
            running=RunningWork(chosen),
        )
        for_s = None if length is None else pausing.seconds_of(length)
        local = not app.settings.on_aws
        made = pausing.pause(app.backend.ledger, wanted, for_s, can_freeze=local)
        if as_json:
            render.emit_json({"type": "pause", **made.model_dump(mode="json")})
            return
        sentence = in_words(made, app.clock.now(), app.hours.schedule)
        render.emit_sentence(f"{sentence} {pausing.EFFECTS[made.running]}")


def resume(ctx: typer.Context, profile: ProfileName = None, as_json: AsJson = False) -> None:
    """Resume paused work.

    Without --profile every pause ends. Frozen encodes go on where they were. Hours in the
    settings (schedule.windows) still hold.
    """
    with cli_of(ctx).app() as app:
        ended = pausing.resume(app.backend.ledger, _known(app, profile))
        names = list(app.profiles) if profile is None else [profile]
        now, hours = app.clock.now(), app.hours
        left = pausing.why_closed(app.backend.ledger, names, hours, now)
    if as_json:
        for each in ended:
            render.emit_json({"type": "resume", **each.model_dump(mode="json")})
        return
    render.emit_sentence("Resumed." if ended else "Nothing was paused.")
    for shut in left:
        render.emit_sentence(f"{', '.join(shut.profiles)}: {shut.reason}")


def _known(app: App, profile: str | None) -> str | None:
    """Return the name of an installed profile; raise UnknownProfile for another."""
    return None if profile is None else pick(app.profiles, [profile])[0].name
