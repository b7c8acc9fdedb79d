"""Decide what an ingest does with each file, from facts that are handed in."""

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
    """One file for one profile (None: no profile can use the file).

    `size` is in bytes, `cpu` in CPU seconds, `output` in bytes of the rendition. `moved` is the
    placement recorded under the video's former path; `placement` then replaces it, or is None if the
    video is queued as a new one. Without `moved`, `placement` is the recorded one that made this item,
    and stays as it is.
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
        """The bytes that it is expected to save; 0 if unknown."""
        return 0.0 if self.output is None else self.size - (self.output.low + self.output.high) / 2

    @property
    def cpu_s(self) -> float:
        """The CPU seconds that it is expected to take; 0 if unknown."""
        return 0.0 if self.cpu is None else (self.cpu.low + self.cpu.high) / 2


@dataclass(frozen=True, slots=True)
class Recorded:
    """The records of catalog and ledger for a video's current bytes and one profile.

    `gone`: the rendition is no longer where it was placed. `moved`: the placement as recorded, if the
    video or its rendition has another path now. `changed`: why the file at the target is no longer the
    placed rendition, or "".
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
    recorded: Recorded,
    where: Destination,
    *,
    is_named: bool = False,
) -> Item:
    """Return what to do with one video for one profile; the ledger overrides the plan.

    `is_named`: the command names the file itself, not only a folder above it. Only then is an undone
    replacement repeated; a rendition placed elsewhere leaves the original alone anyway.
    """
    item = Item(
        path=video.path,
        size=video.fingerprint.size,
        disposition=Disposition.QUEUE,
        root=video.root,
        profile=profile,
        fingerprint=video.fingerprint,
        info=video.info,
        moved=recorded.moved,
        placement=recorded.placement if recorded.moved is not None else None,
    )
    placement, job = recorded.placement, recorded.job
    undone = placement is not None and placement.state is PlacementState.UNDONE
    may_repeat = undone and (is_named or where.mode is not Mode.REPLACE)
    if job is not None and not (may_repeat and job.state is JobState.DONE):
        return _from_job(item, recorded, job, plan, where)
    if isinstance(plan, Skip):
        return replace(item, disposition=Disposition.SKIP, reason=plan.detail)
    if isinstance(plan, Refuse):
        return replace(
            item, disposition=Disposition.REFUSE, reason=f"{plan.detail} ({plan.policy})"
        )
    target = where.target(item.path, item.root, profile.name, plan.extension)
    return replace(item, plan=plan, target=target)


def _from_job(
    item: Item, recorded: Recorded, job: JobRecord, plan: Plan, where: Destination
) -> Item:
    placement = recorded.placement
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
            reason = f"{job.reason} {_remedy(job)}".strip()
            return replace(item, disposition=Disposition.FAILED, reason=reason)
        case JobState.QUEUED | JobState.RUNNING | JobState.SPLIT:
            return replace(item, disposition=Disposition.JOIN, reason="Queued earlier.")
        case JobState.DONE:
            return _from_done(item, recorded, job, where)
        case _:
            assert_never(job.state)


def _remedy(job: JobRecord) -> str:
    """Return what to do about a failed job; a retry does not help if the source is at fault."""
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


def _from_done(item: Item, recorded: Recorded, job: JobRecord, where: Destination) -> Item:
    placement = recorded.placement
    size = None if job.rendition is None else Range(job.rendition.size, job.rendition.size)
    finished = replace(item, disposition=Disposition.COLLECT, reason=NOT_IN_PLACE, output=size)
    if placement is None or placement.state in UNPLACED or _is_reprocessed(placement, job):
        return finished
    place, name = printable(placement.target), shlex.quote(printable(item.path))
    if placement.state is PlacementState.EXPIRED and placement.mode is not Mode.REPLACE:
        # A file at its target, if any, is not this video's rendition.
        reason = f"{placement.detail} Run `hevcq retry {name}` and this command again.".strip()
        return replace(item, disposition=Disposition.REFUSE, reason=reason)
    if placement.state is not PlacementState.PLACED:
        undone = placement.state is PlacementState.UNDONE
        reason = UNDONE if undone else "Replaced earlier."
    elif recorded.gone:
        reason = GONE
    elif recorded.changed:
        return replace(item, disposition=Disposition.REFUSE, reason=recorded.changed)
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
    """Return how to get the requested quality if the rendition was made for another one, or ""."""
    quality = item.profile.video.quality if item.profile is not None else None
    notices = " ".join(job.rendition.notices) if job.rendition is not None else ""
    if quality is None or asked_clause(quality) in notices or NOT_SEARCHED in notices:
        return ""
    name = shlex.quote(printable(item.path))
    return f"Not made for quality {quality:g}: run `hevcq retry {name}` and this command again."


def _is_reprocessed(placement: Placement, job: JobRecord) -> bool:
    """Return whether the job was reprocessed after placing, with a different rendition."""
    if placement.state is not PlacementState.PLACED or job.rendition is None:
        return False
    return placement.sha256 not in {"", job.rendition.sha256}


@dataclass(frozen=True, slots=True)
class Targets:
    """Assigns targets to the items of one ingest that clash neither with each other nor with other files."""

    where: Destination
    own: OwnRenditions
    taken: set[str] = field(default_factory=set)

    def assign(self, item: Item) -> Item:
        """Return the item with a free target, or refused.

        If two sources share a target, the later one's target keeps the whole source name, even if the
        first one's rendition exists already. A new job whose target is an unrelated file is refused
        before it is encoded.
        """
        if item.disposition not in TO_PROCESS or item.target is None:
            return item
        target = item.target
        # Names that differ in case only are one on some file systems.
        if str(target).casefold() in self.taken:
            longer = _longer_target(item, self.where)
            if longer is None:
                reason = NAME_TAKEN.format(printable(target))
                return replace(item, disposition=Disposition.REFUSE, reason=reason, target=None)
            target = longer
        item = _with_free_target(replace(item, target=target), target, self.where, self.own)
        if item.disposition is not Disposition.REFUSE and item.target is not None:
            self.taken.add(str(item.target).casefold())
        return item


def _longer_target(item: Item, where: Destination) -> Path | None:
    """Return the target with the whole source name in it, or None if there is no such target."""
    if where.mode is Mode.REPLACE or item.profile is None or item.plan is None:
        return None
    return where.target(
        item.path, item.root, item.profile.name, item.plan.extension, whole_name=True
    )


def _with_free_target(item: Item, target: Path, where: Destination, own: OwnRenditions) -> Item:
    """Return the item, DONE if its own rendition is at the target, refused if the target is not free."""
    state = own.state(target, item.path, item.size)
    longer = _longer_target(item, where) if state is TargetState.TWIN else None
    if longer is not None and longer != target:
        return _with_free_target(replace(item, target=longer), longer, where, own)
    if item.disposition is not Disposition.QUEUE:
        return item
    match state:
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
            reason = own.why_not_proven(target, item.path, item.size)
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


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest will do with each item.

    `forecast` is in wall seconds, `cpu` in CPU seconds, `output` in bytes of all renditions. `sampled` is
    the number of items from which samples were encoded.
    """

    items: tuple[Item, ...]
    forecast: Range
    output: Range | None = None
    sampled: int = 0
    cpu: Range = NOTHING

    def counts(self) -> dict[Disposition, int]:
        """Return the number of items per disposition, in the order of the enum."""
        dispositions = [item.disposition for item in self.items]
        return {kind: dispositions.count(kind) for kind in Disposition if kind in dispositions}

    def of(self, *kinds: Disposition) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.disposition in kinds)

    @property
    def bytes_to_encode(self) -> int:
        """Total size of the sources whose renditions `output` estimates, once for each rendition."""
        return sum(item.size for item in self.items if item.output is not None)

    @property
    def bytes_to_process(self) -> int:
        return sum({item.path: item.size for item in self.of(*TO_PROCESS)}.values())


def with_forecast(
    items: Iterable[Item],
    rates: Costs,
    cores: float,
    workers: int,
    machine: float | None = None,
) -> IngestPlan:
    """Return a plan of these items, with a forecast for each job and for all of them.

    `cores` is the number of CPU cores of all workers, `machine` that of one machine (None: all cores).
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
    whole = total(rates.cpu(works) for works in jobs.values())
    costs = [item.cpu for item in timed if item.cpu is not None]
    finished = [item.output for item in timed if item.cpu is None and item.output is not None]
    outputs = [*finished, *(rates.size(works) for works in jobs.values())]
    return IngestPlan(
        items=tuple(timed),
        forecast=wall(costs, whole, cores, workers, machine),
        cpu=whole,
        output=total(outputs) if outputs else None,
        sampled=sum(work in rates.estimates for works in jobs.values() for work in works),
    )


def work_ahead(item: Item) -> EncodeCost | None:
    """Return the cost of an item's encode; None if nothing is encoded or the video's length is unknown."""
    waits = item.disposition in {Disposition.QUEUE, Disposition.JOIN}
    if not (waits and item.plan and item.profile and item.info and item.info.duration_s):
        return None
    larger = item.profile.gates.minimum_saving is None
    work = work_of(item.plan, item.profile.video.preset, item.info, keeps_larger=larger)
    searches = item.profile.video.quality is not None
    return replace(work, search=search_share(item.info.duration_s) if searches else 0.0)


def most_saving(
    items: Iterable[Item], goal: float, budget_s: float, max_cpu_s: float = math.inf
) -> list[Item]:
    """Skip the new items that are not needed to save `goal` bytes; return all items.

    Items that save most bytes per CPU second come first, within about `budget_s` CPU seconds and, by the
    upper ends of the forecasts, at most `max_cpu_s`. Jobs that were queued earlier count too.
    """
    freed, spent_s, most_s, chosen, fresh = 0.0, 0.0, 0.0, list[Item](), list[Item]()
    for item in items:
        if item.disposition is Disposition.QUEUE and item.cpu is not None:
            fresh.append(item)
        else:
            chosen.append(item)
            freed += item.saving if item.disposition in TO_PROCESS else 0.0
            spent_s += item.cpu_s
            most_s += item.cpu.high if item.cpu is not None else 0.0
    for item in sorted(fresh, key=lambda one: -one.saving / one.cpu_s):
        assert item.cpu is not None
        reasons = {
            SAVES_NOTHING: item.saving <= 0,
            NOT_NEEDED: freed >= goal,
            NOT_WITHIN: spent_s + item.cpu_s > budget_s,
            TOO_DEAR: most_s + item.cpu.high > max_cpu_s,
        }
        reason = next((why for why, holds in reasons.items() if holds), "")
        if reason:
            chosen.append(
                replace(item, disposition=Disposition.SKIP, reason=reason, cpu=None, output=None)
            )
            continue
        chosen.append(item)
        freed += item.saving
        spent_s += item.cpu_s
        most_s += item.cpu.high
    return chosen


def placements_by_source(
    placements: Iterable[Placement],
) -> Mapping[tuple[Path, str], list[Placement]]:
    by_source: dict[tuple[Path, str], list[Placement]] = {}
    for placement in placements:
        by_source.setdefault((placement.source, placement.profile), []).append(placement)
    return by_source


def by_file(items: Iterable[Item]) -> list[list[Item]]:
    return [list(group) for _, group in groupby(items, key=lambda item: item.path)]
