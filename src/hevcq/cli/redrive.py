"""`hevcq redrive`: send dead letters back."""

from __future__ import annotations

import getpass
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli import render
from hevcq.cli.context import cli_of
from hevcq.cli.options import AsJson, Limit, OfClass, OfJob, ProfileNames
from hevcq.errors import UsageError
from hevcq.profiles import pick

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hevcq.usecases.redrive import Redriven


def redrive(
    ctx: typer.Context,
    *,
    dlq: Annotated[bool, typer.Option("--dlq", help="From the dead letters (required).")] = False,
    profile: ProfileNames = None,
    failure_class: OfClass = None,
    job: OfJob = None,
    limit: Limit = None,
    rate: Annotated[
        float, typer.Option("--rate", min=0, help="At most so many a second; 0: no limit.")
    ] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go back.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their queue.

    Their failures are forgiven and counted anew; who did it is recorded.
    """
    if not dlq:
        raise UsageError("Say --dlq: redrive sends dead letters back, and nothing else.")
    from hevcq.usecases.dead_letters import Wanted
    from hevcq.usecases.redrive import Order
    from hevcq.usecases.redrive import redrive as send_back

    cli = cli_of(ctx)
    with cli.app() as app:
        names = [found.name for found in pick(app.profiles, profile or [])]
        wanted = Wanted(names, failure_class, job, limit=limit)
        order = Order(wanted, who=person(), dry_run=dry_run, rate=rate)
        done = send_back(app.backend, order, clock=app.clock, stop=threading.Event())
        counts = _render(done, as_json=as_json)
    said = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in counts.items())
    cli.say(f"{said}." if said else "No dead letter matches.")


def person() -> str:
    """Return who gives the order, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "unknown"


def _render(done: Iterable[Redriven], *, as_json: bool) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in done:
        word = each.result.value
        counts[word] = counts.get(word, 0) + 1
        task = each.letter.task
        if as_json:
            render.emit_json(
                {
                    "type": "redrive",
                    "profile": each.profile,
                    "letter_id": each.letter.letter_id,
                    "job_id": task.job_id if task else None,
                    "result": word,
                }
            )
        else:
            source = task.source.key if task else each.letter.letter_id
            render.emit(f"{word}  {each.profile}  {render.printable(source)}")
    return counts
