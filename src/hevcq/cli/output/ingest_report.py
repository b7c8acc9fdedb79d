"""The closing table of an ingest or collect, its totals and its exit code."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hevcq.cli.output.sentences import day, without_path
from hevcq.cli.output.table import fit, wrapped
from hevcq.usecases.ingest.summary import GOOD, IngestOutcome, IngestResult, IngestSummary
from hevcq.util.text import counted, duration, printable, size

MAX_REASONS = 5
MAX_ROWS = 40
"""Above this many rows, only what went wrong is listed: what was done was shown when it ended."""
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


def table(results: Sequence[IngestResult], width: int | None, *, every: bool) -> Iterator[str]:
    """Yield the closing table by path, in `width` columns (None: as wide as it is).

    What was skipped is counted by reason unless `every`; of a long list only problems are named.
    """
    top = common_folder([result.path for result in results])
    ordered = sorted(results, key=lambda result: (str(result.path), result.profile))
    skipped = [result for result in ordered if result.outcome is IngestOutcome.SKIPPED]
    if not every:
        ordered = [result for result in ordered if result.outcome is not IngestOutcome.SKIPPED]
        if len(ordered) > MAX_ROWS:
            ordered = [result for result in ordered if result.outcome not in GOOD]
    # A file or a mail keeps every problem; a terminal would scroll the first ones away.
    hidden = 0 if every or width is None else max(0, len(ordered) - MAX_ROWS)
    ordered = ordered[: len(ordered) - hidden]
    if ordered:
        several = len({result.profile for result in results if result.profile}) > 1
        profile = ("profile",) if several else ()
        columns = ("file", *profile, "result", "before", "after", "saved", "took", "note")
        rows = [_row(result, top, several=several) for result in ordered]
        yield from fit(columns, rows, width)
    if hidden:
        yield f"… and {hidden:,} more (--verbose lists all)"
    if skipped and not every:
        yield from skips([result.reason for result in skipped], width)


def changes(results: Sequence[IngestResult], width: int | None) -> Iterator[str]:
    """Yield what renditions lack of their sources that no dry run could say, each kind once."""
    kinds: dict[str, dict[str, str]] = {}
    for each in results:
        for notice in each.notices:
            kinds.setdefault(re.sub(r"\d+(\.\d+)?", "#", notice), {})[printable(each.path.name)] = (
                notice
            )
    common = sorted(kinds.values(), key=len, reverse=True)
    for files in common[:MAX_REASONS]:
        name, notice = next(iter(files.items()))
        more = f" and {len(files) - 1:,} like it" if len(files) > 1 else ""
        yield from wrapped(f"{name}{more}: {notice}", width)
    left = sum(len(files) for files in common[MAX_REASONS:])
    also = f"… and {left:,} more. " if left else ""
    if common:
        yield f"{also}`hevcq status FILE` says what was changed in a file."


def skips(reasons: Sequence[str], width: int | None) -> Iterator[str]:
    """Yield how many were skipped, and how often for which reason, in `width` columns (None: any)."""
    counted = Counter(_kind(reason) for reason in reasons)
    common = counted.most_common(MAX_REASONS)
    yield f"{len(reasons):,} skipped (--verbose lists each):"
    digits = len(f"{common[0][1]:,}")
    for reason, count in common:
        yield from wrapped(f"  {count:>{digits},}  {reason}", width)
    if len(counted) > len(common):
        left = len(counted) - len(common)
        yield f"  … and {left} more reason{'s' if left > 1 else ''}"


def _kind(reason: str) -> str:
    """Return a reason without what differs from file to file: numbers in parentheses, and paths."""
    return re.sub(r" \(\d[^)]*\)|(?<=earlier): /.*", "", reason).strip() or "Nothing to do."


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the lowest folder above all paths: relative names stay short and distinct."""
    return Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()


def _row(result: IngestResult, top: Path, *, several: bool) -> tuple[str, ...]:
    done = result.outcome is IngestOutcome.PLACED
    share = f"{100 * result.saved / result.size:.0f} %" if result.saved else ""
    note = without_path(printable(result.path), result.reason)
    if result.outcome is IngestOutcome.EARLIER and note.startswith(("Done earlier", "Already in")):
        note = ""
    if done and result.target is not None and result.target.parent != result.path.parent:
        note = " ".join(part for part in (printable(result.target), note) if part)
    return (
        printable(result.path.relative_to(top)),
        *((result.profile or "-",) if several else ()),
        WORDS[result.outcome],
        size(result.size),
        size(result.output_size),
        share,
        duration(result.seconds),
        note,
    )


def total(summary: IngestSummary) -> str:
    """Return the closing sentence: count per outcome."""
    counts = summary.counts()
    words = [f"{count} {WORDS[outcome]}" for outcome, count in counts.items()]
    return f"{', '.join(words)}." if words else "No videos found."


def space(summary: IngestSummary, now: float) -> Iterator[str]:
    """Yield what the videos encoded now take before and after, and when space is freed.

    `now` is in wall seconds.
    """
    if summary.added:
        sizes = {each.path: each.size for each in summary.beside}
        yield (
            f"Space: {_took(sizes)}; with the new renditions"
            f" {size(sum(sizes.values()) + summary.added)} ({size(summary.added)} more)."
            " The originals stay."
        )
    if summary.replaced:
        sizes = {each.path: each.size for each in summary.replaced}
        kept = sum(sizes.values())
        yield (
            f"Saved {size(summary.saved)}: {_took(sizes)}, now {size(kept - summary.saved)}."
            f" {_until(summary.replaced, now, kept)}"
        )


def _took(sizes: Mapping[Path, int]) -> str:
    return f"{counted(len(sizes), 'video')} took {size(sum(sizes.values()))}"


def _until(replaced: Sequence[IngestResult], now: float, kept: int) -> str:
    days = [result.keep_days for result in replaced]
    if max(days) <= 0:
        return f"The originals ({size(kept)}) are deleted by the next run or worker."
    look = "`hevcq undo` restores them, `hevcq originals` frees them earlier."
    if not math.isfinite(max(days)):
        return f"The originals ({size(kept)}) are kept until you free them: {look}"
    until = day(now + max(days) * 86_400)
    return f"The originals ({size(kept)}) are kept until {until}, their space is free then: {look}"
