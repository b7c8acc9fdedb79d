"""The closing table of an ingest or collect, its one-line sum, and its exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hevcq.cli.display_text import about_it, duration, size
from hevcq.cli.exits import ExitCode
from hevcq.usecases.ingest_tally import GOOD, End, Outcome, Tally
from hevcq.util.text import printable

COLUMNS = ("file", "profile", "result", "before", "after", "saved", "took", "note")
MOST_ROWS = 60
"""Of more rows than that, those that nothing was done for are left out; the sum counts them."""
WORDS: dict[End, str] = {
    End.PLACED: "done",
    End.EARLIER: "done earlier",
    End.SKIPPED: "skipped",
    End.REFUSED: "refused",
    End.FAILED: "failed",
    End.NOT_PLACED: "not placed",
    End.QUEUED: "queued",
    End.OPEN: "not finished",
}
QUIETLY_GOOD = frozenset({End.EARLIER, End.SKIPPED, End.QUEUED})


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return the table's rows, in the order of the paths; a long table leaves dull rows out."""
    ordered = sorted(outcomes, key=lambda outcome: (str(outcome.path), outcome.profile))
    if len(ordered) > MOST_ROWS:
        ordered = [outcome for outcome in ordered if outcome.end not in QUIETLY_GOOD]
    top = common_folder([outcome.path for outcome in outcomes])
    return [_row(outcome, top) for outcome in ordered]


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the lowest folder above all paths, so that names are told apart and stay short."""
    return Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()


def _row(outcome: Outcome, top: Path) -> tuple[str, ...]:
    done = outcome.end is End.PLACED
    share = f"{100 * outcome.saved / outcome.size:.0f} %" if outcome.saved else ""
    note = about_it(printable(outcome.path), outcome.reason)
    if done and outcome.target is not None and outcome.target != outcome.path:
        note = " ".join(part for part in (printable(outcome.target.name), note) if part)
    return (
        printable(outcome.path.relative_to(top)),
        outcome.profile or "-",
        WORDS[outcome.end],
        size(outcome.size),
        size(outcome.output_size),
        share,
        duration(outcome.seconds),
        note,
    )


def total(tally: Tally) -> str:
    """Return the closing sentence: how many of what, and the bytes saved."""
    counts = tally.counts()
    words = [f"{count} {WORDS[end]}" for end, count in counts.items()]
    if tally.saved > 0:
        words.append(f"{size(tally.saved)} saved")
    return f"{', '.join(words)}." if words else "No video was found."


def code(tally: Tally) -> ExitCode:
    """Return the exit code: interrupted, some failed or refused, or all well."""
    if tally.interrupted:
        return ExitCode.INTERRUPTED
    bad = any(o.end not in GOOD and o.end is not End.OPEN for o in tally.outcomes)
    return ExitCode.SOME_FAILED if bad or not tally.all_good else ExitCode.OK
