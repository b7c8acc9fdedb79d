"""Run an ingest: plan, enqueue, track each job to its end and put its rendition in place.

It uses ports only, so it is the same on every backend. The caller calls `Ingest.step` until nothing is
open, and may run workers meanwhile.
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
from hevcq.domain.planning.encode_plan import EncodePlan, Planner
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
    Recorded,
    Targets,
    by_file,
    decide,
    most_saving,
    placements_by_source,
    with_forecast,
    work_ahead,
)
from hevcq.usecases.ingest.enqueue import Enqueuer
from hevcq.usecases.ingest.forecast import TABLE_ONLY, Costs, work_of
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.ingest.track import IngestOutcome, IngestSummary, JobTracker, item_event
from hevcq.usecases.operations.dead_letters import ExpiredMessages, skip_waiting
from hevcq.usecases.placement.collect import Collected, Collector
from hevcq.usecases.placement.originals import moved_placement, relocated
from hevcq.usecases.proofs import OwnRenditions, Proofs
from hevcq.util.text import printable

SCAN_REPORT_S = 0.5
"""Seconds between two reports of a scan; the first file is reported at once."""
Refine = Callable[[Sequence[Item], Costs], tuple[Sequence[Item], Costs]]
"""Return the items, perhaps at another CRF, and better rates for their forecast."""
Accept = Callable[[FoundVideo, Item], Item | None]
"""Apply a library's rules to an item; return None if they exclude its profile."""


@dataclass(eq=False)
class Ingest:
    """One ingest. Events go to `emit`; `summary` collects the results.

    Only the forecast uses `cores`, `workers` and `machine` (cores available to one job; None: all).
    IngestRequest explains `free_bytes` and `budget_s`, `Enqueuer` explains `separate_keys`. `uploads` is
    the number of files queued at a time.
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
        self.tracker.on_encoded = self._record_cost
        separate = self.separate_keys
        self.enqueuer = Enqueuer(self.ports, self.where, self.tracker, separate_keys=separate)

    def plan(
        self, scan: Iterable[FoundVideo | Rejected], stop: threading.Event | None = None
    ) -> IngestPlan:
        """Return what to do with each file of a scan; changes nothing.

        Raises Stopped when `stop` is set while a moved file is read.
        """
        self._emit_event(EventName.SCAN_STARTED)
        placements = placements_by_source(self._placements())
        files = list(self._report_progress(scan))
        own = OwnRenditions(self.proofs, Certificates(self.roots), _renditions_by_size(files))
        items = [item for file in files for item in self._decide(file, placements, own)]
        live = {item.job_id for item in items if item.disposition is not Disposition.DONE}
        items.extend(self._leftovers(live))
        targets = Targets(self.where, own)
        undone = UndoneOriginals(FileSystem(stop))
        settled: Sequence[Item] = [
            self._keep_undone(targets.assign(item), undone)
            if self.where.mode is Mode.REPLACE
            else self._reuse_certified(targets.assign(item), own)
            for item in items
        ]
        rates, refine = self.rates, self.refine
        settled, rates = refine(settled, rates) if refine else (settled, rates)
        machine = self.cores, self.workers, self.machine
        plan = with_forecast(settled, rates, *machine)
        limits = self.free_bytes, self.budget_s * self.cores, self.max_cpu_s
        if any(limits):
            free, budget_s, max_cpu_s = (limit or math.inf for limit in limits)
            plan = with_forecast(
                most_saving(plan.items, free, budget_s, max_cpu_s), rates, *machine
            )
        for item in plan.items:
            self.emit(planned_event(item, self.ports.clock.now()))
        self._emit_event(
            EventName.PLAN,
            counts={kind.value: count for kind, count in plan.counts().items()},
            size=plan.bytes_to_process,
            forecast_s=plan.forecast.rounded(1),
            cpu_s=plan.cpu.rounded(1),
            forecast_size=plan.output and plan.output.rounded(),
        )
        return plan

    def _leftovers(self, live: set[str]) -> Iterator[Item]:
        """Yield jobs of earlier commands below the roots, except those in `live`.

        These are finished renditions that are not in place although their source is gone (moved, or a
        kill came between a replacement and its record), and queued jobs whose file was replaced by
        another one: no worker can encode it.
        """
        profiles = {profile.name: profile for profile in self.profiles}
        roots = self.roots
        again = [
            p for p in self.collector.reprocessed() if any(map(p.source.is_relative_to, roots))
        ]
        waiting = sorted(self._placements(UNPLACED), key=lambda placement: placement.source)
        for placement in (*waiting, *again):
            if placement.profile not in profiles:
                continue
            item = item_of(placement, profiles[placement.profile])
            job = self.ports.backend.ledger.get(item.job_id)
            if job is None or item.job_id in live:
                continue
            if job.state is JobState.DONE:
                yield replace(item, disposition=Disposition.COLLECT, reason=NOT_IN_PLACE)
            elif job.state is JobState.QUEUED and _is_file_replaced(item):
                yield replace(
                    item,
                    disposition=Disposition.SKIP,
                    reason="Queued before this file was replaced; no longer needed.",
                    moved=item.placement,
                    placement=None,
                )

    def collect_finished(self, stop: threading.Event) -> None:
        """Put finished renditions in place, once; leave all other jobs alone."""
        for item in self._leftovers(set()):
            job = self.ports.backend.ledger.get(item.job_id)
            collects = item.disposition is Disposition.COLLECT
            if job is not None and collects and not stop.is_set():
                self.tracker.add(item, job)
        self.tracker.step(stop)
        self.tracker.leave()

    def queue(self, items: Sequence[Item]) -> None:
        """Hand the items that need work to the enqueuer, and record the new paths of moved videos."""
        self._record_moves(items)
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
        """Count the jobs that are still open, after every thread has ended.

        With `queued` (--no-wait), open jobs count as queued, not as unfinished.
        """
        self.enqueuer.leave()
        if queued:
            self.tracker.leave(IngestOutcome.QUEUED, "")
        else:
            self.tracker.leave()

    def _placements(self, states: frozenset[PlacementState] = frozenset()) -> list[Placement]:
        by_job: dict[str, Placement] = {}
        for root in self.roots:
            for placement in self.ports.catalog.placements(states=states, under=root):
                by_job.setdefault(placement.job_id, placement)
        return list(by_job.values())

    def _report_progress(
        self, scan: Iterable[FoundVideo | Rejected]
    ) -> Iterator[FoundVideo | Rejected]:
        """Yield the files of a scan, and emit how many there are every SCAN_REPORT_S seconds."""
        due = self.ports.clock.monotonic()
        for number, file in enumerate(scan, 1):
            yield file
            if self.ports.clock.monotonic() >= due:
                due = self.ports.clock.monotonic() + SCAN_REPORT_S
                self._emit_event(EventName.SCAN_PROGRESS, counts={"files": number})

    def _decide(
        self,
        file: FoundVideo | Rejected,
        placements: Mapping[tuple[Path, str], list[Placement]],
        own: OwnRenditions,
    ) -> Iterator[Item]:
        """Yield an item for each profile that a library's rules allow; one for a rejected file."""
        if isinstance(file, Rejected):
            if file.cause is not RejectionCause.OWN_RENDITION:
                kind = Disposition.UNREADABLE if file.cause in PROBLEMS else Disposition.SKIP
                size = size_of(file.path)
                yield Item(path=file.path, size=size, disposition=kind, reason=file.reason)
            return
        for profile in self.profiles:
            recorded = self._find_recorded(
                file, placements.get((file.path, profile.name), []), own
            ) or self._find_moved(file, profile.name)
            recorded = self._compare_rendition(recorded)
            plan = self.planner(profile, file.info)
            is_named = file.path in self.roots
            item = decide(file, profile, plan, recorded, self.where, is_named=is_named)
            replaces = self.where.mode is Mode.REPLACE
            reason = _replacement_refusal(file.path, item.plan) if replaces and item.plan else ""
            if reason and item.disposition in TO_PROCESS:
                item = replace(item, disposition=Disposition.REFUSE, reason=reason)
            accepted = item if self.accept is None else self.accept(file, item)
            if accepted is not None:
                yield accepted

    def _find_recorded(
        self, video: FoundVideo, placements: Sequence[Placement], own: OwnRenditions
    ) -> Recorded | None:
        """Return the placement and job of the file at this path, and where its rendition is now."""
        for placement in placements:
            if not same_bytes(placement.fingerprint, video.fingerprint):
                continue
            job = self.ports.backend.ledger.get(placement.job_id)
            if os.path.lexists(placement.target):
                return Recorded(placement, job)
            target = None
            if placement.state is PlacementState.PLACED and job is not None and job.rendition:
                target = own.find(job.rendition.size, placement.sha256)
            if target is None:
                return Recorded(placement, job, gone=True)
            return Recorded(replace(placement, target=target), job, moved=placement)
        return None

    def _find_moved(self, video: FoundVideo, profile: str) -> Recorded:
        """Return the placement and job of a video that was renamed, moved or copied while its job waits."""
        former = moved_placement(self.ports.catalog, video.path, video.fingerprint, profile)
        job = None if former is None else self.ports.backend.ledger.get(former.job_id)
        if former is None or job is None:
            return Recorded()
        copied = not same_bytes(former.fingerprint, video.fingerprint)
        if copied and job.state is JobState.QUEUED and job.source.bucket == LIBRARY_BUCKET:
            return Recorded(moved=former)  # the job's own file is gone: queue the copy
        placement = relocated(former, video.path, video.root, video.fingerprint)
        return Recorded(placement, job, moved=former)

    def _keep_undone(self, item: Item, undone: UndoneOriginals) -> Item:
        """Mark the item DONE if the user undid its replacement, unless the command names this file."""
        mark, profile = item.fingerprint, item.profile
        due = item.disposition in {Disposition.QUEUE, Disposition.COLLECT}
        if not due or item.path in self.roots or mark is None or profile is None:
            return item
        if not undone.holds(item.path, mark.size, mark.mtime_ns, profile.name):
            return item
        return replace(item, disposition=Disposition.DONE, reason=UNDONE)

    def _reuse_certified(self, item: Item, own: OwnRenditions) -> Item:
        """Mark a new item DONE if this library has its rendition under another name.

        Certificates alone decide, because the library may have been moved and the data folder replaced.
        """
        if item.disposition is not Disposition.QUEUE or item.profile is None:
            return item
        rendition = own.find_renamed(item.path, item.size, item.profile.name)
        if rendition is None:
            return item
        reason = f"Done earlier: {printable(rendition)}."
        return replace(item, disposition=Disposition.DONE, reason=reason, target=rendition)

    def _record_moves(self, items: Sequence[Item]) -> None:
        """Record the new paths of moved videos, and let their jobs read from there."""
        moved = [(item, item.moved) for item in items if item.moved is not None]
        if not moved:
            return
        catalog, backend = self.ports.catalog, self.ports.backend
        with placing(self.ports) as require:
            for item, former in moved:
                require()
                if item.placement is not None:
                    catalog.record_placements([item.placement])
                    job = backend.ledger.get(item.placement.job_id)
                    if job is not None:
                        backend.store.follow(job.source, item.path)
                    continue
                words = item.reason or f"Queued anew as {printable(item.path)}."
                job = backend.ledger.get(former.job_id)
                if job is not None and job.state is JobState.QUEUED:
                    # Its work is done or its file is gone: no failure.
                    skip_waiting(backend, job.source, job.profile, words)
                expired = replace(former, state=PlacementState.EXPIRED, detail=words)
                catalog.record_placements([expired])

    def _compare_rendition(self, recorded: Recorded) -> Recorded:
        """Say in `changed` if a finished rendition no longer has the bytes that were placed."""
        placement, job = recorded.placement, recorded.job
        if placement is None or job is None or job.state is not JobState.DONE or recorded.gone:
            return recorded
        try:
            changed = self.proofs.why_changed(placement)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            changed = f"{printable(placement.target)} cannot be read: {why}."
        return replace(recorded, changed=changed)

    def _record_cost(self, item: Item, job: JobRecord, done: Collected) -> None:
        """Record the cost of an encode for later forecasts; an error loses only that."""
        if item.plan and item.profile and item.info and done.cpu_s:
            preset = item.profile.video.preset
            cost = work_of(item.plan, preset, item.info, done.size, done.cpu_s)
            with suppress(HevcqError):
                self.ports.catalog.record_encode_cost(job.job_id, cost)

    def _emit_event(self, name: EventName, **fields: object) -> None:
        base = {"event": name, "at": self.ports.clock.now()}
        self.emit(IngestEvent.model_validate(base | fields))


def _renditions_by_size(files: Iterable[FoundVideo | Rejected]) -> Mapping[int, list[Path]]:
    """Return hevcq's own renditions among the scanned files, by size in bytes."""
    paths: dict[int, list[Path]] = {}
    for file in files:
        if isinstance(file, Rejected):
            if file.cause is RejectionCause.OWN_RENDITION:
                paths.setdefault(size_of(file.path), []).append(file.path)
        elif found_mark(file.info) is not None:
            paths.setdefault(file.fingerprint.size, []).append(file.path)
    return paths


def _replacement_refusal(source: Path, plan: EncodePlan) -> str:
    """Return why a video cannot be replaced, as far as this is known before encoding; or ""."""
    if plan.losses:
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


def _is_file_replaced(item: Item) -> bool:
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
        cpu_s=item.cpu and item.cpu.rounded(1),
        search=(work.search or None) if work else None,
        forecast_size=item.output and item.output.rounded(),
    )
