"""Run an ingest: wire it, show it, keep workers beside it, and end it in order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hevcq.cli.display import Display
from hevcq.cli.ingest_options import Options, chosen_profiles
from hevcq.cli.ingest_watch import Signals
from hevcq.domain.events import EventName, IngestEvent, JobEvent
from hevcq.domain.job import JobState
from hevcq.domain.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import ConfigError, UsageError
from hevcq.library.scan import Filter, Found, Rejected, find
from hevcq.usecases.collect import Collector
from hevcq.usecases.ingest import Ingest, Request
from hevcq.usecases.ingest_plan import LIVE, OPEN, IngestPlan, Item
from hevcq.usecases.ingest_queue import Ports
from hevcq.usecases.ingest_recover import homes, recover
from hevcq.usecases.ingest_samples import learned_rates
from hevcq.usecases.ingest_scan import Scanner, occupied
from hevcq.usecases.ingest_space import room_of
from hevcq.usecases.let_go import LetGo
from hevcq.usecases.watch import Watch
from hevcq.worker.kit import keep

if TYPE_CHECKING:
    from hevcq.wiring.app import App
    from hevcq.worker.pool import WorkerPool
    from hevcq.worker.stop import StopSignals

UPLOADS = 4
"""Files uploaded at a time: enough to fill a line with one of them slow. Linking needs one."""
FLEET_POLL_S = 3.0
"""How often the ledger of a fleet is asked: each look costs read units, and a job takes minutes."""
NOTHING_TO_PLACE = frozenset({JobState.SKIPPED, JobState.DEAD})


@dataclass(frozen=True, slots=True)
class Wired:
    """An ingest with everything around it that its run needs."""

    app: App
    options: Options
    ingest: Ingest
    scanner: Scanner
    profiles: Sequence[Profile]
    chosen: Filter

    @property
    def embedded(self) -> bool:
        """Whether workers run in this very process."""
        return self.app.settings.backend == "embedded"

    def recover(self, tell: Display) -> None:
        """Settle what earlier runs left behind in the folders that are worked on."""
        app = self.app
        ports = Ports(app.backend, app.catalog, app.clock, app.settings.data_dir)
        output = self.options.destination(list(self.profiles)).output
        recover(ports, homes(app.catalog, self.options.roots, output), tell)

    def require_profiles(self) -> None:
        """Raise ConfigError if something waits for its place whose profile is gone.

        Nothing collects it then, and silence would look as if all were done.
        """
        app, gone = self.app, set[str]()
        for root in self.options.roots:
            for each in app.catalog.placements(states=OPEN, under=root):
                job = None if each.profile in app.profiles else app.backend.ledger.get(each.job_id)
                if job is not None and job.state not in NOTHING_TO_PLACE:
                    gone.add(each.profile)
        if gone:
            names = ", ".join(sorted(gone))
            raise ConfigError(
                f"Films wait for a profile that is not there any more ({names}).",
                remedy="Put its file back and run this again, or end them with `hevcq cancel`.",
            )


def wire(app: App, options: Options, tell: Display) -> Wired:
    """Build the use case; raise UsageError, WorkerUnfit (no ffmpeg) or StorageError."""
    embedded = app.settings.backend == "embedded"
    if not embedded and options.workers is not None:
        raise UsageError("Workers run on the fleet; --workers is for the embedded way.")
    if options.skip_upload and not options.profiles:
        profiles = list(app.profiles.values())
    else:
        profiles = chosen_profiles(options.profiles, dict(app.profiles))
    where = options.destination(profiles)
    app.encoder.version()
    ports = Ports(app.backend, app.catalog, app.clock, app.settings.data_dir)
    slots = app.capacity.slots
    settings = app.settings
    request = Request(
        roots=options.roots,
        profiles=tuple(profiles),
        where=where,
        planner=make_plan,
        rates=learned_rates(app.backend.ledger, app.catalog, profiles, make_plan),
        cores=app.capacity.cores if embedded else _fleet_cores(profiles),
        machine=None if embedded else min((p.fleet.cpu for p in profiles), default=1024) / 1024,
        workers=slots if embedded else sum(profile.fleet.max_tasks for profile in profiles),
        uploads=1 if embedded else UPLOADS,
        apart=app.backend.announces_uploads and not _all_subscribed(app, profiles),
        room=room_of(app.backend.store, settings.scratch, settings.min_free_mib << 20),
    )
    let_go = LetGo(app.backend, app.profiles, app.catalog) if settings.aws.tag_done else keep
    collector = Collector(ports, app.encoder, discard=embedded, let_go=let_go)
    ingest = Ingest(ports, request, collector, tell, occupied)
    skip = [settings.data_dir, settings.scratch]
    chosen = Filter(
        include=options.include,
        exclude=options.exclude,
        skip=[*skip, *([where.output] if where.output is not None else [])],
    )
    scanner = Scanner(app.catalog, app.encoder, chosen, threads=2 * slots)
    return Wired(app, options, ingest, scanner, profiles, chosen)


def _fleet_cores(profiles: Sequence[Profile]) -> float:
    """The cores of the fleet at its full size, for the forecast."""
    return sum(profile.fleet.max_tasks * profile.fleet.cpu / 1024 for profile in profiles)


def _all_subscribed(app: App, profiles: Sequence[Profile]) -> bool:
    subscribed = {profile.name for profile in app.profiles.values() if profile.subscribe}
    return {profile.name for profile in profiles} == subscribed


def plan_of(wired: Wired, found: Iterable[Found | Rejected], stop: threading.Event) -> IngestPlan:
    """Look into the found files and decide; raise Stopped if told to stop meanwhile."""
    return wired.ingest.plan(wired.scanner.inspect(iter(found), stop))


class Run:
    """The loop of an ingest: `step` looks at everything once, `end` closes in order."""

    def __init__(self, wired: Wired, signals: StopSignals, tell: Display) -> None:
        self._wired, self._signals, self._tell = wired, signals, tell
        self._wake = threading.Event()
        self._pool: WorkerPool | None = None
        self._watch: Watch | None = None
        self._listening: Signals | None = None
        self._told_stop = False

    def watch(self) -> Watch:
        """Stay, and look for new files; return the watch."""
        wired = self._wired
        roots = list(wired.options.roots)
        self._watch = Watch(lambda: find(roots, wired.chosen), wired.app.clock)
        self._listening = Signals(roots, self._watch.signal)
        self._listening.start()
        return self._watch

    def start(self, items: Sequence[Item]) -> None:
        """Queue the items in the background, and start workers where they belong."""
        ingest, options = self._wired.ingest, self._wired.options
        ingest.queue(items)
        ingest.start(self._signals.asked)
        live = any(item.disposition in LIVE for item in items)
        if self._wired.embedded and not options.no_wait and (live or options.watch):
            from hevcq.wiring.app import build_pool

            names = [profile.name for profile in self._wired.profiles]
            self._pool = build_pool(self._wired.app, names, on_event=self._worker_event)
            self._pool.start()

    def run(self) -> None:
        """Step until nothing is open, or until told to stop."""
        settings = self._wired.app.settings
        poll = min(1.0, settings.poll_s) if self._wired.embedded else FLEET_POLL_S
        while self.step():
            self._wired.app.clock.wait(self._wake, poll)
            self._wake.clear()

    def step(self) -> bool:
        """Look once at everything; return whether to go on."""
        if self._signals.asked.is_set():
            return False
        ingest, options = self._wired.ingest, self._wired.options
        if self._pool is not None:
            self._pool.step()
            if self._pool.error is not None or self._pool.stopped:
                return False
        if options.no_wait:
            ingest.intake.raise_error()
            return ingest.intake.busy
        self._take_new()
        open_still = ingest.step(self._signals.asked)
        return open_still or self._watch is not None

    def end(self) -> None:
        """Stop everything in order, collect what still ended well, count the rest."""
        asked = self._signals.asked.is_set()
        try:
            if asked:
                self._say_stop()
        finally:  # where nobody can be told any more, work goes back to its queue all the same
            error = self._stop()
        self._last_look()
        self._wired.ingest.finish(interrupted=asked, queued=self._wired.options.no_wait)
        if error is not None:
            raise error

    def _stop(self) -> BaseException | None:
        self._signals.asked.set()
        if self._listening is not None:
            self._listening.stop()
        self._wired.ingest.intake.join()
        return self._stop_pool()

    def _stop_pool(self) -> BaseException | None:
        pool = self._pool
        if pool is None:
            return None
        pool.ask()
        while not pool.stopped:
            if self._signals.insisted.is_set():
                pool.insist()
            pool.step()
            self._wired.app.clock.wait(self._wake, 0.1)
            self._wake.clear()
        pool.finish()
        return pool.error

    def _last_look(self) -> None:
        """What ended within the grace still goes to its place, unless told to hurry."""
        if self._wired.options.no_wait or self._signals.insisted.is_set():
            return
        self._wired.ingest.follower.step(self._signals.insisted)

    def _take_new(self) -> None:
        new = self._watch.step() if self._watch is not None else []
        if not new:
            return
        plan = plan_of(self._wired, new, self._signals.asked)
        self._wired.ingest.tally.add_planned(plan)
        self._wired.ingest.queue(plan.items)

    def _worker_event(self, event: JobEvent) -> None:
        if event.kind is EventName.JOB_PROGRESS and event.progress is not None:
            # A chunk's progress is not its film's, which the ledger adds up.
            if not event.part:
                self._wired.ingest.follower.note(event.job_id, event.progress)
        else:
            self._wake.set()

    def _say_stop(self) -> None:
        grace = self._wired.app.settings.stop_grace_s
        words = (
            f"Stopping: running encodes have {grace:.0f} s to end, then they go back to the queue;"
            " again to stop at once."
        )
        if self._wired.ingest.follower.open == 0:
            words = "Stopping."
        now = self._wired.app.clock.now()
        self._tell(IngestEvent(event=EventName.STOPPING, at=now, reason=words))


def first_items(
    wired: Wired, watch: Watch | None, stop: threading.Event
) -> IngestPlan | Sequence[Item]:
    """Return what there is to do at the start: a plan, or what was queued before."""
    if wired.options.skip_upload:
        return wired.ingest.waiting()
    found: Iterable[Found | Rejected] = (
        watch.first() if watch is not None else find(list(wired.options.roots), wired.chosen)
    )
    return plan_of(wired, found, stop)
