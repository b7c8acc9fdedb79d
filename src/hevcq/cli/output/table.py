"""Put data on stdout: one JSON object a line, or a table (rich on a terminal, plain elsewhere)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.domain.job import JobRecord

__all__ = [
    "ago",
    "emit",
    "emit_json",
    "emit_result",
    "emit_table",
    "plain_table",
    "printable",
    "size",
]

WIDEST = 64
"""Columns are aligned up to so many characters: one name of 255 must not push every row away."""


def emit(line: str = "") -> None:
    """Print one line of data."""
    typer.echo(line)


def emit_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on one line; text that is not UTF-8 stays as `\\udcXX` escapes."""
    typer.echo(json.dumps(value, separators=(",", ":")))


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table with a heading; cells are made printable."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich(columns, cells)
        return
    for line in plain_table(columns, cells):
        typer.echo(line)


def emit_result(kind: str, job: JobRecord, result: str, detail: str, *, as_json: bool) -> None:
    """Print what a command of this kind did to one job."""
    if as_json:
        facts = {"job_id": job.job_id, "profile": job.profile, "key": job.source.key}
        emit_json({"type": kind, **facts, "result": result, "detail": detail})
        return
    more = f"  ({printable(detail)})" if detail else ""
    emit(f"{result}  {job.profile}  {printable(job.source.key)}{more}")


def plain_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of an aligned table; a cell over `WIDEST` pushes its own row only."""
    grid = [list(columns), *[list(row) for row in cells]]
    widths = [min(WIDEST, max(len(row[i]) for row in grid)) for i in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in grid
    ]


def _rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*[Text(cell) for cell in row])
    Console().print(table)


def size(count: float) -> str:
    """Return bytes as people read them, in binary units."""
    import humanize

    return humanize.naturalsize(count, binary=True)


def ago(then: float, now: float) -> str:
    """Return how long ago `then` was; both are wall seconds."""
    from datetime import timedelta

    import humanize

    return f"{humanize.naturaldelta(timedelta(seconds=max(0.0, now - then)))} ago"
