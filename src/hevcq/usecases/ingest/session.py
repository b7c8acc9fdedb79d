"""Run an ingest: plan, enqueue, track each job to its end and put its rendition in place.

Uses ports only, so it is the same on the embedded and the aws backend. The caller runs workers beside
it, or not, and calls `Ingest.step` until nothing is open.
"""

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.domain.job import JobRecord, JobState
from hevcq.domain.keys import LIBRARY_BUCKET
from hevcq.domain.planning.encode_plan import EncodePlan, Plan, Planner
from hevcq.domain.planning.metadata import ACCEPT_LOSS, first_names, found_mark
from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError, SwapRefused
from hevcq.library.filesystem import FileSystem, fingerprint_of, same_bytes, size_of
from hevcq.library.own_files import Certificates
from hevcq.library.replacement.journal import UndoneOriginals
from hevcq.library.replacement.refusals import require_no_hard_links
from hevcq.library.scanning.scan import PROBLEMS, FoundVideo, Rejected, RejectionCause
from hevcq.ports.catalog import UNPLACED, Mode, Placement, PlacementState
from hevcq.usecases.context import Ports, placing
from hevcq.usecases.ingest.decide import (
    NOT_IN_PLACE,
    TO_PROCESS,
    UNDONE,
    Disposition,
    IngestPlan,
    Item,
    Known,
    Targets,
    by_file,
    decide,
    most_saving,
    placements_by_source,
    with_forecast,
    work_ahead,
)
from hevcq.usecases.ingest.enqueue import Enqueuer
from hevcq.usecases.ingest.forecast import TABLE_ONLY, Costs, Range, work_of
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.ingest.track import IngestOutcome, IngestSummary, JobTracker, item_event
from hevcq.usecases.operations.dead_letters import ExpiredMessages, skip_waiting
from hevcq.usecases.placement.collect import Collected, Collector
from hevcq.usecases.placement.originals import at_its_new_path, moved_placement
from hevcq.usecases.proofs import OwnRenditions, Proofs
from hevcq.util.text import printable

SCAN_REPORT_S = 0.5
"""Seconds between two reports of a scan; the first file is reported at once."""
Refine = Callable[[Sequence[Item], Costs], tuple[Sequence[Item], Costs]]
"""Return the items, at another CRF maybe, with better rates for their forecast."""
Accept = Callable[[FoundVideo, Item], Item | None]
"""Return an item as a library's rules change it, or None if they do not want it."""


@dataclass(eq=False)
class Ingest:
    """One ingest. Events go to `emit`; `summary` collects the results.

    `cores`, `workers` and `machine` (the cores of one job, None: all) only serve the forecast;
    `free_bytes` and `budget_s` are as in IngestRequest, `uploads` how many files go in at a time;
    `separate_keys` is as in `Enqueuer`.
    """

    ports: Ports
    collector: Collector
    proofs: Proofs
    emit: Listener
    roots: tuple[Path, ...]
    profiles: tuple[Profile, ...]
    where: Destination
    planner: Planner
    rates: Costs = TABLE_ONLY
    cores: float = 1.0
    machine: float | None = None
    workers: int = 1
    free_bytes: int = 0
    budget_s: float = 0.0
    max_cpu_s: float = 0.0
    uploads: int = 1
    separate_keys: bool = False
    accept: Accept | None = None
    refine: Refine | None = None
    summary: IngestSummary = field(default_factory=IngestSummary)

    def __post_init__(self) -> None:
        clock, backend = self.ports.clock, self.ports.backend
        ledger, collector = backend.ledger, self.collector
        self.tracker = JobTracker(ledger, collector, self.summary, self.emit, clock)
        if backend.external_dlq:
            names = [profile.name for profile in self.profiles]
            self.tracker.sweep = ExpiredMessages(backend, names).check
        self.tracker.learn = self._learn
        separate = self.separate_keys
        self.enqueuer = Enqueuer(self.ports, self.where, self.tracker, separate_keys=separate)

    def plan(
        self,
        found: Iterable[FoundVideo | Rejected],
        stop: threading.Event | None = None,
    ) -> IngestPlan:
        """Return what to do with each file of a scan; changes nothing.

        Raises Stopped when `stop` is set while a moved file is read.
        """
        self._emit_event(EventName.SCAN_STARTED)
        known = placements_by_source(self._placements())
        listed = list(self._listed(found))
        certificates = Certificates(self.roots)
        ours = OwnRenditions(self.proofs, certificates, _renditions(listed))
        items = [item for each in listed for item in self._items(each, known, ours)]
        live = {item.job_id for item in items if item.disposition is not Disposition.DONE}
        items.extend(self._left(live))
        targets = Targets(self.where, ours)
        undone = UndoneOriginals(FileSystem(stop))
        settled: Sequence[Item] = [
            self._undone(targets.settled(item), undone)
            if self.where.mode is Mode.REPLACE
            else self._done_before(targets.settled(item), ours)
            for item in items
        ]
        rates, refine = self.rates, self.refine
        settled, rates = refine(settled, rates) if refine else (settled, rates)
        machine = self.cores, self.workers, self.machine
        plan = with_forecast(settled, rates, *machine)
        if self.free_bytes or self.budget_s or self.max_cpu_s:
            wanted, budget_s = self.free_bytes or math.inf, self.budget_s * self.cores
            most_s = self.max_cpu_s or math.inf
            chosen = most_saving(plan.items, wanted, budget_s or math.inf, most_s)
            plan = with_forecast(chosen, rates, *machine)
        for item in plan.items:
            self.emit(planned_event(item, self.ports.clock.now()))
        self._emit_event(
            EventName.PLAN,
            counts={kind.value: count for kind, count in plan.counts().items()},
            size=plan.bytes_to_process,
            forecast_s=(round(plan.forecast.low, 1), round(plan.forecast.high, 1)),
            cpu_s=(round(plan.cpu.low, 1), round(plan.cpu.high, 1)),
            forecast_size=_bytes(plan.output),
        )
        return plan

    def _items_of(self, placements: Iterable[Placement]) -> list[Item]:
        wanted = {profile.name: profile for profile in self.profiles}
        return [item_of(p, wanted[p.profile]) for p in placements if p.profile in wanted]

    def _below(self, placement: Placement) -> bool:
        roots = self.roots
        return any(placement.source == root or root in placement.source.parents for root in roots)

    def _left(self, live: set[str]) -> Iterator[Item]:
        """Yield what earlier commands left below the roots and this scan does not explain.

        A finished rendition not in place, whose source is gone: it was moved, or a kill came between a
        replace and its record. And a waiting job whose video is another one now: no worker can do it.
        """
        again = [p for p in self.collector.made_again() if self._below(p)]
        waiting = self._items_of(self._placements(UNPLACED))
        for item in (*sorted(waiting, key=lambda item: item.path), *self._items_of(again)):
            job = self.ports.backend.ledger.get(item.job_id)
            if job is None or item.job_id in live:
                continue
            if job.state is JobState.DONE:
                yield replace(item, disposition=Disposition.COLLECT, reason=NOT_IN_PLACE)
            elif job.state is JobState.QUEUED and _is_another_file(item):
                yield replace(
                    item,
                    disposition=Disposition.SKIP,
                    reason="Queued before this file was replaced; no longer needed.",
                    moved=item.placement,
                    placement=None,
                )

    def collect_finished(self, stop: threading.Event) -> None:
        """Put finished renditions in place once; others stay queued, unmentioned."""
        for item in self._left(set()):
            job = self.ports.backend.ledger.get(item.job_id)
            collects = item.disposition is Disposition.COLLECT
            if job is not None and collects and not stop.is_set():
                self.tracker.add(item, job)
        self.tracker.step(stop)
        self.tracker.leave()

    def queue(self, items: Sequence[Item]) -> None:
        """Hand the items that need work to the enqueuer, and record what was moved."""
        self._follow(items)
        self.enqueuer.submit(by_file(item for item in items if item.disposition in TO_PROCESS))

    def start(self, stop: threading.Event) -> None:
        self.enqueuer.start(self.uploads, stop)

    def step(self, stop: threading.Event) -> bool:
        """Check uploads and jobs once; return whether something is still open.

        Raises the error that ended an upload thread.
        """
        self.enqueuer.raise_error()
        self.tracker.step(stop)
        return self.open

    @property
    def open(self) -> bool:
        """Whether a file is being queued or a job has not ended."""
        return self.enqueuer.busy or self.tracker.open > 0

    def finish(self, *, queued: bool = False) -> None:
        """Count what is left open, after every thread has ended.

        With `queued` (--no-wait), open jobs count as queued, not as unfinished.
        """
        self.enqueuer.leave()
        if queued:
            self.tracker.leave(IngestOutcome.QUEUED, "")
        else:
            self.tracker.leave()

    def _placements(self, states: frozenset[PlacementState] = frozenset()) -> list[Placement]:
        found: dict[str, Placement] = {}
        for root in self.roots:
            for placement in self.ports.catalog.placements(states=states, under=root):
                found.setdefault(placement.job_id, placement)
        return list(found.values())

    def _listed(self, found: Iterable[FoundVideo | Rejected]) -> Iterator[FoundVideo | Rejected]:
        due = self.ports.clock.monotonic()
        for number, each in enumerate(found, 1):
            yield each
            if self.ports.clock.monotonic() >= due:
                due = self.ports.clock.monotonic() + SCAN_REPORT_S
                self._emit_event(EventName.SCAN_PROGRESS, counts={"files": number})

    def _items(
        self,
        found: FoundVideo | Rejected,
        known: Mapping[tuple[Path, str], list[Placement]],
        ours: OwnRenditions,
    ) -> list[Item]:
        if isinstance(found, Rejected):
            if found.cause is RejectionCause.OWN_RENDITION:
                return []
            kind = Disposition.UNREADABLE if found.cause in PROBLEMS else Disposition.SKIP
            size = size_of(found.path)
            return [Item(path=found.path, size=size, disposition=kind, reason=found.reason)]
        items = []
        for profile in self.profiles:
            here = known.get((found.path, profile.name), [])
            facts = self._known(found, here, ours) or self._moved(found, profile.name)
            facts = self._compared(facts)
            plan = self.planner(profile, found.info)
            asked = found.path in self.roots
            item = decide(found, profile, plan, facts, self.where, asked=asked)
            replaces = self.where.mode is Mode.REPLACE
            reason = _replacement_refusal(found.path, item.plan) if replaces and item.plan else ""
            if reason and item.disposition in TO_PROCESS:
                item = replace(item, disposition=Disposition.REFUSE, reason=reason)
            accept = self.accept
            accepted = item if accept is None else accept(found, item)
            items += [] if accepted is None else [accepted]
        return items

    def _known(
        self, video: FoundVideo, placements: Sequence[Placement], ours: OwnRenditions
    ) -> Known | None:
        """Return what is known of a video at its path, and where its placed rendition is now."""
        for placement in placements:
            if not same_bytes(placement.fingerprint, video.fingerprint):
                continue
            job = self.ports.backend.ledger.get(placement.job_id)
            if os.path.lexists(placement.target):
                return Known(placement, job)
            there = None
            if placement.state is PlacementState.PLACED and job is not None and job.rendition:
                there = ours.find(job.rendition.size, placement.sha256)
            if there is None:
                return Known(placement, job, gone=True)
            return Known(replace(placement, target=there), job, moved=placement)
        return None

    def _moved(self, video: FoundVideo, profile: str) -> Known:
        """Return what is known of a video that was renamed, moved or copied while its job waits."""
        was = moved_placement(self.ports.catalog, video.path, video.fingerprint, profile)
        job = None if was is None else self.ports.backend.ledger.get(was.job_id)
        if was is None or job is None:
            return Known()
        copied = not same_bytes(was.fingerprint, video.fingerprint)
        if copied and job.state is JobState.QUEUED and job.source.bucket == LIBRARY_BUCKET:
            return Known(moved=was)  # the job's own file is gone: queue the copy
        here = at_its_new_path(was, video.path, video.root, video.fingerprint)
        return Known(here, job, moved=was)

    def _undone(self, item: Item, undone: UndoneOriginals) -> Item:
        """Return an item to replace as done if a person brought its original back, unless he names the
        file itself now: nothing is replaced a second time unasked."""
        mark, profile = item.fingerprint, item.profile
        due = item.disposition in {Disposition.QUEUE, Disposition.COLLECT}
        if not due or item.path in self.roots or mark is None or profile is None:
            return item
        if not undone.holds(item.path, mark.size, mark.mtime_ns, profile.name):
            return item
        return replace(item, disposition=Disposition.DONE, reason=UNDONE)

    def _done_before(self, item: Item, ours: OwnRenditions) -> Item:
        """Return an item to encode as done if this library has its rendition under another name.

        By the certificates alone: the library may have been moved, and the data folder be another one.
        """
        if item.disposition is not Disposition.QUEUE or item.profile is None:
            return item
        place = ours.of(item.path, item.size, item.profile.name)
        if place is None:
            return item
        reason = f"Done earlier: {printable(place)}."
        return replace(item, disposition=Disposition.DONE, reason=reason, target=place)

    def _follow(self, items: Sequence[Item]) -> None:
        """Record the new paths of moved videos, and let their jobs read from there."""
        moved = [(item, item.moved) for item in items if item.moved is not None]
        if not moved:
            return
        catalog, backend = self.ports.catalog, self.ports.backend
        with placing(self.ports) as require:
            for item, was in moved:
                require()
                if item.placement is not None:
                    catalog.record_placements([item.placement])
                    job = backend.ledger.get(item.placement.job_id)
                    if job is not None:
                        backend.store.follow(job.source, item.path)
                    continue
                words = item.reason or f"Queued anew as {printable(item.path)}."
                job = backend.ledger.get(was.job_id)
                if job is not None and job.state is JobState.QUEUED:
                    # What it asks for is done or gone, so it is no failure.
                    skip_waiting(backend, job.source, job.profile, words)
                over = replace(was, state=PlacementState.EXPIRED, detail=words)
                catalog.record_placements([over])

    def _compared(self, known: Known) -> Known:
        """Add why a rendition that is still in place no longer has the bytes that were put there."""
        placement, job = known.placement, known.job
        if placement is None or job is None or job.state is not JobState.DONE or known.gone:
            return known
        try:
            return replace(known, changed=self.proofs.why_changed(placement))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            return replace(known, changed=f"{printable(placement.target)} cannot be read: {why}.")

    def _learn(self, item: Item, job: JobRecord, done: Collected) -> None:
        """Record what an encode cost; the forecast alone would miss it."""
        if item.plan is None or item.profile is None or item.info is None:
            return
        if done.cpu_s:
            preset = item.profile.video.preset
            cost = work_of(item.plan, preset, item.info, done.size, done.cpu_s)
            with suppress(HevcqError):
                self.ports.catalog.record_encode_cost(job.job_id, cost)

    def _emit_event(self, name: EventName, **fields: object) -> None:
        base = {"event": name, "at": self.ports.clock.now()}
        self.emit(IngestEvent.model_validate(base | fields))


def _renditions(
    listed: Iterable[FoundVideo | Rejected],
) -> Mapping[int, list[Path]]:
    """Return the renditions of hevcq's that a scan found, by size in bytes."""
    found: dict[int, list[Path]] = {}
    for each in listed:
        if isinstance(each, Rejected):
            if each.cause is RejectionCause.OWN_RENDITION:
                found.setdefault(size_of(each.path), []).append(each.path)
        elif found_mark(each.info) is not None:
            found.setdefault(each.fingerprint.size, []).append(each.path)
    return found


def _replacement_refusal(source: Path, plan: Plan) -> str:
    """Return why a video cannot be replaced, as far as it is known before encoding; or ""."""
    if isinstance(plan, EncodePlan) and plan.losses:
        return (
            f"A rendition would lack {first_names(plan.losses)}. It is not replaced; encode beside it, or"
            f" {ACCEPT_LOSS}."
        )
    try:
        require_no_hard_links(source, source.lstat())
    except SwapRefused as refused:
        return str(refused)
    except OSError:
        pass  # the enqueuer reports it
    return ""


def _is_another_file(item: Item) -> bool:
    """Return whether another file is at an item's path now. A missing one may come back with its disk."""
    try:
        now = fingerprint_of(os.lstat(item.path))
    except OSError:
        return False
    return item.fingerprint is not None and not same_bytes(now, item.fingerprint)


def item_of(placement: Placement, profile: Profile) -> Item:
    return Item(
        path=placement.source,
        size=placement.fingerprint.size,
        disposition=Disposition.JOIN,
        root=placement.root,
        profile=profile,
        fingerprint=placement.fingerprint,
        target=placement.target,
        job_id=placement.job_id,
        placement=placement,
    )


def planned_event(item: Item, now: float) -> IngestEvent:
    """Return the FILE_PLANNED event of an item; `now` is wall seconds."""
    work = work_ahead(item)
    return item_event(
        EventName.FILE_PLANNED,
        now,
        item,
        disposition=item.disposition.value,
        reason=item.reason or None,
        size=item.size,
        target=printable(item.target) if item.target else None,
        notices=(item.plan.notices or None) if item.plan else None,
        cpu_s=(round(item.cpu.low, 1), round(item.cpu.high, 1)) if item.cpu else None,
        search=(work.search or None) if work else None,
        forecast_size=_bytes(item.output),
    )


def _bytes(found: Range | None) -> tuple[int, int] | None:
    return None if found is None else (round(found.low), round(found.high))
