"""What an ingest is about to do, on one screen: videos to encode, skips by reason, problems, the sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hevcq.cli.output.ingest_report import MAX_REASONS, common_folder, skips
from hevcq.cli.output.sentences import (
    about,
    short_about,
    size_range,
    without_path,
)
from hevcq.cli.output.table import fit, wrapped
from hevcq.usecases.ingest.decide import NOT_INGESTED, TO_PROCESS, Disposition, IngestPlan, Item
from hevcq.util.text import printable, size

MAX_LISTED = 7
"""Videos that are listed one by one unless all are asked for: the largest, which decide how long it takes."""
MAX_PROBLEMS = 4
BUSY = 1.5
"""How many times as long work must take beside other programs for the plan to say so."""
VERBS: dict[Disposition, str] = {
    Disposition.QUEUE: "to encode",
    Disposition.JOIN: "queued earlier",
    Disposition.COLLECT: "to put in place",
    Disposition.DONE: "done earlier",
    Disposition.SKIP: "skipped",
    Disposition.REFUSE: "refused",
    Disposition.FAILED: "failed earlier",
    Disposition.UNREADABLE: "not usable",
}


def screen(plan: IngestPlan, width: int | None, *, listed: bool, every: bool) -> Iterator[str]:
    """Yield the lines of a plan that fit `width` columns (None: as long as they are).

    With `listed`, videos to encode are listed, the largest ones only unless `every`, and skips are
    counted by reason, or each is listed. Problems are always named, a few of them unless `every`.
    """
    top = common_folder([item.path for item in plan.items])
    several = len({item.profile.name for item in plan.items if item.profile}) > 1
    if listed:
        yield from _to_do(plan.of(*TO_PROCESS), top, width, every=every)
    skipped = plan.of(Disposition.SKIP)
    if every and listed:
        yield from _each(skipped, top, width, several=several)
    elif skipped and listed:
        yield from skips([item.reason for item in skipped], width)
    problems = plan.of(*NOT_INGESTED)
    shown = problems if every else problems[:MAX_PROBLEMS]
    yield from _each(shown, top, width, several=several)
    if len(problems) > len(shown):
        yield f"… and {len(problems) - len(shown):,} more problems (--verbose lists all)"
    notices = Counter(
        each for item in plan.of(*TO_PROCESS) if item.plan for each in item.plan.notices
    )
    for notice, count in notices.most_common(MAX_REASONS):
        yield from wrapped(f"{count:,} × {notice}", width)


def _to_do(items: Sequence[Item], top: Path, width: int | None, *, every: bool) -> Iterator[str]:
    shown = sorted(items, key=lambda item: str(item.path))
    if not every and len(items) > MAX_LISTED:
        largest = sorted(items, key=lambda item: item.size, reverse=True)[:MAX_LISTED]
        shown = sorted(largest, key=lambda item: -item.size)
    if not shown:
        return
    several = len({item.profile.name for item in items if item.profile}) > 1
    columns = ["file", "profile", "what", "size", "after", "CPU time"]
    rows = [_row(item, top) for item in shown]
    needed = {"profile": several, "what": len({row[2] for row in rows}) > 1}
    needed["after"] = any(row[4] for row in rows)
    used = [i for i, name in enumerate(columns) if needed.get(name, True)]
    cells = [[row[i] for i in used] for row in rows]
    yield from fit([columns[i] for i in used], cells, width)
    if len(items) > len(shown):
        yield f"… and {len(items) - len(shown):,} more (--verbose lists all)"


def _row(item: Item, top: Path) -> list[str]:
    return [
        _name(item.path, top),
        item.profile.name if item.profile else "-",
        VERBS[item.disposition],
        size(item.size),
        size_range(item.output),
        short_about((item.cpu.low, item.cpu.high)) if item.cpu is not None else "",
    ]


def problem(item: Item) -> list[str]:
    """Return the line of an item that is not ingested, with its whole path."""
    return list(_each([item], Path(), None, several=True))


def _each(items: Sequence[Item], top: Path, width: int | None, *, several: bool) -> Iterator[str]:
    for item in items:
        who = _name(item.path, top)
        if several and item.profile is not None:
            who += f" [{item.profile.name}]"
        yield from wrapped(f"{who}: {VERBS[item.disposition]}{_why(item)}", width)


def _why(item: Item) -> str:
    reason = without_path(printable(item.path), item.reason)
    if not reason or reason.rstrip(".").lower() == VERBS[item.disposition]:
        return ""
    return f": {reason}"


def _name(path: Path, top: Path) -> str:
    return printable(path.relative_to(top) if path.is_relative_to(top) else path)


def total(plan: IngestPlan) -> str:
    """Return the closing sentence: counts, bytes before and after, and the time it will take."""
    counts = [f"{count:,} {VERBS[kind]}" for kind, count in plan.counts().items()]
    if not counts:
        return "No videos found."
    words = f"{', '.join(counts)}."
    if plan.forecast.high > 0:
        words += f" {_change(plan) or size(plan.bytes_to_process) + ' to process'};"
        words += f" encoding will take {about((plan.forecast.low, plan.forecast.high))}"
        words += " (this machine is busy now)." if plan.busy >= BUSY else "."
    return words


def saving(plan: IngestPlan) -> int:
    """Return the bytes that the new renditions of a plan will save, by the middle of the forecast."""
    if plan.output is None:
        return 0
    return max(0, plan.bytes_to_encode - round((plan.output.low + plan.output.high) / 2))


def _change(plan: IngestPlan) -> str:
    before = plan.bytes_to_encode
    if plan.output is None or not before:
        return ""
    least, most = (round(100 * (1 - each / before)) for each in (plan.output.high, plan.output.low))
    if least < 0 < most:
        change = f"{most} % smaller to {-least} % larger"
    elif most <= 0 and least < 0:
        change = f"{_span(-most, -least)} larger"
    else:
        change = f"{_span(least, most)} smaller"
    return f"{size(before)} become {size_range(plan.output)} ({change})"


def _span(least: int, most: int) -> str:
    return f"{most} %" if least == most else f"{least} to {most} %"
