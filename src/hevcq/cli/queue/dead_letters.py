"""`hevcq dead-letters`: list, show and delete the messages of failed jobs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, Limit, OfClass, OfJob, PlainCommand, ProfileNames
from hevcq.cli.output import table as render
from hevcq.cli.output.sentences import without_path
from hevcq.settings.profile_files import pick
from hevcq.util.text import counted

if TYPE_CHECKING:
    from hevcq.usecases.operations.dead_letters import DeadLetter
    from hevcq.wiring.app import App

app = typer.Typer(
    help="List, show and delete failed jobs' messages.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command("list", cls=PlainCommand)
def list_letters(
    ctx: typer.Context,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    job: OfJob = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first."""
    with cli_of(ctx).app() as opened:
        from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find
        from hevcq.usecases.operations.expired_messages import ExpiredMessages

        wanted = DeadLetterFilter(_profiles(opened, profile), failure_class, job, limit=limit)
        found = ExpiredMessages(opened.backend).record_each(find(opened.backend.queues, wanted))
        if as_json:
            for name, letter in found:
                render.emit_json(letter_json(name, letter))
            return
        now = opened.clock.now()
        rows = [_row(name, letter, now) for name, letter in found]
        if not rows:
            cli_of(ctx).echo("No dead letters.")
            return
        render.emit_table(("letter", "profile", "class", "buried", "source", "reason"), rows)


@app.command(cls=PlainCommand)
def show(
    ctx: typer.Context,
    letter: Annotated[str, typer.Argument(help="Letter id or prefix.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with the last lines of ffmpeg.

    Reason, class, attempts, and the message as it was received.
    """
    with cli_of(ctx).app() as opened:
        from hevcq.errors import UsageError
        from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find

        found = list(find(opened.backend.queues, DeadLetterFilter(letter=letter)))
        if not found:
            raise UsageError(f"No dead letter {letter!r}.")
        for name, each in found:
            if as_json:
                render.emit_json(letter_json(name, each))
            else:
                _show(name, each)


@app.command(cls=PlainCommand)
def purge(
    ctx: typer.Context,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    job: OfJob = None,
    limit: Limit = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete dead letters permanently.

    The jobs stay failed in the ledger; originals are not touched.
    """
    cli = cli_of(ctx)
    with cli.app() as opened:
        from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find
        from hevcq.usecases.operations.dead_letters import purge as purge_letters

        wanted = DeadLetterFilter(_profiles(opened, profile), failure_class, job, limit=limit)
        count = sum(1 for _ in find(opened.backend.queues, wanted))
        if count and not yes and not _agreed(count):
            cli.echo("Nothing deleted.")
            raise typer.Exit(ExitCode.SOME_FAILED)
        gone = sum(there for _, _, there in list(purge_letters(opened.backend.queues, wanted)))
        cli.echo(f"{gone} dead letter{'' if gone == 1 else 's'} deleted.")


def letter_json(profile: str, letter: DeadLetter) -> dict[str, object]:
    """Return the documented JSON form of a dead letter."""
    plain = asdict(letter)
    task = letter.task
    plain["task"] = task.model_dump(mode="json") if task else None
    plain["job_id"] = task.job_id if task else None
    return {"type": "dead_letter", "profile": profile, **plain}


def _profiles(opened: App, names: list[str] | None) -> list[str]:
    return [profile.name for profile in pick(opened.profiles, names or [])]


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        return False  # nobody to ask: only --yes confirms
    return typer.confirm(f"Permanently delete {counted(count, 'dead letter')}?", err=True)


def _row(profile: str, letter: DeadLetter, now: float) -> list[str]:
    source = _source(letter)
    when = render.ago(letter.buried_at, now)
    short = letter.letter_id[:12]
    reason = without_path(source, letter.reason)
    return [short, profile, letter.failure_class.value, when, source, reason]


def _source(letter: DeadLetter) -> str:
    if letter.task is None:
        return "(unreadable message)"
    return render.place(letter.task.source.bucket, letter.task.source.key)


def _show(profile: str, letter: DeadLetter) -> None:
    facts = letter_json(profile, letter)
    tail, body = letter.tail, letter.body
    for name in ("letter_id", "profile", "job_id", "failure_class", "attempts", "reason"):
        render.emit(f"{name}: {render.printable(facts[name])}")
    if letter.task:
        render.emit(f"source: {_source(letter)}")
    for line in tail:
        render.emit(f"  | {render.printable(line)}")
    render.emit(f"message: {render.printable(body)}")
