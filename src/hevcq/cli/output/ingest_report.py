"""An ingest in words: its plan before it starts; its closing table, changes and totals at the end."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hevcq.cli.output.render import day, fit_table, size_range, without_path, wrap_line
from hevcq.settings.model import PriceSettings
from hevcq.usecases.ingest.decide import NOT_INGESTED, TO_PROCESS, Disposition, IngestPlan, Item
from hevcq.usecases.ingest.track import GOOD, IngestOutcome, IngestResult, IngestSummary
from hevcq.util.text import counted, duration, duration_range, printable, size

MAX_REASONS = 5
MAX_NAMED = 2
MAX_ROWS = 40
"""Above this many rows only problems are listed: the display already showed each success."""
WORDS: dict[IngestOutcome, str] = {
    IngestOutcome.PLACED: "done",
    IngestOutcome.EARLIER: "done earlier",
    IngestOutcome.SKIPPED: "skipped",
    IngestOutcome.REFUSED: "refused",
    IngestOutcome.FAILED: "failed",
    IngestOutcome.NOT_PLACED: "not placed",
    IngestOutcome.QUEUED: "queued",
    IngestOutcome.OPEN: "not finished",
}


def closing_table(
    results: Sequence[IngestResult], width: int | None, *, every: bool
) -> Iterator[str]:
    """Yield the closing table by path, in `width` columns (None: any width).

    Skipped files are counted by reason unless `every`; a long table lists only problems.
    """
    top = common_folder([result.item.path for result in results])
    ordered = sorted(results, key=lambda result: (str(result.item.path), _profile(result.item)))
    skipped = [result for result in ordered if result.outcome is IngestOutcome.SKIPPED]
    if not every:
        ordered = [result for result in ordered if result.outcome is not IngestOutcome.SKIPPED]
        if len(ordered) > MAX_ROWS:
            ordered = [result for result in ordered if result.outcome not in GOOD]
    # A file or mail gets every problem; on a terminal the first ones would scroll away.
    hidden = 0 if every or width is None else max(0, len(ordered) - MAX_ROWS)
    ordered = ordered[: len(ordered) - hidden]
    if ordered:
        several = len({_profile(each.item) for each in results if each.item.profile}) > 1
        profile = ("profile",) if several else ()
        columns = ("file", *profile, "result", "before", "after", "saved", "took", "note")
        rows = [_row(result, top, several=several) for result in ordered]
        yield from fit_table(columns, rows, width)
    if hidden:
        yield f"… and {hidden:,} more (--verbose lists all)"
    if skipped and not every:
        yield from skip_lines([result.reason for result in skipped], width)


def notice_lines(results: Sequence[IngestResult], width: int | None) -> Iterator[str]:
    """Yield what renditions lack, compared with their sources, each kind of notice once."""
    noticed = [
        (printable(each.item.path.name), notice)
        for each in results
        for notice in each.notices
        # A reached quality differs for each video, and was shown when it was done.
        if not notice.startswith("Quality ")
    ]
    yield from notices_by_kind(noticed, width)
    if noticed:
        yield "`hevcq status FILE` shows the changes of a file."


def notices_by_kind(
    noticed: Sequence[tuple[str, str]], width: int | None, *, every: bool = False
) -> Iterator[str]:
    """Yield each kind of notice with the names of its videos, the most frequent kind first.

    `noticed` has names and notices. No kind is omitted: people read them before originals are deleted.
    With `every` all videos are named, otherwise the first two and how many more.
    """
    kinds: dict[str, dict[str, list[str]]] = {}
    for name, notice in sorted(set(noticed)):
        kind = re.sub(r"\d+(\.\d+)?", "#", notice)
        kinds.setdefault(kind, {}).setdefault(name, []).append(notice)
    for _, videos in sorted(kinds.items(), key=lambda each: (-len(each[1]), each[0])):
        names, (notices, *_) = list(videos), videos.values()
        shown = names if every else names[:MAX_NAMED]
        more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
        if all(each == notices for each in videos.values()):
            yield from wrap_line(f"{', '.join(shown)}{more}: {' '.join(notices)}", width)
        else:  # the numbers of streams, or times, are those of the first
            likewise = f"Likewise {', '.join(shown[1:])}{more}."
            yield from wrap_line(f"{shown[0]}: {' '.join(notices)} {likewise}", width)


def skip_lines(reasons: Sequence[str], width: int | None) -> Iterator[str]:
    """Yield how many files were skipped, and the count of each reason, in `width` columns (None: any)."""
    counts = Counter(_kind(reason) for reason in reasons)
    common = counts.most_common(MAX_REASONS)
    yield f"{len(reasons):,} skipped (--verbose names the files):"
    digits = len(f"{common[0][1]:,}")
    for reason, count in common:
        yield from wrap_line(f"  {count:>{digits},}  {reason}", width)
    if len(counts) > len(common):
        more = len(counts) - len(common)
        yield f"  … and {more} more reason{'s' if more > 1 else ''}"


def _kind(reason: str) -> str:
    """Return a reason without parts that differ by file: numbers in parentheses, and paths."""
    return re.sub(r" \(\d[^)]*\)|(?<=earlier): /.*", "", reason).strip() or "Nothing to do."


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that contains all paths: names relative to it are short and distinct."""
    return Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()


def _row(result: IngestResult, top: Path, *, several: bool) -> tuple[str, ...]:
    item = result.item
    share = f"{100 * result.saved / item.size:.0f} %" if result.saved else ""
    note = without_path(printable(item.path), result.reason)
    if result.outcome is IngestOutcome.EARLIER and note.startswith(("Done earlier", "Already in")):
        note = ""
    if result.placed is not None and result.placed.target.parent != item.path.parent:
        note = " ".join(part for part in (printable(result.placed.target), note) if part)
    return (
        printable(item.path.relative_to(top)),
        *((_profile(item) or "-",) if several else ()),
        WORDS[result.outcome],
        size(item.size),
        size(None if result.done is None else result.done.size),
        share,
        duration(result.seconds),
        note,
    )


def _profile(item: Item) -> str:
    return item.profile.name if item.profile else ""


def total_sentence(summary: IngestSummary) -> str:
    counts = summary.counts()
    words = [f"{count} {WORDS[outcome]}" for outcome, count in counts.items()]
    return f"{', '.join(words)}." if words else "No videos found."


def space_lines(summary: IngestSummary, now: float) -> Iterator[str]:
    """Yield the size of the encoded videos before and after, and when space is freed.

    `now` is in Unix seconds.
    """
    if summary.added:
        sizes = {each.item.path: each.item.size for each in summary.beside}
        yield (
            f"Space: {_size_before(sizes)}; with the new renditions"
            f" {size(sum(sizes.values()) + summary.added)} ({size(summary.added)} more)."
            " The originals stay until you or `hevcq shrink` replace them."
        )
    if summary.replaced:
        sizes = {each.item.path: each.item.size for each in summary.replaced}
        before = sum(sizes.values())
        yield (
            f"Saved {size(summary.saved)}: {_size_before(sizes)}, now {size(before - summary.saved)}."
            f" {_kept_until(summary.replaced, now, before)}"
        )


def _size_before(sizes: Mapping[Path, int]) -> str:
    return f"{counted(len(sizes), 'video')} took {size(sum(sizes.values()))}"


def _kept_until(replaced: Sequence[IngestResult], now: float, kept: int) -> str:
    days = [result.placed.keep_days for result in replaced if result.placed]
    if max(days) <= 0:
        return f"The originals ({size(kept)}) are deleted by the next run or worker."
    how = "`hevcq undo` restores them, `hevcq originals expire --now` frees their space."
    if not math.isfinite(max(days)):
        return f"The originals ({size(kept)}) are kept until you delete them: {how}"
    until = day(now + max(days) * 86_400)
    return f"The originals ({size(kept)}) are kept until {until}, then deleted: {how}"


MAX_LISTED = 7
"""Videos to encode that are listed unless all are wanted: the largest, which take the longest."""
MAX_PROBLEMS = 4
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


def plan_lines(plan: IngestPlan, width: int | None, *, listed: bool, every: bool) -> Iterator[str]:
    """Yield the lines of a plan in `width` columns (None: any width).

    With `listed`, videos to encode are listed (with `every` all, otherwise the largest), and skips are
    counted by reason (with `every` listed). Problems are always listed, a few of them without `every`.
    """
    top = common_folder([item.path for item in plan.items])
    several = len({item.profile.name for item in plan.items if item.profile}) > 1
    if listed:
        yield from _videos_to_encode(plan.of(*TO_PROCESS), top, width, every=every)
    skipped = plan.of(Disposition.SKIP)
    if every and listed:
        yield from _item_lines(skipped, top, width, several=several)
    elif skipped and listed:
        yield from skip_lines([item.reason for item in skipped], width)
    problems = plan.of(*NOT_INGESTED)
    listed_problems = problems if every else problems[:MAX_PROBLEMS]
    yield from _item_lines(listed_problems, top, width, several=several)
    if len(problems) > len(listed_problems):
        yield f"… and {len(problems) - len(listed_problems):,} more problems (--verbose lists all)"
    planned = [(item, item.plan) for item in plan.of(*TO_PROCESS) if item.plan]
    noticed = [(_name(item.path, top), each) for item, made in planned for each in made.notices]
    yield from notices_by_kind(noticed, width, every=every)


def _videos_to_encode(
    items: Sequence[Item], top: Path, width: int | None, *, every: bool
) -> Iterator[str]:
    listed = sorted(items, key=lambda item: str(item.path))
    if not every and len(items) > MAX_LISTED:
        largest = sorted(items, key=lambda item: item.size, reverse=True)[:MAX_LISTED]
        listed = sorted(largest, key=lambda item: -item.size)
    if not listed:
        return
    several = len({item.profile.name for item in items if item.profile}) > 1
    columns = ["file", "profile", "what", "size", "after", "CPU time"]
    rows = [_planned_row(item, top) for item in listed]
    needed = {"profile": several, "what": len({row[2] for row in rows}) > 1}
    needed["after"] = any(row[4] for row in rows)
    used = [i for i, name in enumerate(columns) if needed.get(name, True)]
    cells = [[row[i] for i in used] for row in rows]
    yield from fit_table([columns[i] for i in used], cells, width)
    if len(items) > len(listed):
        yield f"… and {len(items) - len(listed):,} more (--verbose lists all)"


def _planned_row(item: Item, top: Path) -> list[str]:
    return [
        _name(item.path, top),
        item.profile.name if item.profile else "-",
        VERBS[item.disposition],
        size(item.size),
        size_range(item.output),
        duration_range(item.cpu.low, item.cpu.high) if item.cpu is not None else "",
    ]


def problem_lines(item: Item) -> list[str]:
    """Return the line of an item that is not ingested, with its full path."""
    return list(_item_lines([item], Path(), None, several=True))


def _item_lines(
    items: Sequence[Item], top: Path, width: int | None, *, several: bool
) -> Iterator[str]:
    for item in items:
        who = _name(item.path, top)
        if several and item.profile is not None:
            who += f" [{item.profile.name}]"
        yield from wrap_line(f"{who}: {VERBS[item.disposition]}{_why(item)}", width)


def _why(item: Item) -> str:
    reason = without_path(printable(item.path), item.reason)
    if not reason or reason.rstrip(".").lower() == VERBS[item.disposition]:
        return ""
    return f": {reason}"


def _name(path: Path, top: Path) -> str:
    return printable(path.relative_to(top) if path.is_relative_to(top) else path)


def plan_total(plan: IngestPlan) -> str:
    """Return the closing sentence of a plan: counts, bytes before and after, and the expected time."""
    counts = [f"{count:,} {VERBS[kind]}" for kind, count in plan.counts().items()]
    if not counts:
        return "No videos found."
    words = f"{', '.join(counts)}."
    if plan.forecast.high > 0:
        words += f" {_size_change(plan) or size(plan.bytes_to_process) + ' to process'};"
        words += f" encoding will take {duration_range(plan.forecast.low, plan.forecast.high)}."
    queued = plan.of(Disposition.QUEUE, Disposition.JOIN)
    if unknown := sum(item.info is not None and not item.info.duration_s for item in queued):
        words += f" Not counted: {counted(unknown, 'video')} of unknown length."
    return words


def price_sentence(plan: IngestPlan, prices: PriceSettings) -> str:
    """Return a sentence with the cost of a plan's encodes on AWS."""
    least, most = map(prices.cost, plan.cpu)
    return (
        f"Encoding costs about {least:.2f} to {most:.2f} dollars, at {prices.vcpu_hour:g} a vCPU-hour"
        f" ({prices.source})."
    )


def sample_sentence(plan: IngestPlan) -> str:
    """Return a sentence with the number of videos that were sampled, and why others were not.

    The few videos that cannot be sampled count with those.
    """
    count = sum(item.cpu is not None for item in plan.items)
    if not plan.sampled:
        return f"None of {count:,} could be sampled: the forecast is that of typical videos."
    unsampled = count - plan.sampled
    is_known = plan.output is not None and plan.output.is_narrow
    why = "not needed" if is_known else "not in time: a longer --sample narrows the range"
    others = f"; {unsampled:,} {why}" if unsampled else ""
    return f"Based on samples of {plan.sampled:,} of {count:,}{others}."


def plan_saving(plan: IngestPlan) -> int:
    """Return the bytes that the new renditions of a plan should save, by the middle of the forecast."""
    if plan.output is None:
        return 0
    return max(0, plan.bytes_to_encode - round((plan.output.low + plan.output.high) / 2))


def _size_change(plan: IngestPlan) -> str:
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
    return f"Originals {size(before)}, renditions {size_range(plan.output)} ({change})"


def _span(least: int, most: int) -> str:
    return f"{most} %" if least == most else f"{least} to {most} %"
