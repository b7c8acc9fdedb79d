"""The closing table of an ingest or collect, its totals and its exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.output.sentences import duration, size, without_path
from hevcq.usecases.ingest.summary import IngestOutcome, IngestResult, IngestSummary
from hevcq.util.text import printable

COLUMNS = ("file", "profile", "result", "before", "after", "saved", "took", "note")
MOST_ROWS = 60
"""Above this many rows, those without a change are left out; the totals still count them."""
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
QUIETLY_GOOD = frozenset({IngestOutcome.EARLIER, IngestOutcome.SKIPPED, IngestOutcome.QUEUED})


def rows(results: Sequence[IngestResult]) -> list[tuple[str, ...]]:
    """Return the table's rows by path; a long table leaves out rows without a change."""
    ordered = sorted(results, key=lambda result: (str(result.path), result.profile))
    if len(ordered) > MOST_ROWS:
        ordered = [result for result in ordered if result.outcome not in QUIETLY_GOOD]
    top = common_folder([result.path for result in results])
    return [_row(result, top) for result in ordered]


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the lowest folder above all paths: relative names stay short and distinct."""
    return Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()


def _row(result: IngestResult, top: Path) -> tuple[str, ...]:
    done = result.outcome is IngestOutcome.PLACED
    share = f"{100 * result.saved / result.size:.0f} %" if result.saved else ""
    note = without_path(printable(result.path), result.reason)
    if done and result.target is not None and result.target != result.path:
        note = " ".join(part for part in (printable(result.target.name), note) if part)
    return (
        printable(result.path.relative_to(top)),
        result.profile or "-",
        WORDS[result.outcome],
        size(result.size),
        size(result.output_size),
        share,
        duration(result.seconds),
        note,
    )


def total(summary: IngestSummary) -> str:
    """Return the closing sentence: count per outcome, and bytes saved."""
    counts = summary.counts()
    words = [f"{count} {WORDS[outcome]}" for outcome, count in counts.items()]
    if summary.saved > 0:
        words.append(f"{size(summary.saved)} saved")
    return f"{', '.join(words)}." if words else "No videos found."


def code(summary: IngestSummary) -> ExitCode:
    """Return the exit code: interrupted, some failed, or ok."""
    if summary.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if summary.all_good else ExitCode.SOME_FAILED
