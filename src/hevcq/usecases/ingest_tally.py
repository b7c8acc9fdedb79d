"""What became of each job of an ingest, added up for the closing table and the exit code."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hevcq.usecases.ingest_plan import Disposition, IngestPlan, Item


class End(StrEnum):
    """How a job ended for this ingest."""

    PLACED = "placed"
    EARLIER = "done_earlier"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_PLACED = "not_placed"
    QUEUED = "queued"
    OPEN = "open"


GOOD = frozenset({End.PLACED, End.EARLIER, End.SKIPPED, End.QUEUED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the closing table. Sizes in bytes, `seconds` the wall time of the encode."""

    path: Path
    profile: str
    end: End
    size: int = 0
    output_size: int | None = None
    target: Path | None = None
    reason: str = ""
    seconds: float | None = None

    @property
    def saved(self) -> int:
        """Bytes that this job made superfluous; 0 unless it was placed now and is smaller."""
        if self.end is not End.PLACED or self.output_size is None:
            return 0
        return max(0, self.size - self.output_size)


PLANNED_ENDS: dict[Disposition, End] = {
    Disposition.DONE: End.EARLIER,
    Disposition.SKIP: End.SKIPPED,
    Disposition.REFUSE: End.REFUSED,
    Disposition.FAILED: End.FAILED,
    Disposition.UNREADABLE: End.REFUSED,
}
"""What is over before anything is queued."""


@dataclass(slots=True)
class Tally:
    """Collects outcomes; `interrupted` says that open ones were left behind on purpose."""

    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: bool = False

    def add(self, outcome: Outcome) -> None:
        """Add one outcome."""
        self.outcomes.append(outcome)

    def add_planned(self, plan: IngestPlan) -> None:
        """Add what the plan already decided."""
        for item in plan.items:
            end = PLANNED_ENDS.get(item.disposition)
            if end is not None:
                self.add(outcome_of(item, end, item.reason))

    def counts(self) -> dict[End, int]:
        """Return how many outcomes there are of each end, in the order of the enum."""
        ends = [outcome.end for outcome in self.outcomes]
        return {end: ends.count(end) for end in End if end in ends}

    @property
    def saved(self) -> int:
        """Bytes saved by what was placed."""
        return sum(outcome.saved for outcome in self.outcomes)

    @property
    def all_good(self) -> bool:
        """Whether nothing failed, was refused, or is still open."""
        return all(outcome.end in GOOD for outcome in self.outcomes)


def outcome_of(item: Item, end: End, reason: str = "") -> Outcome:
    """Return the outcome of an item that never ran now."""
    return Outcome(
        path=item.path,
        profile=item.profile.name if item.profile is not None else "",
        end=end,
        size=item.size,
        target=item.target,
        reason=reason,
    )
