"""`hevcq redrive`: send dead letters back."""

from __future__ import annotations

import getpass
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, Limit, OfClass, OfJob, ProfileNames
from hevcq.cli.output import table as render
from hevcq.cli.output.status_table import NO_WORKER
from hevcq.errors import UsageError
from hevcq.settings.profile_files import pick

if TYPE_CHECKING:
    import threading

    from hevcq.usecases.operations.dead_letters import Redriven, RedriveRequest
    from hevcq.wiring.app import App

REPORT_EVERY = 25
"""Dead letters between two progress lines on stderr."""


def redrive(
    ctx: typer.Context,
    *,
    dlq: Annotated[
        bool, typer.Option("--dlq", help="Confirm redriving dead letters (required).")
    ] = False,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    job: OfJob = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="Only older letters: 12h, 2d or an ISO date."
        ),
    ] = None,
    limit: Limit = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", min=0, help="Maximum per second (default: no limit)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent back.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their queue.

    Resets their failure counts and records who did it. If interrupted, run it again: no letter is
    lost.
    """
    if not dlq:
        raise UsageError("Add --dlq to confirm redriving dead letters.")
    from hevcq.settings.quantities import past_time
    from hevcq.usecases.operations.dead_letters import DeadLetterFilter, RedriveRequest
    from hevcq.wiring.app import stop_signals

    cli = cli_of(ctx)
    with stop_signals() as signals, cli.app() as app:
        names = [found.name for found in pick(app.profiles, profile or [])]
        before = past_time(older_than, app.clock.now()) if older_than else None
        wanted = DeadLetterFilter(names, failure_class, job, limit=limit, buried_before=before)
        request = RedriveRequest(wanted, who=current_user(), dry_run=dry_run)
        request = request if rate is None else replace(request, rate=rate)
        counts = _carry_out(app, cli, request, signals.asked, as_json=as_json)
        stopped = signals.asked.is_set()
        idle = counts.get("redriven", 0) > 0 and app.workers_running() == 0
    summary = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in counts.items())
    cli.echo(f"{summary}." if summary else "No matching dead letter.")
    if idle:
        cli.echo(NO_WORKER)
    if stopped:
        raise typer.Exit(ExitCode.INTERRUPTED)


def current_user() -> str:
    """Return the name of the current user, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "unknown"


def _carry_out(
    app: App, cli: Cli, request: RedriveRequest, stop: threading.Event, *, as_json: bool
) -> dict[str, int]:
    """Redrive and print each dead letter; return their count per result."""
    from hevcq.usecases.operations.dead_letters import redrive as send_back

    queues = app.backend.queues
    total = sum(queues[name].depth().dead for name in request.wanted.profiles or queues)
    counts: dict[str, int] = {}
    done = send_back(app.backend, request, clock=app.clock, stop=stop)
    for number, each in enumerate(done, 1):
        _show(each, as_json=as_json)
        word = each.result.value
        counts[word] = counts.get(word, 0) + 1
        if number % REPORT_EVERY == 0:
            cli.echo(f"{number} of about {total} dead letters.")
    return counts


def _show(each: Redriven, *, as_json: bool) -> None:
    word, task = each.result.value, each.letter.task
    if as_json:
        job = task.job_id if task else None
        facts = {"profile": each.profile, "letter_id": each.letter.letter_id, "job_id": job}
        render.emit_json({"type": "redrive", **facts, "result": word})
    else:
        source = task.source.key if task else each.letter.letter_id
        render.emit(f"{word}  {each.profile}  {render.printable(source)}")
