"""Decide what an ingest does with each file. Pure: all facts are handed in."""

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import assert_never

from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.keys import is_set
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Plan, Refuse, Skip, skip_in_words
from hevcq.domain.profile import Profile
from hevcq.domain.quality import NOT_SEARCHED, asked_clause, search_share
from hevcq.domain.verdict import FailureClass
from hevcq.errors import INTACT_COPY
from hevcq.library.own_files import shown_path
from hevcq.library.scanning.scan import FoundVideo
from hevcq.ports.catalog import UNPLACED, EncodeCost, Fingerprint, Mode, Placement, PlacementState
from hevcq.usecases.ingest.forecast import NOTHING, Costs, Range, total, wall, work_of
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.proofs import OwnRenditions, TargetState
from hevcq.util.text import printable

NOT_IN_PLACE = "Encoded earlier, not yet in place."
UNDONE = "Undone on request."
GONE = "Its rendition is missing: deleted, or its disk is away."
NOT_NEEDED = "Not needed for what is to be freed."
NOT_WITHIN = "Not within the time of --budget."
TOO_DEAR = "Not within the price of --max-cost."
SAVES_NOTHING = "Expected to save nothing."
NAME_TAKEN = "In its place it would be named {}, as another video here; rename one of the two."


class Disposition(StrEnum):
    """What an ingest does with one file for one profile; values are stable, also in `--json`."""

    QUEUE = "queue"
    JOIN = "join"
    COLLECT = "collect"
    DONE = "done"
    SKIP = "skip"
    REFUSE = "refuse"
    FAILED = "failed"
    UNREADABLE = "unreadable"


NOT_INGESTED = frozenset({Disposition.REFUSE, Disposition.FAILED, Disposition.UNREADABLE})
"""Dispositions that make the exit code SOME_FAILED."""
TO_PROCESS = frozenset({Disposition.QUEUE, Disposition.JOIN, Disposition.COLLECT})
"""Dispositions that need work."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file for one profile (None: the file is unusable for any).

    `size` is in bytes, `cpu` in CPU seconds, `output` in bytes of the rendition. `moved` is the
    placement recorded for it under another path; `placement` is the one to record instead, None if
    the video is queued as a new one. Without `moved`, `placement` is the recorded one, which stays:
    the item comes from it, not from what this command asks for.
    """

    path: Path
    size: int
    disposition: Disposition
    root: Path = Path()
    profile: Profile | None = None
    fingerprint: Fingerprint | None = None
    info: MediaInfo | None = None
    plan: EncodePlan | None = None
    target: Path | None = None
    job_id: str = ""
    reason: str = ""
    cpu: Range | None = None
    output: Range | None = None
    moved: Placement | None = None
    placement: Placement | None = None

    @property
    def saving(self) -> float:
        """The bytes that it is expected to save; 0 where nothing is known."""
        return 0.0 if self.output is None else self.size - (self.output.low + self.output.high) / 2

    @property
    def cpu_s(self) -> float:
        """The CPU seconds that it is expected to take; 0 where nothing is known."""
        return 0.0 if self.cpu is None else (self.cpu.low + self.cpu.high) / 2


@dataclass(frozen=True, slots=True)
class Known:
    """What catalog and ledger record of a video's current bytes for one profile.

    `gone`: the rendition is no longer where it was placed. `moved`: the placement as recorded, for a
    video or a rendition that is at another path now. `changed`: why what is there is no longer the
    rendition, or "".
    """

    placement: Placement | None = None
    job: JobRecord | None = None
    gone: bool = False
    moved: Placement | None = None
    changed: str = ""


def decide(
    video: FoundVideo,
    profile: Profile,
    plan: Plan,
    known: Known,
    where: Destination,
    *,
    asked: bool = False,
) -> Item:
    """Return what to do with one video for one profile; the ledger overrides the plan.

    `asked`: the command names the video itself, not only a folder above it. An undone replacement is
    not repeated unasked; a rendition elsewhere leaves the original alone.
    """
    item = Item(
        path=video.path,
        size=video.fingerprint.size,
        disposition=Disposition.QUEUE,
        root=video.root,
        profile=profile,
        fingerprint=video.fingerprint,
        info=video.info,
        moved=known.moved,
        placement=known.placement if known.moved is not None else None,
    )
    undone = known.placement is not None and known.placement.state is PlacementState.UNDONE
    wanted = undone and (asked or where.mode is not Mode.REPLACE)
    again = wanted and known.job is not None and known.job.state is JobState.DONE
    if known.job is not None and not again:
        return _from_job(item, known, known.job, plan, where)
    if isinstance(plan, Skip):
        return replace(item, disposition=Disposition.SKIP, reason=plan.detail)
    if isinstance(plan, Refuse):
        return replace(
            item, disposition=Disposition.REFUSE, reason=f"{plan.detail} ({plan.policy})"
        )
    target = where.target(item.path, item.root, profile.name, plan.extension)
    return replace(item, plan=plan, target=target)


def _from_job(item: Item, known: Known, job: JobRecord, plan: Plan, where: Destination) -> Item:
    placement = known.placement
    item = replace(item, job_id=job.job_id, target=placement.target if placement else None)
    if isinstance(plan, EncodePlan):
        item = replace(item, plan=plan)
        done = job.state is JobState.DONE
        if (
            placement is None
            or placement.state in UNPLACED
            or not (done or where.has(placement.mode, placement.target))
        ):
            target = where.target(item.path, item.root, job.profile, plan.extension)
            item = replace(item, target=target)
    match job.state:
        case JobState.SKIPPED:
            words = skip_in_words(job.reason)[1]
            return replace(item, disposition=Disposition.SKIP, reason=words)
        case JobState.DEAD:
            reason = f"{job.reason} {_what_helps(job)}".strip()
            return replace(item, disposition=Disposition.FAILED, reason=reason)
        case JobState.QUEUED | JobState.RUNNING | JobState.SPLIT:
            return replace(item, disposition=Disposition.JOIN, reason="Queued earlier.")
        case JobState.DONE:
            return _from_done(item, known, job, where)
        case _:
            assert_never(job.state)


def _what_helps(job: JobRecord) -> str:
    """Return what to do about a failed job: a retry does not help where the fault is in the source."""
    again = f"`hevcq retry {job.job_id}`"
    match job.failure_class:
        case FailureClass.DAMAGED:
            copy = "" if INTACT_COPY in job.reason else INTACT_COPY
            keep = f"To keep it as it is: `hevcq failures acknowledge {job.job_id}`."
            return f"{copy} {keep}".strip()
        case FailureClass.UNSUPPORTED:
            return f"Choose another profile, or change that setting of this one, then {again}."
        case _:
            return f"Retry with {again}."


def _from_done(item: Item, known: Known, job: JobRecord, where: Destination) -> Item:
    placement = known.placement
    size = None if job.rendition is None else Range(job.rendition.size, job.rendition.size)
    finished = replace(item, disposition=Disposition.COLLECT, reason=NOT_IN_PLACE, output=size)
    if placement is None or placement.state in UNPLACED or _made_again(placement, job):
        return finished
    place, name = printable(placement.target), shlex.quote(printable(item.path))
    if placement.state is PlacementState.EXPIRED and placement.mode is not Mode.REPLACE:
        # What is at its target, if anything, is not of this video.
        reason = f"{placement.detail} Run `hevcq retry {name}` and this command again.".strip()
        return replace(item, disposition=Disposition.REFUSE, reason=reason)
    if placement.state is not PlacementState.PLACED:
        undone = placement.state is PlacementState.UNDONE
        reason = UNDONE if undone else "Replaced earlier."
    elif known.gone:
        reason = GONE
    elif known.changed:
        return replace(item, disposition=Disposition.REFUSE, reason=known.changed)
    elif not where.has(placement.mode, placement.target):
        # The request is not fulfilled, so it must not look done.
        if not is_set(str(placement.target)):
            suffix = placement.target.suffix.removeprefix(".")
            target = where.target(item.path, item.root, job.profile, suffix)
            reason = f"Encoded earlier; its rendition is at {place}."
            return replace(finished, reason=reason, target=target)
        reason = (
            f"Its rendition is at {place}, as an earlier command asked; to have it here, run"
            f" `hevcq retry {name}` and this command again."
        )
        return replace(item, disposition=Disposition.REFUSE, reason=reason)
    else:
        reason = _other_quality(item, job) or f"Done earlier: {place}."
    return replace(item, disposition=Disposition.DONE, reason=reason)


def _other_quality(item: Item, job: JobRecord) -> str:
    """Return how to get the quality that is asked for now, if the rendition was made for another."""
    wanted = item.profile.video.quality if item.profile is not None else None
    said = " ".join(job.rendition.notices) if job.rendition is not None else ""
    if wanted is None or asked_clause(wanted) in said or NOT_SEARCHED in said:
        return ""
    name = shlex.quote(printable(item.path))
    return f"Not made for quality {wanted:g}: run `hevcq retry {name}` and this command again."


def _made_again(placement: Placement, job: JobRecord) -> bool:
    """Return whether the job was reprocessed after placing, with a different rendition."""
    if placement.state is not PlacementState.PLACED or job.rendition is None:
        return False
    return placement.sha256 not in {"", job.rendition.sha256}


@dataclass(frozen=True, slots=True)
class Targets:
    """Gives the items of one ingest targets that clash neither with each other nor with other files."""

    where: Destination
    ours: OwnRenditions
    taken: dict[str, Path] = field(default_factory=dict)

    def settled(self, item: Item) -> Item:
        """Return the item with its target, or refused.

        If two sources share a target, the later one's keeps the whole source name, also where the
        first's rendition exists already. A new job whose target is an unrelated file is refused
        before it is encoded.
        """
        if item.disposition not in TO_PROCESS or item.target is None:
            return item
        settled = _untangled(item, self.where, self.taken)
        if settled.target is not None:
            settled = _free(settled, settled.target, self.where, self.ours)
            if settled.disposition is not Disposition.REFUSE and settled.target is not None:
                self.taken[_fold(settled.target)] = item.path
        return settled


def _untangled(item: Item, where: Destination, taken: Mapping[str, Path]) -> Item:
    other = taken.get(_fold(item.target)) if item.target is not None else None
    if other is None:
        return item
    longer = _longer(item, where)
    if longer is None:
        reason = NAME_TAKEN.format(printable(item.target))
        return replace(item, disposition=Disposition.REFUSE, reason=reason, target=None)
    return replace(item, target=longer)


def _longer(item: Item, where: Destination) -> Path | None:
    """Return the target with the whole source name in it, or None if there is no other."""
    if where.mode is Mode.REPLACE or item.profile is None or item.plan is None:
        return None
    return where.target(
        item.path, item.root, item.profile.name, item.plan.extension, whole_name=True
    )


def _free(item: Item, target: Path, where: Destination, ours: OwnRenditions) -> Item:
    claim = ours.state(target, item.path, item.size)
    longer = _longer(item, where) if claim is TargetState.TWIN else None
    if longer is not None and longer != target:
        return _free(replace(item, target=longer), longer, where, ours)
    if item.disposition is not Disposition.QUEUE:
        return item
    match claim:
        case TargetState.READ_ONLY:
            reason = (
                f"{printable(target.parent)} is not writable; allow this user to write there, or"
                " choose another folder with `hevcq ingest --output`."
            )
        case TargetState.LINKED:
            reason = (
                "The library's .hevcq, or a folder in it, is a symbolic link; remove the link, or put"
                " the folder itself in its place."
            )
        case TargetState.OURS:
            reason = ours.why_not(target, item.path, item.size)
            if not reason:
                reason = f"Done earlier: {printable(target)} has a certificate."
                return replace(item, disposition=Disposition.DONE, reason=reason)
        case TargetState.FORMER if target != item.path and not is_set(str(target)):
            reason = (
                f"{printable(shown_path(target))} was made of what this video held earlier; move it away, and"
                " ingest again."
            )
        case TargetState.STRANGER | TargetState.TWIN if target != item.path:
            reason = (
                f"{printable(target)} already exists and isn't recognised as this video's rendition;"
                " rename or move one of the two, or use --output."
            )
            if where.mode is Mode.REPLACE:
                reason = NAME_TAKEN.format(printable(target))
        case _:
            return item
    return replace(item, disposition=Disposition.REFUSE, reason=reason)


def _fold(path: Path) -> str:
    """Fold names that are equal on a case-insensitive file system."""
    return str(path).casefold()


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest will do: how long it will take (wall and CPU seconds), and the bytes of its renditions.

    `sampled` is the number of items of which samples were encoded.
    """

    items: tuple[Item, ...]
    forecast: Range
    output: Range | None = None
    sampled: int = 0
    cpu: Range = NOTHING

    def counts(self) -> dict[Disposition, int]:
        """Return the number of items per disposition, in the order of the enum."""
        found = [item.disposition for item in self.items]
        return {kind: found.count(kind) for kind in Disposition if kind in found}

    def of(self, *kinds: Disposition) -> tuple[Item, ...]:
        """Return the items of these dispositions, in order."""
        return tuple(item for item in self.items if item.disposition in kinds)

    @property
    def bytes_to_encode(self) -> int:
        """Total size of the sources whose renditions `output` estimates, counted once a rendition."""
        return sum(item.size for item in self.items if item.output is not None)

    @property
    def bytes_to_process(self) -> int:
        """Total size of the sources that need work."""
        return sum({item.path: item.size for item in self.of(*TO_PROCESS)}.values())


def with_forecast(
    items: Iterable[Item],
    rates: Costs,
    cores: float,
    workers: int,
    machine: float | None = None,
) -> IngestPlan:
    """Return the plan with forecasts for each job and for all of them.

    `cores` is the number of CPU cores of all workers, `machine` that of one machine (None: all).
    """
    timed: list[Item] = []
    jobs: dict[str, list[EncodeCost]] = {}
    for item in items:
        work = work_ahead(item)
        if work is not None:
            jobs.setdefault(work.profile, []).append(work)
            timed.append(replace(item, cpu=rates.cpu([work]), output=rates.size([work])))
        else:
            timed.append(item)
    whole = total(rates.cpu(found) for found in jobs.values())
    costs = [item.cpu for item in timed if item.cpu is not None]
    finished = [item.output for item in timed if item.cpu is None and item.output is not None]
    outputs = [*finished, *(rates.size(found) for found in jobs.values())]
    return IngestPlan(
        items=tuple(timed),
        forecast=wall(costs, whole, cores, workers, machine),
        cpu=whole,
        output=total(outputs) if outputs else None,
        sampled=sum(work in rates.estimates for found in jobs.values() for work in found),
    )


def work_ahead(item: Item) -> EncodeCost | None:
    """Return what an item's encode will cost; None if it has none, or nobody knows how long the video is."""
    waits = item.disposition in {Disposition.QUEUE, Disposition.JOIN}
    if not (waits and item.plan and item.profile and item.info and item.info.duration_s):
        return None
    larger = item.profile.gates.minimum_saving is None
    work = work_of(item.plan, item.profile.video.preset, item.info, keeps_larger=larger)
    searches = item.profile.video.quality is not None
    return replace(work, search=search_share(item.info.duration_s) if searches else 0.0)


def most_saving(
    items: Iterable[Item], wanted: float, budget_s: float, max_cpu_s: float = math.inf
) -> list[Item]:
    """Return items of which those are skipped that are not needed to save `wanted` bytes.

    What saves the most bytes for a CPU second is needed first, as long as all takes about `budget_s`
    CPU seconds, and by the upper ends of the forecasts at most `max_cpu_s`. What runs already counts.
    """
    freed, spent_s, most_s, found, fresh = 0.0, 0.0, 0.0, list[Item](), list[Item]()
    for item in items:
        if item.disposition is Disposition.QUEUE and item.cpu is not None:
            fresh.append(item)
        else:
            found.append(item)
            freed += item.saving if item.disposition in TO_PROCESS else 0.0
            spent_s += item.cpu_s
            most_s += item.cpu.high if item.cpu is not None else 0.0
    for item in sorted(fresh, key=lambda one: -one.saving / one.cpu_s):
        assert item.cpu is not None
        reasons = {
            SAVES_NOTHING: item.saving <= 0,
            NOT_NEEDED: freed >= wanted,
            NOT_WITHIN: spent_s + item.cpu_s > budget_s,
            TOO_DEAR: most_s + item.cpu.high > max_cpu_s,
        }
        reason = next((why for why, holds in reasons.items() if holds), "")
        if reason:
            found.append(
                replace(item, disposition=Disposition.SKIP, reason=reason, cpu=None, output=None)
            )
            continue
        found.append(item)
        freed += item.saving
        spent_s += item.cpu_s
        most_s += item.cpu.high
    return found


def placements_by_source(
    placements: Iterable[Placement],
) -> Mapping[tuple[Path, str], list[Placement]]:
    found: dict[tuple[Path, str], list[Placement]] = {}
    for placement in placements:
        found.setdefault((placement.source, placement.profile), []).append(placement)
    return found


def by_file(items: Iterable[Item]) -> list[list[Item]]:
    """Return the items grouped by path, in order."""
    return [list(group) for _, group in groupby(items, key=lambda item: item.path)]
