"""Render the JSON form of `hevcq status` as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hevcq.cli.output.table import fit, paragraph, place
from hevcq.usecases.libraries.feed import words
from hevcq.util.text import duration, printable

MAX_RUNNING = 100
"""Most running jobs shown; a fleet has more than fit a screen."""
QUEUE_COLUMNS: tuple[str, ...] = (
    "profile",
    *("queued", "running", "done", "skipped", "dead"),
    *("ready", "in flight", "delayed", "dead letters"),
)
NO_WORKER = (
    "No worker is running on this data folder: start one with `hevcq worker`, or run your"
    " `hevcq ingest` again."
)
EFFECTS = {
    "finish": "Videos that have begun are finished.",
    "border": "Running encodes end.",
    "freeze": "Running encodes stand still.",
    "stop": "Running encodes were stopped.",
}
STATES = ("queued", "running", "done", "skipped", "dead")


def lines(status: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Return an overview as aligned lines of at most `width` columns (None: as long as they are)."""
    columns, cells = QUEUE_COLUMNS, [_queue(queue) for queue in status["queues"]]
    quiet = [row[0] for row in cells if not any(cell.strip("0") for cell in row[1:])]
    if len(quiet) < len(cells):
        cells = [row for row in cells if row[0] not in quiet]
    if not any(queue["delayed"] for queue in status["queues"]):
        at = columns.index("delayed")
        columns = (*columns[:at], *columns[at + 1 :])
        cells = [(*row[:at], *row[at + 1 :]) for row in cells]
    out = _table(columns, cells, right=True)
    if 0 < len(quiet) < len(status["queues"]):
        out.append(paragraph(f"No jobs of {', '.join(quiet)}.", width))
    if status["running"]:
        rows = [_running(job) for job in status["running"]]
        columns = ("job", "profile", "phase", "done", "speed", "left", "source")
        out += ["", *fit(columns, rows, width)]
    out += [paragraph(line, width) for line in _troubles(status)]
    dead = sum(queue["dead_letters"] for queue in status["queues"])
    if dead:
        plural = "s" if dead > 1 else ""
        out += ["", f"{dead} failed job{plural}: run `hevcq failures list`."]
    return out


def _troubles(status: Mapping[str, Any]) -> list[str]:
    """Return sentences about jobs whose worker died, and about work that no worker does."""
    left = sum(not job["alive"] and not job["chunks"] for job in status["running"])
    waiting = sum(queue["ready"] + queue["delayed"] for queue in status["queues"])
    out = []
    for shut in status["closed"]:
        every = len(shut["profiles"]) == len(status["queues"])
        named = "" if every else f"{', '.join(shut['profiles'])}: "
        out.append(f"{named}{shut['reason']} {EFFECTS[shut['running']]}")
    if left:
        jobs = "1 job was" if left == 1 else f"{left} jobs were"
        out.append(f"{jobs} interrupted: the worker died. The next worker takes it up again.")
    for each in status.get("libraries", ()):
        out.append(f"Library {printable(each['library'])}: {words(each)}")
    if status["workers"] == 0 and (waiting or left):
        out.append(NO_WORKER)
    return ["", *out] if out else []


def _queue(queue: Mapping[str, Any]) -> tuple[str, ...]:
    jobs = dict(queue["jobs"])
    # A split video has no worker of its own, but its chunks are being encoded.
    jobs["running"] = jobs.get("running", 0) + jobs.get("split", 0)
    counts = [str(jobs.get(state, 0)) for state in STATES]
    messages = [str(queue[name]) for name in ("ready", "in_flight", "delayed", "dead_letters")]
    return (queue["profile"], *counts, *messages)


def _running(job: Mapping[str, Any]) -> tuple[str, ...]:
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
        place(job["bucket"], job["key"]),
    )


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False
) -> list[str]:
    grid = [columns, *rows]
    widths = [max(len(row[i]) for row in grid) for i in range(len(columns))]
    out = []
    for row in grid:
        cells = [
            cell.rjust(width) if right and at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
    return out
