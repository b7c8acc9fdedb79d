"""`hevcq retry`, `cancel`, `pause`, `resume`, `failures` and `redrive`."""

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
    confirm,
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
    "Nothing to do: no failed job. `hevcq retry --missing` looks for missing renditions."
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

    All of them, or those below the named folders; a named file or job is queued again whatever its
    state. After changing a profile, --state done encodes finished videos again. A source that changed
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
        if missing:
            changes = work.reprocess_missing(app.backend, whole, app.profiles, app.catalog)
        else:
            changes = chain.from_iterable(
                work.reprocess(app.backend, each, app.catalog)
                for each in _split_request(whole, state)
            )
        results = _show_queued(cli, app, "retry", changes, as_json=as_json)
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
    """Print each change as it comes; return the results that occurred."""
    results: set[JobResult] = set()
    for change in changes:
        render.emit_result(command, change.job, change.result.value, change.detail, as_json=as_json)
        results.add(change.result)
    if JobResult.QUEUED in results and workers_running(app.settings) == 0:
        cli.echo(NO_WORKER)
    return results


def _split_request(
    whole: ReprocessRequest, state: list[JobState] | None
) -> Iterator[ReprocessRequest]:
    """Yield a request for the folders, failed jobs unless a state is given, and one for other names."""
    folders = [name for name in whole.names if _is_folder(name)]
    failed = frozenset(state or {JobState.DEAD})
    yield replace(whole, names=folders, states=failed, exact=not state)
    files = [name for name in whole.names if name not in folders]
    yield replace(whole, names=files, states=frozenset(state or SETTLED))


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

    Running encodes stop at their next heartbeat; chunks of a split video are cancelled too. Originals
    and finished renditions are not touched; `hevcq retry` queues a cancelled job again.
    """
    cli = cli_of(ctx)
    is_empty = True
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
        for change in cancelled:
            render.emit_result(
                "cancel", change.job, change.result.value, change.detail, as_json=as_json
            )
            is_empty = False
    if is_empty:
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
        typer.Option("--freeze", help="Freeze running encodes in memory (one machine)."),
    ] = False,
    profile: ProfileName = None,
    as_json: AsJson = False,
) -> None:
    """Stop new work until `hevcq resume`.

    Running encodes finish, but no further chunk of a split video starts. Every process on the data
    folder, or the whole farm, follows within seconds.
    """
    if now and freeze:
        raise UsageError("Only one of --now and --freeze can be given.")
    chosen = {freeze: RunningWork.FREEZE, now: RunningWork.STOP}.get(True, RunningWork.BORDER)
    with cli_of(ctx).app() as app:
        new = Pause(
            by=current_user(),
            profile=_require_profile(app, profile) or "",
            since=app.clock.now(),
            running=chosen,
        )
        for_s = None if length is None else pausing.seconds_of(length)
        local = not app.settings.on_aws
        saved = pausing.pause(app.backend.ledger, new, for_s, can_freeze=local)
        if as_json:
            render.emit_json({"type": "pause", **saved.model_dump(mode="json")})
            return
        sentence = pause_in_words(saved, app.clock.now(), app.hours.schedule)
        render.emit_sentence(f"{sentence} {pausing.EFFECTS[saved.running]}")


def resume(ctx: typer.Context, profile: ProfileName = None, as_json: AsJson = False) -> None:
    """Resume paused work.

    Without --profile every pause ends. Frozen encodes continue. Hours in the settings
    (schedule.windows) still apply.
    """
    with cli_of(ctx).app() as app:
        pauses = pausing.resume(app.backend.ledger, _require_profile(app, profile))
        names = list(app.profiles) if profile is None else [profile]
        now, hours = app.clock.now(), app.hours
        closed = pausing.why_closed(app.backend.ledger, names, hours, now)
    if as_json:
        for each in pauses:
            render.emit_json({"type": "resume", **each.model_dump(mode="json")})
        return
    render.emit_sentence("Resumed." if pauses else "Nothing was paused.")
    for status in closed:
        render.emit_sentence(f"{', '.join(status.profiles)}: {status.reason}")


def _require_profile(app: App, profile: str | None) -> str | None:
    """Return the name of an installed profile, or None for None. Raises UnknownProfile."""
    return None if profile is None else pick(app.profiles, [profile])[0].name


app = group("List, show, acknowledge and forget failed jobs.")
Letter = typer.Argument(metavar="ID", help="The id in `hevcq failures list`, or the job's id.")


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
        letter_filter = DeadLetterFilter(_profiles(opened, profile), failure_class, limit=limit)
        letters = ExpiredMessages(opened.backend).record_each(
            find(opened.backend.queues, letter_filter)
        )
        if as_json:
            for name, letter in letters:
                render.emit_json(letter_json(name, letter))
            return
        now = opened.clock.now()
        rows = [_row(name, letter, now) for name, letter in letters]
        if not rows:
            cli_of(ctx).echo(
                "No failed jobs; `hevcq ingest FOLDER --dry-run` also lists refused files."
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

    Also its reason, class, attempts, and the message as it was received.
    """
    with cli_of(ctx).app() as opened:
        letters = list(find(opened.backend.queues, DeadLetterFilter(letter=letter)))
        if not letters:
            raise UsageError(f"No failed job {letter!r}.")
        for name, each in letters:
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
        letter_filter = DeadLetterFilter(names, failure_class, letter or "", limit)
        count = sum(1 for _ in find(opened.backend.queues, letter_filter))
        question = f"Permanently delete {counted(count, 'dead letter')}?"
        if count and not yes and not confirm(question):
            cli.echo("Nothing deleted.")
            raise typer.Exit(ExitCode.SOME_FAILED)
        deleted = purge_letters(opened.backend.queues, letter_filter)
        cli.echo(f"{counted(deleted, 'dead letter')} deleted.")


@app.command(cls=PlainCommand)
def acknowledge(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="PATH|JOB", help="Files, folders or job ids.")
    ],
) -> None:
    """Keep failed videos as they are; report them no more.

    A file that changes is tried again; `hevcq retry FILE` queues it again.
    """
    cli, count = cli_of(ctx), 0
    with cli.app() as opened:
        for job in keep_failed(opened.backend, opened.catalog, names, current_user()):
            render.emit_result("acknowledge", job, "kept", "", as_json=False)
            count += 1
    if not count:
        require_existing(map(Path, names))
        cli.echo("No failed jobs there.")
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

    Resets their failure counts and records who did it, like `hevcq retry`. After an interruption, run
    it again: no letter is lost.
    """
    if not dlq:
        raise UsageError("Add --dlq to confirm redriving dead letters.")
    cli = cli_of(ctx)
    with cli.app() as app:
        letter_filter = DeadLetterFilter(_profiles(app, profile), failure_class, limit=limit)
        request = ReprocessRequest((), who=current_user(), why="redrive", dry_run=dry_run)
        changes = work.redrive(app.backend, request, letter_filter)
        results = _show_queued(cli, app, "redrive", changes, as_json=as_json)
    if not results:
        cli.echo("No matching dead letter; `hevcq failures list` shows all.")
    if JobResult.SOURCE_CHANGED in results:
        raise typer.Exit(ExitCode.SOME_FAILED)
