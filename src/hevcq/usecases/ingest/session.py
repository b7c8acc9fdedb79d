"""Run an ingest: plan, enqueue, track each job to its end and put its rendition in place.

Uses ports only, so it is the same on the embedded and the aws backend. The caller runs workers beside
it, or not, and calls `Ingest.step` until nothing is open.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.domain.job import JobState
from hevcq.domain.planning.encode_plan import Planner
from hevcq.domain.profile import Profile
from hevcq.library.filesystem import same_bytes
from hevcq.ports.catalog import UNPLACED, Mode, Placement, PlacementState
from hevcq.usecases.context import Ports
from hevcq.usecases.ingest.decide import (
    TO_PROCESS,
    Disposition,
    IngestPlan,
    Item,
    Known,
    UnusableFile,
    Video,
    decide,
    placements_by_source,
    settle_targets,
    with_forecast,
)
from hevcq.usecases.ingest.destinations import Destination, InspectTarget
from hevcq.usecases.ingest.disk_space import DiskSpace, DiskSpaceMonitor, enough_space
from hevcq.usecases.ingest.enqueue import Enqueuer, Queued, by_file
from hevcq.usecases.ingest.forecast import TABLE_ONLY, Rates
from hevcq.usecases.ingest.scan import replacement_refusal
from hevcq.usecases.ingest.summary import IngestOutcome, IngestSummary
from hevcq.usecases.ingest.track import JobTracker
from hevcq.usecases.ingest.uploader import Uploader
from hevcq.usecases.operations.expired_messages import ExpiredMessages
from hevcq.usecases.placement.collect import Collector
from hevcq.util.text import printable

SCAN_REPORT_S = 0.5
"""Seconds between two reports of a scan; the first file is reported at once."""


@dataclass(frozen=True, slots=True)
class IngestSetup:
    """What to do. `cores`, `workers` and `machine` (the cores that one job may have, None: all)
    only serve the forecast; `uploads` is how many files are taken in at a time; `separate_keys` is as in
    `Enqueuer`."""

    roots: tuple[Path, ...]
    profiles: tuple[Profile, ...]
    where: Destination
    planner: Planner
    rates: Rates = TABLE_ONLY
    cores: float = 1.0
    machine: float | None = None
    workers: int = 1
    uploads: int = 1
    separate_keys: bool = False
    disk_space: DiskSpace = enough_space


class Ingest:
    """One ingest. Events go to `emit`; `summary` collects the results."""

    def __init__(
        self,
        ports: Ports,
        request: IngestSetup,
        collector: Collector,
        emit: Listener,
        inspect_target: InspectTarget,
    ) -> None:
        self._ports, self._request = ports, request
        self._emit, self._inspect_target = emit, inspect_target
        self._collector = collector
        self.summary = IngestSummary()
        clock, backend = ports.clock, ports.backend
        names = [profile.name for profile in request.profiles]
        sweep = ExpiredMessages(backend, names).look
        self.tracker = JobTracker(backend.ledger, collector, self.summary, emit, clock, sweep=sweep)
        enqueuer = Enqueuer(ports, request.where, emit, separate_keys=request.separate_keys)
        self.uploader = Uploader(enqueuer, self.tracker, self.summary, emit, clock)
        self._space = DiskSpaceMonitor(request.disk_space, emit, clock)

    def plan(self, found: Iterable[Video | UnusableFile]) -> IngestPlan:
        """Return what to do with each file of a scan; changes nothing."""
        self._say(EventName.SCAN_STARTED)
        known = placements_by_source(self._placements())
        items: list[Item] = []
        due = self._ports.clock.monotonic()
        for number, each in enumerate(found, 1):
            items.extend(self._items(each, known))
            if self._ports.clock.monotonic() >= due:
                due = self._ports.clock.monotonic() + SCAN_REPORT_S
                self._say(EventName.SCAN_PROGRESS, counts={"files": number})
        request = self._request
        live = {item.job_id for item in items if item.disposition is not Disposition.DONE}
        items.extend(self._unplaced(live))
        settled = settle_targets(items, request.where, self._inspect_target)
        plan = with_forecast(
            settled, request.rates, request.cores, request.workers, request.machine
        )
        for item in plan.items:
            self._emit(planned_event(item, self._ports.clock.now()))
        self._say(
            EventName.PLAN,
            counts={kind.value: count for kind, count in plan.counts().items()},
            size=plan.bytes_to_process,
            forecast_s=(round(plan.forecast.low, 1), round(plan.forecast.high, 1)),
        )
        return plan

    def waiting(self) -> list[Item]:
        """Return the items queued earlier below the roots and not in place yet."""
        items = self._items_of(self._placements(UNPLACED))
        return sorted(items, key=lambda item: str(item.path))

    def _items_of(self, placements: Iterable[Placement]) -> list[Item]:
        wanted = {profile.name: profile for profile in self._request.profiles}
        return [item_of(p, wanted[p.profile]) for p in placements if p.profile in wanted]

    def _below(self, placement: Placement) -> bool:
        roots = self._request.roots
        return any(placement.source == root or root in placement.source.parents for root in roots)

    def _unplaced(self, planned: set[str]) -> list[Item]:
        """Return finished renditions not in place whose source a scan no longer finds: it was moved, or
        a kill came between a replace and its record."""
        found = []
        again = [p for p in self._collector.made_again() if self._below(p)]
        for item in (*self.waiting(), *self._items_of(again)):
            if item.job_id not in planned:
                job = self._ports.backend.ledger.get(item.job_id)
                if job is not None and job.state is JobState.DONE:
                    reason = "Encoded earlier, not yet in place."
                    found.append(replace(item, disposition=Disposition.COLLECT, reason=reason))
        return found

    def collect_finished(self, stop: threading.Event) -> None:
        """Put finished renditions in place once; others stay queued, unmentioned."""
        for item in self._unplaced(set()):
            job = self._ports.backend.ledger.get(item.job_id)
            if job is not None and not stop.is_set():
                self.tracker.add(Queued(item, job))
        self.tracker.step(stop)
        self.tracker.leave()

    def queue(self, items: Sequence[Item]) -> None:
        """Hand the items that need work to the uploader."""
        self.uploader.submit(by_file([item for item in items if item.disposition in TO_PROCESS]))

    def start(self, stop: threading.Event) -> None:
        """Start the uploader's threads."""
        self.uploader.start(self._request.uploads, stop)

    def step(self, stop: threading.Event) -> bool:
        """Check uploads, disk space and jobs once; return whether something is still open.

        Raises the error that ended an upload thread.
        """
        self.uploader.raise_error()
        self._space.step()
        self.tracker.step(stop)
        return self.uploader.busy or self.tracker.open > 0

    def finish(self, *, interrupted: bool, queued: bool = False) -> None:
        """Count what is left open, after every thread has ended.

        With `queued` (--no-wait), open jobs count as queued, not as unfinished.
        """
        self.summary.interrupted = interrupted
        self.uploader.leave()
        if queued:
            self.tracker.leave(IngestOutcome.QUEUED, "")
        else:
            self.tracker.leave()

    def _placements(self, states: frozenset[PlacementState] = frozenset()) -> list[Placement]:
        found: dict[str, Placement] = {}
        for root in self._request.roots:
            for placement in self._ports.catalog.placements(states=states, under=root):
                found.setdefault(placement.job_id, placement)
        return list(found.values())

    def _items(
        self, found: Video | UnusableFile, known: Mapping[tuple[Path, str], list[Placement]]
    ) -> list[Item]:
        if isinstance(found, UnusableFile):
            kind = Disposition.UNREADABLE if found.bad else Disposition.SKIP
            return [Item(path=found.path, size=found.size, disposition=kind, reason=found.reason)]
        items = []
        for profile in self._request.profiles:
            facts = self._known(found, known.get((found.path, profile.name), []))
            plan = self._request.planner(profile, found.info)
            item = decide(found, profile, plan, facts, self._request.where)
            replaces = self._request.where.mode is Mode.REPLACE
            reason = replacement_refusal(found.path) if replaces and item.plan is not None else ""
            if reason and item.disposition is Disposition.QUEUE:
                item = replace(item, disposition=Disposition.REFUSE, reason=reason)
            items.append(item)
        return items

    def _known(self, video: Video, placements: Sequence[Placement]) -> Known:
        for placement in placements:
            if same_bytes(placement.fingerprint, video.fingerprint):
                job = self._ports.backend.ledger.get(placement.job_id)
                return Known(placement, job, gone=not os.path.lexists(placement.target))
        return Known()

    def _say(self, name: EventName, **fields: object) -> None:
        base = {"event": name, "at": self._ports.clock.now()}
        self._emit(IngestEvent.model_validate(base | fields))


def item_of(placement: Placement, profile: Profile) -> Item:
    """Return the item of a job queued earlier."""
    return Item(
        path=placement.source,
        size=placement.fingerprint.size,
        disposition=Disposition.JOIN,
        root=placement.root,
        profile=profile,
        fingerprint=placement.fingerprint,
        target=placement.target,
        job_id=placement.job_id,
    )


def planned_event(item: Item, now: float) -> IngestEvent:
    """Return the FILE_PLANNED event of an item; `now` is wall seconds."""
    return IngestEvent(
        event=EventName.FILE_PLANNED,
        at=now,
        path=printable(item.path),
        profile=item.profile.name if item.profile else None,
        job=item.job_id or None,
        disposition=item.disposition.value,
        reason=item.reason or None,
        size=item.size,
        target=printable(item.target) if item.target else None,
        notices=(item.plan.notices or None) if item.plan else None,
        cpu_s=(round(item.cpu.low, 1), round(item.cpu.high, 1)) if item.cpu else None,
    )
