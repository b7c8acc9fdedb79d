"""Print data on stdout: JSON lines, tables that fit the terminal, and events as sentences."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

import typer

from hevcq.domain.events import EventName, IngestEvent
from hevcq.domain.job import JobRecord
from hevcq.domain.keys import LIBRARY_BUCKET, path_of_key
from hevcq.util.text import duration, printable, size

if TYPE_CHECKING:
    from hevcq.usecases.ingest.forecast import Range

NAMES = frozenset({"file", "folder", "source", "target", "value", "from"})
"""Columns whose cells may be shortened in the middle."""
SENTENCES = frozenset({"why", "note", "reason", "detail", "meaning", "description"})
"""Last columns that move below their row if the terminal is too narrow."""
KEPT_SPACE = "\x00"
"""Replaces a space where a line must not break; printable text does not contain it."""
MIN_NAME = 12
MAX_WIDTH = 64
"""Columns are aligned up to this many characters, so that one long name does not widen every row."""


def emit(line: str = "") -> None:
    typer.echo(line)


def emit_sentence(words: str) -> None:
    """Print a sentence on stdout, wrapped to the terminal if there is one."""
    typer.echo(paragraph(words, screen_width(sys.stdout)))


def emit_json(value: Mapping[str, object]) -> None:
    """Print a JSON object on one line; bytes that are not UTF-8 stay as `\\udcXX` escapes."""
    typer.echo(json.dumps(value, separators=(",", ":")))


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table with a heading, its cells made printable and fitted to the terminal if there is one."""
    cells = [[printable(cell) for cell in row] for row in rows]
    for line in fit_table(columns, cells, screen_width(sys.stdout)):
        typer.echo(line)


def screen_width(stream: TextIO) -> int | None:
    """Return the width of a stream's terminal in columns, or None for a file or pipe."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


class StatusLine:
    """A line on stderr that shows the current file, if stderr is a terminal."""

    def __init__(self, *, live: bool) -> None:
        self._live = live and sys.stderr.isatty()
        self._is_shown = False

    def show(self, name: str, before: str = "", after: str = "") -> None:
        if self._live:
            self._is_shown = True
            self._print(f"{before}{shorten(printable(name), 50)}{after}")

    def clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._print("")

    @staticmethod
    def _print(words: str) -> None:
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)  # noqa: T201


def place(bucket: str, key: str) -> str:
    """Return a source's name for people: the path of a library file, or a key."""
    path = path_of_key(key) if bucket == LIBRARY_BUCKET else None
    return printable(key if path is None else path)


def emit_outcome(word: str, name: object, reason: str) -> None:
    why = f"  ({printable(reason)})" if reason else ""
    emit(f"{word.replace('_', ' ')}  {printable(name)}{why}")


def emit_result(kind: str, job: JobRecord, result: str, detail: str, *, as_json: bool) -> None:
    if as_json:
        facts = {"job_id": job.job_id, "profile": job.profile, "key": job.source.key}
        emit_json({"type": kind, **facts, "result": result, "detail": detail})
        return
    more = f"  ({printable(detail)})" if detail else ""
    source, width = place(job.source.bucket, job.source.key), screen_width(sys.stdout)
    if width is not None:
        room = width - len(f"{result}  {job.profile}  {more}")
        source = shorten(source, max(MIN_NAME, room))
    emit(f"{result}  {job.profile}  {source}{more}")


def fit_table(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    width: int | None,
    *,
    right: bool = False,
) -> list[str]:
    """Return an aligned table, one line per row, of at most `width` columns (None: any width).

    Names are shortened in the middle. A last column of sentences that does not fit is wrapped below its
    row. With `right`, all columns but the first are aligned right.
    """
    grid = [list(columns), *map(list, cells)]
    widths = [min(MAX_WIDTH, max(map(_text_width, column))) for column in zip(*grid, strict=True)]
    lines = [_align_row(row, widths, right=right) for row in grid]
    if width is None or all(_text_width(line) <= width for line in lines):
        return lines
    below = columns[-1] in SENTENCES
    last = len(columns) - below
    widths = [max(_text_width(row[i]) for row in grid) for i in range(last)]
    while sum(widths) + 2 * (last - 1) > width:
        names = [i for i in range(last) if columns[i] in NAMES and widths[i] > MIN_NAME]
        if not names:
            break
        widths[max(names, key=lambda i: widths[i])] -= 1
    out = []
    for row in grid:
        cut = [
            shorten(cell, widths[i]) if columns[i] in NAMES else cell
            for i, cell in enumerate(row[:last])
        ]
        out.append(_align_row(cut, widths))
        if below and row[-1] and row is not grid[0]:
            out += wrap_line(f"  {row[-1]}", width)
    return out


def shorten(name: str, width: int) -> str:
    """Return a name shortened in the middle to `width` columns: ends of names differ within a series."""
    if _text_width(name) <= width:
        return name
    head, tail = "", ""
    for character in reversed(name):
        if _text_width(tail) + _text_width(character) > (width - 1) * 3 // 5:
            break
        tail = character + tail
    for character in name:
        if _text_width(head) + _text_width(character) + 1 + _text_width(tail) > width:
            break
        head += character
    return f"{head}…{tail}"


def wrap_line(line: str, width: int | None) -> list[str]:
    """Return a line wrapped to `width` columns; the lines after the first are indented."""
    return paragraph(line, width, len(line) - len(line.lstrip()) + 2).split("\n")


def paragraph(text: str, width: int | None, indent: int = 2) -> str:
    """Return a message wrapped to `width` columns (None: unchanged).

    Text in backticks and paths is not broken, so that it can be copied.
    """
    if width is None or _text_width(text) <= width:
        return text
    whole = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", KEPT_SPACE), text)
    lines = textwrap.wrap(
        whole,
        max(width, 2 * indent),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(lines).replace(KEPT_SPACE, " ")


def _align_row(row: Sequence[str], widths: Sequence[int], *, right: bool = False) -> str:
    cells: list[str] = []
    for cell, width in zip(row, widths, strict=True):
        blanks = " " * (width - _text_width(cell))
        cells.append(blanks + cell if right and cells else cell + blanks)
    return "  ".join(cells).rstrip()


def _text_width(text: str) -> int:
    """Return the columns that a terminal needs for a text: two for each wide character."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def size_range(count: Range | None) -> str:
    """Return a range of bytes, such as `1.2 to 1.6 GiB` or `888.0 KiB to 1.1 MiB`; "" for None."""
    if count is None:
        return ""
    low, high = size(round(count.low)), size(round(count.high))
    number, _, unit = low.partition(" ")
    return high if low == high else f"{number if high.endswith(unit) else low} to {high}"


def without_path(path: str, reason: str) -> str:
    """Return a reason without the path printed before it: `x.mp4 is empty.` → `It is empty.`"""
    rest = reason.removeprefix(path)
    if not path or rest == reason:
        return reason
    if rest.startswith(" "):
        return f"It{rest}"
    rest = rest.lstrip(": ")
    return rest[:1].upper() + rest[1:]


def sentence(event: IngestEvent) -> str | None:
    if event.event in _PLAIN:
        reason = event.reason or ""
        return f"Paused: {reason}" if event.event is EventName.PAUSED else reason or None
    words = _WORDS.get(event.event)
    if words is None:
        return None
    who = f"{event.path} [{event.profile}]" if event.profile else (event.path or "")
    return f"{who}: {words(event)}"


def _placed_words(event: IngestEvent) -> str:
    extra = f" ({' '.join(event.notices)})" if event.notices else ""
    if event.mode == "replace":
        return f"replaced; original kept{extra}"
    return f"done: {event.target}{extra}"


def _size_words(event: IngestEvent) -> str:
    before, after = event.size or 0, event.output_size or 0
    percent = 100 * (before - after) / before if before else 0.0
    share = f", {abs(percent):.0f} % {'smaller' if percent >= 0 else 'larger'}" if before else ""
    took = f", in {duration(event.seconds)}" if event.seconds is not None else ""
    return f"{size(before)} → {size(after)}{share}{took}"


def _reason(event: IngestEvent) -> str:
    return without_path(event.path or "", event.reason or "")


_PLAIN = frozenset(
    {
        EventName.CRF_CHOSEN,
        EventName.PAUSED,
        EventName.RESUMED,
        EventName.STOPPING,
        EventName.RECOVERED,
    }
)
_WORDS: dict[EventName, Callable[[IngestEvent], str]] = {
    EventName.FILE_UNUSABLE: lambda e: f"not encoded: {_reason(e)}",
    EventName.JOB_DONE: _size_words,
    EventName.PLACED: _placed_words,
    EventName.JOB_SKIPPED: lambda e: f"skipped: {e.reason}",
    EventName.JOB_FAILED: lambda e: f"failed ({e.failure_class or 'unknown'}): {_reason(e)}",
    EventName.PLACE_FAILED: lambda e: f"encoded, but not put in place: {_reason(e)}",
    EventName.JOB_RETRY: lambda e: f"will be retried: {_reason(e)}",
    EventName.JOB_QUEUED: lambda _: "queued",
    EventName.JOB_PROGRESS: lambda e: f"{e.phase} {e.percent or 0:.0f} %",
    EventName.UPLOAD_PROGRESS: lambda e: f"upload {e.percent or 0:.0f} %",
}


def day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")
