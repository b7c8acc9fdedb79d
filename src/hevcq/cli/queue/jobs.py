"""`hevcq retry`, `cancel`, `failures`, `redrive`: jobs and messages that failed; `pause` and `resume`."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from hevcq.cli.context import (
    NO_WORKER,
    AsJson,
    Cli,
    DryRun,
    JobNames,
    Limit,
    PlainCommand,
    ProfileNames,
    Yes,
    cli_of,
    confirmed,
    current_user,
    group,
    require_existing,
)
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.output import render
from hevcq.cli.output.render import without_path
from hevcq.domain.job import SETTLED, JobState
from hevcq.domain.keys import INBOX
from hevcq.domain.schedule import Pause, RunningWork, pause_in_words
from hevcq.domain.verdict import FailureClass
from hevcq.errors import UsageError
from hevcq.settings.profile_files import pick
from hevcq.usecases.operations import pausing
from hevcq.usecases.operations import reprocess as work
from hevcq.usecases.operations.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    ExpiredMessages,
    find,
)
from hevcq.usecases.operations.dead_letters import purge as purge_letters
from hevcq.usecases.operations.reprocess import (
    JobChange,
    JobResult,
    ReprocessRequest,
    keep_failed,
)
from hevcq.usecases.operations.status import workers_running
from hevcq.util.text import ago, counted, printable
from hevcq.wiring.app import App

OfClass = Annotated[
    FailureClass | None,
    typer.Option(
        "--class",
        metavar="CLASS",
        help=f"Only this failure class: {', '.join(FailureClass)}.",
    ),
]

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
    with cli.app() as app:
        picked = [found.name for found in pick(app.profiles, profile or [])]
        whole = ReprocessRequest(
            names or [f"{INBOX}/"], picked, who=current_user(), dry_run=dry_run
        )
        requests = [whole] if missing else _by_state(whole, state)
        done = chain.from_iterable(_queued(app, each, missing=missing) for each in requests)
        results = _show_queued(cli, app, "retry", done, as_json=as_json)
    named = bool(state) or any(not _is_folder(name) for name in names or ())
    if not results and missing:
        cli.echo(NOTHING_MISSING)
    elif not results:
        cli.echo(NO_MATCH if named else NOTHING_FAILED)
    if JobResult.SOURCE_CHANGED in results or (named and not results and not missing):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _show_queued(
    cli: Cli, app: App, command: str, changes: Iterable[JobChange], *, as_json: bool
) -> set[JobResult]:
    """Print each change as it comes; return the results that there were."""
    results: set[JobResult] = set()
    for done in changes:
        render.emit_result(command, done.job, done.result.value, done.detail, as_json=as_json)
        results.add(done.result)
    if JobResult.QUEUED in results and workers_running(app.settings) == 0:
        cli.echo(NO_WORKER)
    return results


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

    Encodes that run finish, but no further chunk of a split video begins. Every process on the data
    folder, or the whole farm, obeys within seconds.
    """
    if now and freeze:
        raise UsageError("Only one of --now and --freeze can be given.")
    chosen = {freeze: RunningWork.FREEZE, now: RunningWork.STOP}.get(True, RunningWork.BORDER)
    with cli_of(ctx).app() as app:
        wanted = Pause(
            by=current_user(),
            profile=_known(app, profile) or "",
            since=app.clock.now(),
            running=chosen,
        )
        for_s = None if length is None else pausing.seconds_of(length)
        local = not app.settings.on_aws
        made = pausing.pause(app.backend.ledger, wanted, for_s, can_freeze=local)
        if as_json:
            render.emit_json({"type": "pause", **made.model_dump(mode="json")})
            return
        sentence = pause_in_words(made, app.clock.now(), app.hours.schedule)
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


app = group("List, show, acknowledge and forget failed jobs.")
Letter = typer.Argument(metavar="ID", help="As `hevcq failures list` shows it, or the job's id.")


@app.command("list", cls=PlainCommand)
def list_letters(
    ctx: typer.Context,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List failed jobs, oldest first."""
    with cli_of(ctx).app() as opened:
        wanted = DeadLetterFilter(_profiles(opened, profile), failure_class, limit=limit)
        found = ExpiredMessages(opened.backend).record_each(find(opened.backend.queues, wanted))
        if as_json:
            for name, letter in found:
                render.emit_json(letter_json(name, letter))
            return
        now = opened.clock.now()
        rows = [_row(name, letter, now) for name, letter in found]
        if not rows:
            cli_of(ctx).echo(
                "No failed jobs; `hevcq ingest FOLDER --dry-run` also names refused files."
            )
            return
        render.emit_table(("letter", "profile", "class", "buried", "source", "reason"), rows)


@app.command(cls=PlainCommand)
def show(
    ctx: typer.Context,
    letter: Annotated[str, Letter],
    as_json: AsJson = False,
) -> None:
    """Show one failed job with the last lines of ffmpeg.

    Reason, class, attempts, and the message as it was received.
    """
    with cli_of(ctx).app() as opened:
        found = list(find(opened.backend.queues, DeadLetterFilter(letter=letter)))
        if not found:
            raise UsageError(f"No failed job {letter!r}.")
        for name, each in found:
            if as_json:
                render.emit_json(letter_json(name, each))
            else:
                _show(name, each)


@app.command(cls=PlainCommand)
def forget(
    ctx: typer.Context,
    letter: Annotated[str | None, Letter] = None,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    limit: Limit = None,
    yes: Yes = False,
) -> None:
    """Forget failed jobs: delete their dead letters.

    The jobs stay failed in the ledger; originals are not touched.
    """
    cli = cli_of(ctx)
    with cli.app() as opened:
        names = _profiles(opened, profile)
        wanted = DeadLetterFilter(names, failure_class, letter or "", limit)
        count = sum(1 for _ in find(opened.backend.queues, wanted))
        question = f"Permanently delete {counted(count, 'dead letter')}?"
        if count and not yes and not confirmed(question):
            cli.echo("Nothing deleted.")
            raise typer.Exit(ExitCode.SOME_FAILED)
        gone = purge_letters(opened.backend.queues, wanted)
        cli.echo(f"{counted(gone, 'dead letter')} deleted.")


@app.command(cls=PlainCommand)
def acknowledge(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="PATH|JOB", help="Files, folders or job ids.")
    ],
) -> None:
    """Keep failed videos as they are; report them no more.

    A file that changes is tried again; `hevcq retry FILE` takes it back.
    """
    cli, count = cli_of(ctx), 0
    with cli.app() as opened:
        for job in keep_failed(opened.backend, opened.catalog, names, current_user()):
            render.emit_result("acknowledge", job, "kept", "", as_json=False)
            count += 1
    if not count:
        require_existing(map(Path, names))
        cli.echo("Nothing failed there.")
        raise typer.Exit(ExitCode.SOME_FAILED)


def letter_json(profile: str, letter: DeadLetter) -> dict[str, object]:
    plain = asdict(letter)
    task = letter.task
    plain["task"] = task.model_dump(mode="json") if task else None
    plain["job_id"] = task.job_id if task else None
    return {"type": "dead_letter", "profile": profile, **plain}


def _profiles(opened: App, names: list[str] | None) -> list[str]:
    return [profile.name for profile in pick(opened.profiles, names or [])]


def _row(profile: str, letter: DeadLetter, now: float) -> list[str]:
    source, buried = _source(letter), ago(letter.buried_at, now)
    reason = without_path(source, letter.reason)
    return [letter.letter_id[:12], profile, letter.failure_class.value, buried, source, reason]


def _source(letter: DeadLetter) -> str:
    if letter.task is None:
        return "(unreadable message)"
    return render.place(letter.task.source.bucket, letter.task.source.key)


def _show(profile: str, letter: DeadLetter) -> None:
    facts = letter_json(profile, letter)
    for name in ("letter_id", "profile", "job_id", "failure_class", "attempts", "reason"):
        render.emit(f"{name}: {printable(facts[name])}")
    if letter.task:
        render.emit(f"source: {_source(letter)}")
    for line in letter.tail:
        render.emit(f"  | {printable(line)}")
    render.emit(f"message: {printable(letter.body)}")


def redrive(
    ctx: typer.Context,
    *,
    dlq: Annotated[
        bool, typer.Option("--dlq", help="Confirm redriving dead letters (required).")
    ] = False,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Queue the jobs of dead letters again.

    Resets their failure counts and records who did it, as `hevcq retry` does. If interrupted, run it
    again: no letter is lost.
    """
    if not dlq:
        raise UsageError("Add --dlq to confirm redriving dead letters.")
    cli = cli_of(ctx)
    with cli.app() as app:
        wanted = DeadLetterFilter(_profiles(app, profile), failure_class, limit=limit)
        request = ReprocessRequest((), who=current_user(), why="redrive", dry_run=dry_run)
        done = work.redrive(app.backend, request, wanted)
        results = _show_queued(cli, app, "redrive", done, as_json=as_json)
    if not results:
        cli.echo("No dead letter to queue again; `hevcq failures list` shows all.")
    if JobResult.SOURCE_CHANGED in results:
        raise typer.Exit(ExitCode.SOME_FAILED)
