"""`hevcq failures`: list, show, acknowledge and forget failed jobs; `hevcq redrive`: send their messages back."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hevcq.cli.context import NO_WORKER, cli_of, confirmed, current_user, require_existing
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import (
    AsJson,
    DryRun,
    Limit,
    OfClass,
    OfJob,
    PlainCommand,
    ProfileNames,
    Yes,
    group,
)
from hevcq.cli.output import table as render
from hevcq.cli.output.sentences import without_path
from hevcq.errors import UsageError
from hevcq.settings.profile_files import pick
from hevcq.usecases.operations.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    ExpiredMessages,
    Redriven,
    RedriveRequest,
    find,
)
from hevcq.usecases.operations.dead_letters import purge as purge_letters
from hevcq.usecases.operations.dead_letters import redrive as send_back
from hevcq.usecases.operations.reprocess import keep_failed
from hevcq.util.signals import StopSignals
from hevcq.util.text import ago, counted, printable
from hevcq.wiring.app import App

REPORT_EVERY = 25
"""Dead letters between two progress lines on stderr."""

app = group("List, show, acknowledge and forget failed jobs.")
Letter = typer.Argument(metavar="ID", help="As `hevcq failures list` shows it, or the job's id.")


@app.command("list", cls=PlainCommand)
def list_letters(
    ctx: typer.Context,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    job: OfJob = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List failed jobs, oldest first."""
    with cli_of(ctx).app() as opened:
        wanted = DeadLetterFilter(_profiles(opened, profile), failure_class, job, limit=limit)
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
    job: OfJob = None,
    limit: Limit = None,
    yes: Yes = False,
) -> None:
    """Forget failed jobs: delete their dead letters.

    The jobs stay failed in the ledger; originals are not touched.
    """
    cli = cli_of(ctx)
    with cli.app() as opened:
        names = _profiles(opened, profile)
        wanted = DeadLetterFilter(names, failure_class, job, letter, limit=limit)
        count = sum(1 for _ in find(opened.backend.queues, wanted))
        question = f"Permanently delete {counted(count, 'dead letter')}?"
        if count and not yes and not confirmed(question):
            cli.echo("Nothing deleted.")
            raise typer.Exit(ExitCode.SOME_FAILED)
        gone = sum(there for _, _, there in list(purge_letters(opened.backend.queues, wanted)))
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
    job: OfJob = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their queue.

    Resets their failure counts and records who did it. If interrupted, run it again: no letter is
    lost.
    """
    if not dlq:
        raise UsageError("Add --dlq to confirm redriving dead letters.")
    cli = cli_of(ctx)
    with StopSignals() as signals, cli.app() as app:
        names = _profiles(app, profile)
        wanted = DeadLetterFilter(names, failure_class, job, limit=limit)
        request = RedriveRequest(wanted, who=current_user(), dry_run=dry_run)
        queues = app.backend.queues
        total = sum(queues[name].depth().dead for name in wanted.profiles or queues)
        counts: Counter[str] = Counter()
        done = send_back(app.backend, request, stop=signals.asked)
        for number, each in enumerate(done, 1):
            _show_redriven(each, as_json=as_json)
            counts[each.result.value] += 1
            if number % REPORT_EVERY == 0:
                cli.echo(f"{number} of about {total} dead letters.")
        stopped = signals.asked.is_set()
        idle = counts["redriven"] > 0 and app.workers_running() == 0
    summary = ", ".join(
        f"{count} {word.replace('_', ' ')}" for word, count in counts.items() if count
    )
    cli.echo(f"{summary}." if summary else "No matching dead letter.")
    if idle:
        cli.echo(NO_WORKER)
    if stopped:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _show_redriven(each: Redriven, *, as_json: bool) -> None:
    word, task = each.result.value, each.letter.task
    if as_json:
        job = task.job_id if task else None
        facts = {"profile": each.profile, "letter_id": each.letter.letter_id, "job_id": job}
        render.emit_json({"type": "redrive", **facts, "result": word})
    else:
        source = _source(each.letter) if task else each.letter.letter_id
        render.emit(f"{word}  {each.profile}  {source}")
