"""`hevcq status`: queues, jobs, progress and dead letters."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hevcq.cli.context import NO_WORKER, AsJson, cli_of, require_existing
from hevcq.cli.output import render
from hevcq.cli.output.render import without_path
from hevcq.domain.keys import INBOX
from hevcq.domain.schedule import RunningWork
from hevcq.errors import UsageError
from hevcq.usecases.operations.dead_letters import ExpiredMessages
from hevcq.usecases.operations.pausing import EFFECTS
from hevcq.usecases.operations.status import (
    COST_WINDOW_S,
    encoded_since,
    jobs_of,
    library_rows,
    library_words,
    overview,
    reason_in_words,
)
from hevcq.util.text import counted, duration, printable
from hevcq.wiring.app import App

MAX_DEAD_LETTERS_CHECKED = 500
"""Dead letters checked per queue, as a person waits here; workers check all of them."""
MAX_RUNNING = 100
"""The most running jobs that are shown; those of a fleet would not fit a screen."""
QUEUE_COLUMNS: tuple[str, ...] = (
    "profile",
    *("queued", "running", "done", "skipped", "dead"),
    *("ready", "in flight", "delayed", "dead letters"),
)
STATES = ("queued", "running", "done", "skipped", "dead")


def status(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Files, folders, keys or job ids to look up."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show queues, progress and failed jobs.

    With PATHs, show the jobs of those sources.
    """
    with cli_of(ctx).app() as app:
        ExpiredMessages(app.backend, most=MAX_DEAD_LETTERS_CHECKED).check()
        _show(app, names or [], as_json=as_json)


def _show(app: App, names: list[str], *, as_json: bool) -> None:
    if names:
        _show_jobs(app, names, as_json=as_json)
        return
    state = overview(app.backend, app.clock, app.settings, app.condition(), limit=MAX_RUNNING)
    facts = state.to_dict()
    facts["libraries"] = library_rows(app.settings.data_dir) if app.settings.libraries else []
    if app.settings.on_aws:
        cpu_s = encoded_since(app.backend.ledger, app.clock.now() - COST_WINDOW_S)
        facts["cost"] = round(app.settings.prices.cost(cpu_s), 2)
    if as_json:
        render.emit_json(facts)
        return
    for line in lines(facts, render.screen_width(sys.stdout)):
        render.emit(line)


def _show_jobs(app: App, names: list[str], *, as_json: bool) -> None:
    unknown: list[str] = []
    rows = []
    for job in jobs_of(app.backend, app.catalog, names, unknown):
        if as_json:
            render.emit_json({"type": "job", **job.model_dump(mode="json", by_alias=True)})
        percent = f"{job.progress.percent:.0f}%" if job.progress and not job.finished_at else ""
        state = f"{job.state.value} {percent}".strip()
        source = render.place(job.source.bucket, job.source.key)
        why = without_path(source, reason_in_words(job))
        rows.append([job.job_id, job.profile, state, source, why])
    if rows and not as_json:
        render.emit_table(("job", "profile", "state", "source", "why"), rows)
    require_existing(Path(name) for name in unknown if "/" in name and not name.startswith(INBOX))
    if unknown:
        named = ", ".join(printable(name) for name in unknown)
        raise UsageError(
            f"No job for {named}; `hevcq ingest --dry-run` shows what would happen to a file."
        )


def lines(status: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Return an overview as aligned lines of at most `width` columns (None: any length)."""
    columns, cells = QUEUE_COLUMNS, [_queue(queue) for queue in status["queues"]]
    quiet = [row[0] for row in cells if not any(cell.strip("0") for cell in row[1:])]
    if len(quiet) < len(cells):
        cells = [row for row in cells if row[0] not in quiet]
    if not any(queue["delayed"] for queue in status["queues"]):
        at = columns.index("delayed")
        columns = (*columns[:at], *columns[at + 1 :])
        cells = [(*row[:at], *row[at + 1 :]) for row in cells]
    out = render.fit_table(columns, cells, None, right=True)
    if 0 < len(quiet) < len(status["queues"]):
        out.append(render.paragraph(f"No jobs of {', '.join(quiet)}.", width))
    if status["running"]:
        rows = [_running_row(job) for job in status["running"]]
        columns = ("job", "profile", "phase", "done", "speed", "left", "source")
        out += ["", *render.fit_table(columns, rows, width)]
    out += [render.paragraph(line, width) for line in _warnings(status)]
    if "cost" in status:
        out += [
            "",
            f"Encodes of the last {COST_WINDOW_S / 3600:.0f} hours: about {status['cost']:.2f} dollars.",
        ]
    dead = sum(queue["dead_letters"] for queue in status["queues"])
    if dead:
        out += ["", f"{counted(dead, 'failed job')}: run `hevcq failures list`."]
    return out


def _warnings(status: Mapping[str, Any]) -> list[str]:
    """Return sentences about pauses, jobs whose worker died, libraries, and work without a worker."""
    orphaned = sum(not job["alive"] and not job["chunks"] for job in status["running"])
    waiting = sum(queue["ready"] + queue["delayed"] for queue in status["queues"])
    out = []
    for closed in status["closed"]:
        is_all = len(closed["profiles"]) == len(status["queues"])
        names = "" if is_all else f"{', '.join(closed['profiles'])}: "
        out.append(f"{names}{closed['reason']} {EFFECTS[RunningWork(closed['running'])]}")
    if orphaned:
        jobs = "1 job was" if orphaned == 1 else f"{orphaned} jobs were"
        out.append(f"{jobs} interrupted: the worker died. The next worker continues.")
    for each in status.get("libraries", ()):
        out.append(f"Library {printable(each['library'])}: {library_words(each)}")
    if status["workers"] == 0 and (waiting or orphaned):
        out.append(NO_WORKER)
    return ["", *out] if out else []


def _queue(queue: Mapping[str, Any]) -> tuple[str, ...]:
    jobs = dict(queue["jobs"])
    # A split video has no worker of its own, but its chunks are being encoded.
    jobs["running"] = jobs.get("running", 0) + jobs.get("split", 0)
    counts = [str(jobs.get(state, 0)) for state in STATES]
    messages = [str(queue[name]) for name in ("ready", "in_flight", "delayed", "dead_letters")]
    return (queue["profile"], *counts, *messages)


def _running_row(job: Mapping[str, Any]) -> tuple[str, ...]:
    speed = f"{job['speed']:.2f}x" if job["speed"] is not None else "-"
    phase = job["phase"] or "-"
    if not job["alive"]:
        phase = "waiting" if job.get("chunks") else "interrupted"
    if job.get("chunks"):
        phase += f" {job['chunks_done']}/{job['chunks']} chunks"
    return (
        job["job_id"][:8],
        job["profile"],
        phase,
        f"{job['percent'] or 0:.0f}%",
        speed,
        duration(job["eta_s"]) or "-",
        render.place(job["bucket"], job["key"]),
    )
