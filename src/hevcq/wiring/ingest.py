"""An ingest as one application: its session, the workers beside it, and an orderly stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from hevcq.domain.events import EventName, IngestEvent, JobEvent, Listener, OnEvent
from hevcq.domain.job import JobState
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import ConfigError
from hevcq.library.lock import in_use
from hevcq.library.scanning.fs_events import ChangeListener
from hevcq.library.scanning.probe_files import PROBES_PER_SLOT
from hevcq.library.scanning.scan import Filter, Found, Rejected, find
from hevcq.ports.catalog import UNPLACED
from hevcq.usecases.ingest.decide import TO_PROCESS, IngestPlan, Item
from hevcq.usecases.ingest.destinations import Destination
from hevcq.usecases.ingest.disk_space import disk_space_of
from hevcq.usecases.ingest.forecast import learned_rates
from hevcq.usecases.ingest.request import IngestRequest
from hevcq.usecases.ingest.scan import Scanner, inspect_target
from hevcq.usecases.ingest.session import Ingest, IngestSetup
from hevcq.usecases.ingest.summary import IngestSummary
from hevcq.usecases.ingest.uploader import UPLOADS
from hevcq.usecases.ingest.watch_folder import Watch
from hevcq.usecases.operations.finished_sources import SourceFinisher
from hevcq.usecases.placement.collect import Collector
from hevcq.usecases.placement.lock import data_folder_id
from hevcq.usecases.placement.recover import recover, recovery_folders
from hevcq.usecases.proofs import Proofs
from hevcq.wiring.app import App
from hevcq.wiring.worker import build_pool
from hevcq.worker.delivery.context import keep

if TYPE_CHECKING:
    from hevcq.worker.signals import StopSignals

LOCAL_POLL_S = 1.0
"""Longest time in seconds between reads of this machine's ledger."""
FLEET_POLL_S = 3.0
"""Seconds between reads of a fleet's ledger: each costs read units, and jobs take minutes."""
SAID_AFTER_S = 1.0
"""Seconds after which an ingest says that it waits for an encode of another folder."""
STOP_POLL_S = 0.1
"""Seconds between checks of stopping workers, so that a second signal acts at once."""
NOTHING_TO_PLACE = frozenset({JobState.SKIPPED, JobState.DEAD})


class IngestApplication:
    """Runs an ingest request on an opened app, in either way of running.

    Call `recover`, `plan` and `work` in this order, or `recover` and `collect_finished`. Events go
    to `emit`; `summary` counts what became of each job. `signals.asked` stops it in order, and
    `signals.insisted` at once.
    """

    def __init__(
        self, app: App, request: IngestRequest, emit: Listener, signals: StopSignals
    ) -> None:
        """Build the session; raise UsageError, ConfigError, WorkerUnfit (no ffmpeg) or StorageError."""
        self._app, self._request, self._emit, self._signals = app, request, emit, signals
        self._profiles = request.chosen_profiles(app.profiles, app.settings.ingest.profiles)
        where = request.destination(self._profiles)
        self._output = where.output
        app.encoder.version()
        self._ports = app.ports
        self._session = self._build_session(where)
        self._chosen = self._filter(where)
        self._scanner = Scanner(
            app.catalog, app.encoder, self._chosen, threads=PROBES_PER_SLOT * app.capacity.slots
        )
        self._wake = threading.Event()
        self._workers: LocalWorkers | None = None
        self._watch: Watch | None = None
        self._changes: ChangeListener | None = None

    @property
    def summary(self) -> IngestSummary:
        """The results so far."""
        return self._session.summary

    @property
    def _embedded(self) -> bool:
        return self._app.settings.backend == "embedded"

    def _build_session(self, where: Destination) -> Ingest:
        app, ports, profiles, embedded = self._app, self._ports, self._profiles, self._embedded
        settings = app.settings
        fleet_tasks = sum(profile.fleet.max_tasks for profile in profiles)
        setup = IngestSetup(
            roots=self._request.roots,
            profiles=tuple(profiles),
            where=where,
            planner=make_plan,
            rates=learned_rates(app.backend.ledger, app.catalog, profiles, make_plan),
            cores=app.capacity.cores if embedded else _fleet_cores(profiles),
            machine=None if embedded else min((p.fleet.cpu for p in profiles), default=1024) / 1024,
            workers=app.capacity.slots if embedded else fleet_tasks,
            uploads=1 if embedded else UPLOADS,
            separate_keys=app.backend.announces_uploads and not _all_subscribed(app, profiles),
            disk_space=disk_space_of(
                app.backend.store, settings.scratch, settings.min_free_mib << 20
            ),
        )
        mark_source_finished = (
            SourceFinisher(app.backend, app.profiles, app.catalog)
            if settings.aws.tag_done
            else keep
        )
        proofs = Proofs(
            app.catalog,
            app.keyring,
            app.encoder,
            app.profiles,
            stop=self._signals.asked,
            signatures_replace=embedded or not settings.aws.verify_before_replace,
        )
        collector = Collector(
            ports, proofs, discard=embedded, mark_source_finished=mark_source_finished
        )
        return Ingest(ports, setup, collector, self._emit, inspect_target, proofs)

    def _filter(self, where: Destination) -> Filter:
        settings = self._app.settings
        skip = [settings.data_dir, settings.scratch]
        return Filter(
            include=self._request.include,
            exclude=self._request.exclude,
            skip=[*skip, *([where.output] if where.output is not None else [])],
        )

    def in_use(self) -> AbstractContextManager[None]:
        """Return a context that keeps hevcq with another data folder out of these libraries.

        Entering it raises Unavailable if there is one already.
        """
        folders = [root if root.is_dir() else root.parent for root in self._request.roots]
        homes = folders if self._output is None else [self._output]
        data_dir = self._app.settings.data_dir
        where = f"{os.uname().nodename}:{data_dir}"
        there = [home for home in homes if home.is_dir() and home != home.parent]
        return in_use(there, data_folder_id(data_dir), where)

    def recover(self) -> None:
        """Recover interrupted swaps of earlier runs in the ingested folders."""
        recover(
            self._ports,
            recovery_folders(self._app.catalog, self._request.roots, self._output),
            self._emit,
        )

    def require_profiles(self) -> None:
        """Raise ConfigError if renditions are waiting whose profile was removed: nothing collects them."""
        app, gone = self._app, set[str]()
        for root in self._request.roots:
            for each in app.catalog.placements(states=UNPLACED, under=root):
                job = None if each.profile in app.profiles else app.backend.ledger.get(each.job_id)
                if job is not None and job.state not in NOTHING_TO_PLACE:
                    gone.add(each.profile)
        if gone:
            names = ", ".join(sorted(gone))
            raise ConfigError(
                f"Queued videos need a removed profile ({names}).",
                remedy="Restore its file and run this again, or cancel them with `hevcq cancel`.",
            )

    def plan(self) -> IngestPlan | Sequence[Item]:
        """Return what there is to do: a plan of what a scan found, or what was queued before.

        Starts listening to the folders if they are to be watched. Raises Stopped if told to stop.
        """
        if self._request.watch:
            self._start_watching()
        if self._request.skip_upload:
            return self._session.waiting()
        found: Iterable[Found | Rejected] = (
            self._watch.first()
            if self._watch is not None
            else find(list(self._request.roots), self._chosen)
        )
        return self._plan_of(found)

    def work(self, items: Sequence[Item]) -> None:
        """Queue the items and follow them to their end, or until told to stop.

        Raises what ended the intake or the workers before their time, after all has stopped.
        """
        try:
            self._start(items)
            while self._step():
                self._app.clock.wait(self._wake, self._poll_s())
                self._wake.clear()
        finally:
            self._end()

    def collect_finished(self) -> None:
        """Put finished renditions in place, once."""
        self._session.collect_finished(self._signals.asked)
        self.summary.interrupted = self._signals.asked.is_set()

    def _start_watching(self) -> None:
        roots = list(self._request.roots)
        self._watch = Watch(lambda: find(roots, self._chosen), self._app.clock)
        self._changes = ChangeListener(roots, self._watch.signal)
        self._changes.start()

    def _plan_of(self, found: Iterable[Found | Rejected]) -> IngestPlan:
        stop = self._signals.asked
        return self._session.plan(self._scanner.inspect(iter(found), stop), stop)

    def _poll_s(self) -> float:
        return min(LOCAL_POLL_S, self._app.settings.poll_s) if self._embedded else FLEET_POLL_S

    def _start(self, items: Sequence[Item]) -> None:
        """Queue the items in the background, and start workers where they belong."""
        self._session.queue(items)
        self._session.start(self._signals.asked)
        live = any(item.disposition in TO_PROCESS for item in items)
        if self._embedded and not self._request.no_wait and (live or self._request.watch):
            names = [profile.name for profile in self._profiles]
            self._workers = LocalWorkers(self._app, names, self._worker_event)
            self._workers.start()

    def _step(self) -> bool:
        """Step workers and session once; return whether to go on."""
        if self._signals.asked.is_set():
            return False
        if self._workers is not None and not self._workers.step():
            return False
        if self._request.no_wait:
            self._session.uploader.raise_error()
            return self._session.uploader.busy
        self._take_new()
        still_open = self._session.step(self._signals.asked)
        return still_open or self._watch is not None

    def _take_new(self) -> None:
        new = self._watch.step() if self._watch is not None else []
        if not new:
            return
        plan = self._plan_of(new)
        self.summary.add_planned(plan)
        self._session.queue(plan.items)

    def _end(self) -> None:
        """Stop everything in order, collect finished jobs, count the rest."""
        asked = self._signals.asked.is_set()
        try:
            if asked:
                self._say_stop()
        finally:  # also if emitting fails, work returns to its queue
            error = self._stop(asked=asked)
        if not self._request.no_wait and not self._signals.insisted.is_set():
            # Jobs finished within the grace are still placed, unless a second signal came.
            self._session.tracker.step(self._signals.insisted)
        self._session.finish(interrupted=asked, queued=self._request.no_wait)
        if error is not None:
            raise error

    def _stop(self, *, asked: bool) -> BaseException | None:
        self._signals.asked.set()
        if self._changes is not None:
            self._changes.stop()
        self._session.uploader.join()
        if self._workers is None:
            return None
        if not asked and not self._session.open:
            self._workers.finish(self._signals.insisted, self._wake, self._say_waiting)
        return self._workers.stop(self._signals.insisted, self._wake)

    def _worker_event(self, event: JobEvent) -> None:
        if event.kind is EventName.JOB_PROGRESS and event.progress is not None:
            # A chunk's progress is not its video's, which the ledger adds up.
            if not event.part:
                self._session.tracker.note(event.job_id, event.progress)
        else:
            self._wake.set()

    def _say_waiting(self) -> None:
        words = "Done here. An encode of another folder is finishing; Ctrl-C stops it."
        now = self._app.clock.now()
        self._emit(IngestEvent(event=EventName.STOPPING, at=now, reason=words))

    def others_queued(self) -> int:
        """Return how many tasks of other folders are left in the queues of these profiles.

        Always 0 for a fleet, and while jobs of this ingest are left too.
        """
        if not self._embedded or self._request.no_wait or not self.summary.settled:
            return 0
        depths = [self._app.backend.queues[profile.name].depth() for profile in self._profiles]
        return sum(depth.ready + depth.delayed for depth in depths)

    def _say_stop(self) -> None:
        grace = self._app.settings.stop_grace_s
        words = f"Stopping: encodes get {grace:.0f} s to finish. Ctrl-C again to stop now."
        if self._session.tracker.open == 0:
            words = "Stopping."
        now = self._app.clock.now()
        self._emit(IngestEvent(event=EventName.STOPPING, at=now, reason=words))


class LocalWorkers:
    """The workers in this process, stepped beside the session by the same thread."""

    def __init__(self, app: App, profiles: Sequence[str], on_event: OnEvent) -> None:
        self._pool = build_pool(app, profiles, on_event=on_event)
        self._clock = app.clock

    def start(self) -> None:
        """Start the slots."""
        self._pool.start()

    def step(self) -> bool:
        """Step every slot once; return whether they go on."""
        self._pool.step()
        return self._pool.error is None and not self._pool.stopped

    def finish(
        self, insisted: threading.Event, wake: threading.Event, say: Callable[[], None]
    ) -> None:
        """Let running encodes end, those of other folders; begin nothing. Return early if `insisted`.

        `say` is called once if that takes long.
        """
        pool, said = self._pool, False
        pool.drain()
        since = self._clock.monotonic()
        while not pool.stopped and not insisted.is_set():
            pool.step()
            if not said and self._clock.monotonic() - since > SAID_AFTER_S:
                said = True
                say()
            self._clock.wait(wake, STOP_POLL_S)
            wake.clear()

    def stop(self, insisted: threading.Event, wake: threading.Event) -> BaseException | None:
        """Let running encodes end within the grace, or at once when `insisted`.

        Return what ended the workers before they were told to stop, if anything did. `wake` cuts
        the pause between two looks short.
        """
        pool = self._pool
        pool.ask()
        while not pool.stopped:
            if insisted.is_set():
                pool.insist()
            pool.step()
            self._clock.wait(wake, STOP_POLL_S)
            wake.clear()
        pool.finish()
        return pool.error


def _fleet_cores(profiles: Sequence[Profile]) -> float:
    """Return the cores of the fleet at its full size, for the forecast."""
    return sum(profile.fleet.max_tasks * profile.fleet.cpu / 1024 for profile in profiles)


def _all_subscribed(app: App, profiles: Sequence[Profile]) -> bool:
    subscribed = {profile.name for profile in app.profiles.values() if profile.subscribe}
    return {profile.name for profile in profiles} == subscribed
