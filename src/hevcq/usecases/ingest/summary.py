"""The results of an ingest, for the closing table and the exit code."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hevcq.ports.catalog import Mode
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item


class IngestOutcome(StrEnum):
    """What became of one file for one profile; stable words, the counts of `summary` in `--json`."""

    PLACED = "placed"
    EARLIER = "done_earlier"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_PLACED = "not_placed"
    QUEUED = "queued"
    OPEN = "open"


GOOD = frozenset(
    {
        IngestOutcome.PLACED,
        IngestOutcome.EARLIER,
        IngestOutcome.SKIPPED,
        IngestOutcome.QUEUED,
    }
)
PLANNED_OUTCOMES: dict[Disposition, IngestOutcome] = {
    Disposition.DONE: IngestOutcome.EARLIER,
    Disposition.SKIP: IngestOutcome.SKIPPED,
    Disposition.REFUSE: IngestOutcome.REFUSED,
    Disposition.FAILED: IngestOutcome.FAILED,
    Disposition.UNREADABLE: IngestOutcome.REFUSED,
}
"""The outcome of what is over before anything is queued."""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """One line of the closing table. Sizes in bytes, `seconds` the wall time of the encode.

    `mode` is where it was placed now, `keep_days` how long a replaced original is kept. `notices`
    say what it lacks of its source that only measuring has shown: the plan did not say it.
    """

    path: Path
    profile: str
    outcome: IngestOutcome
    size: int = 0
    output_size: int | None = None
    target: Path | None = None
    reason: str = ""
    seconds: float | None = None
    mode: Mode | None = None
    keep_days: float = 0.0
    notices: tuple[str, ...] = ()

    @property
    def saved(self) -> int:
        """Bytes by which the rendition is smaller; 0 unless it was placed now."""
        if self.outcome is not IngestOutcome.PLACED or self.output_size is None:
            return 0
        return max(0, self.size - self.output_size)


@dataclass(slots=True)
class IngestSummary:
    """Collects results; `interrupted` says that open jobs were left behind on purpose."""

    results: list[IngestResult] = field(default_factory=list)
    interrupted: bool = False

    def add(self, result: IngestResult) -> None:
        self.results.append(result)

    def add_planned(self, plan: IngestPlan) -> None:
        for item in plan.items:
            outcome = PLANNED_OUTCOMES.get(item.disposition)
            if outcome is not None:
                self.add(result_of(item, outcome, item.reason))

    def counts(self) -> dict[IngestOutcome, int]:
        """Return how many results there are of each outcome, in the order of the enum."""
        found = [result.outcome for result in self.results]
        return {outcome: found.count(outcome) for outcome in IngestOutcome if outcome in found}

    @property
    def replaced(self) -> list[IngestResult]:
        """The results whose rendition replaced its original now."""
        return [result for result in self.results if result.mode is Mode.REPLACE]

    @property
    def beside(self) -> list[IngestResult]:
        """The results placed now beside their originals, or in another folder."""
        return [each for each in self.results if each.mode in {Mode.BESIDE, Mode.MIRROR}]

    @property
    def added(self) -> int:
        """Bytes of the renditions placed now beside their originals, or in another folder."""
        return sum(each.output_size or 0 for each in self.beside)

    @property
    def saved(self) -> int:
        """Bytes that the folders hold less once the originals replaced now are gone."""
        return sum(result.saved for result in self.replaced)

    @property
    def settled(self) -> bool:
        left = {IngestOutcome.OPEN, IngestOutcome.QUEUED}
        return not any(result.outcome in left for result in self.results)

    @property
    def all_good(self) -> bool:
        """Whether nothing failed, was refused, or is still open."""
        return all(result.outcome in GOOD for result in self.results)


def result_of(item: Item, outcome: IngestOutcome, reason: str = "") -> IngestResult:
    """Return the result of an item that never ran now."""
    return IngestResult(
        path=item.path,
        profile=item.profile.name if item.profile is not None else "",
        outcome=outcome,
        size=item.size,
        target=item.target,
        reason=reason,
    )
