"""One folder or library of an ingest: its session, scan and watch, and what it may queue."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from hevcq.domain.events import EventName, Listener
from hevcq.domain.job import Source
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.planner import make_plan
from hevcq.errors import SourceAway
from hevcq.library.own_files import reserve_libraries
from hevcq.library.scanning.scan import (
    PROBES_PER_SLOT,
    Filter,
    FoundFile,
    Rejected,
    find,
    probe_files,
)
from hevcq.library.scanning.watch_folder import (
    LOCAL,
    LOOK_S,
    SETTLE_S,
    SHARE_RESCAN_S,
    Watch,
    file_system_of,
    open_for_writing,
)
from hevcq.ports.catalog import Mode
from hevcq.settings.libraries import Library
from hevcq.usecases.context import data_folder_id, require_shares
from hevcq.usecases.ingest.crf_by_size import Fitting, Sampling, profile_to_fit
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item
from hevcq.usecases.ingest.enqueue import NOT_QUEUED, UPLOADS
from hevcq.usecases.ingest.forecast import Costs, learned_rates
from hevcq.usecases.ingest.library_rules import (
    Acceptance,
    Budget,
    Feed,
    largest_saving_first,
    old_enough,
)
from hevcq.usecases.ingest.request import Destination, IngestRequest
from hevcq.usecases.ingest.session import (
    Accept,
    Ingest,
    Refine,
)
from hevcq.usecases.ingest.track import IngestOutcome, IngestResult, IngestSummary
from hevcq.usecases.placement.collect import Collector
from hevcq.usecases.placement.originals import recover, recovery_folders
from hevcq.usecases.proofs import Proofs
from hevcq.util.text import printable
from hevcq.wiring.app import App

RESCAN_S = 3600.0
"""Seconds between scans of a library whose changes are reported: an event may be lost."""

UNUSABLE_AGAIN_S = 7 * 86_400.0
"""Seconds in which a service that starts anew does not report a file again that cannot be encoded."""


class FolderIngest:
    """One request of an ingest, without workers; `stop` ends its scans and uploads.

    Call `recover` and `plan`, then `start`, and `step` until nothing is open; `end` and `finish` last.
    """

    def __init__(
        self,
        app: App,
        request: IngestRequest,
        emit: Listener,
        stop: threading.Event,
        summary: IngestSummary,
    ) -> None:
        """Build the session; raise UsageError, ConfigError, WorkerUnfit (no ffmpeg) or StorageError."""
        self._app, self.request, self._emit, self._stop = app, request, emit, stop
        self.profiles = request.chosen_profiles(app.profiles, app.settings.ingest.profiles)
        where = request.destination(self.profiles)
        self._output = where.output
        app.encoder.version()
        require_shares(app.catalog, request.roots)
        self._ports, self._summary = app.ports, summary
        self.session = self._build_session(where)
        self._chosen = self._filter(where)
        self.feed = self._build_feed(request.library)
        self._planned: Sequence[Item] = ()
        self._watch: Watch | None = None
        self._uploads_end = threading.Event()

    def _build_feed(self, library: Library | None) -> Feed | None:
        if library is None:
            return None
        app = self._app
        zone = app.settings.schedule.timezone
        return Feed(library, Budget(library, app.backend.ledger, app.catalog, app.clock, zone))

    def _build_session(self, where: Destination) -> Ingest:
        app, profiles = self._app, self.profiles
        local = not app.settings.on_aws
        if not self.request.collect_only:  # nothing would come of uploads without a queue
            _ = [app.backend.queues[profile.name] for profile in profiles]
        fleets = [profile.fleet for profile in profiles]
        subscribed = {each.name for each in app.profiles.values() if each.subscribe}
        rates = learned_rates(app.catalog, profiles)
        known = app.catalog, app.backend.ledger, app.encoder, app.profiles, app.scratch
        proofs = Proofs(*known, stop=self._stop, verify_before_replace=not local)
        return Ingest(
            self._ports,
            Collector(self._ports, proofs, discard=local, mark_source_finished=self._finish()),
            proofs,
            self._emit,
            roots=self.request.roots,
            free_bytes=self.request.free_bytes,
            budget_s=self.request.budget_s,
            max_cpu_s=self.request.max_cost / app.settings.prices.cost(1.0),
            refine=self._refine(where.mode),
            profiles=tuple(profiles),
            where=where,
            planner=make_plan,
            rates=rates,
            cores=app.capacity.cores
            if local
            else sum(each.max_tasks * each.cpu for each in fleets) / 1024,
            machine=None if local else min((each.cpu for each in fleets), default=1024) / 1024,
            workers=app.capacity.slots if local else sum(each.max_tasks for each in fleets),
            uploads=1 if local else UPLOADS,
            separate_keys=app.backend.announces_uploads
            and {profile.name for profile in profiles} != subscribed,
            accept=self._acceptance(rates),
            summary=self._summary,
        )

    def _finish(self) -> Callable[[Source], bool]:
        """Return what marks a source as finished, where that is asked for."""
        app = self._app
        if not app.settings.aws.tag_done:
            return lambda _source: False
        from hevcq.usecases.operations.reprocess import SourceFinisher

        return SourceFinisher(app.backend, app.profiles, app.catalog)

    def _refine(self, mode: Mode) -> Refine | None:
        app, request = self._app, self.request
        here = app.encoder, app.scratch, app.clock, self._stop, self._emit
        sampling = Sampling(*here, request.sample_s, app.capacity.cores)
        if not (request.fit_bytes or request.half):
            return sampling if request.sample_s else None
        profile = profile_to_fit(self.profiles)
        return Fitting(sampling, profile, request.fit_bytes, mode, app.aim_profiles)

    def _acceptance(self, rates: Costs) -> Accept | None:
        library = self.request.library
        if library is None:
            return None
        usual = frozenset(library.profiles or self._app.settings.ingest.profiles)
        return Acceptance(library, usual, rates)

    def _filter(self, where: Destination) -> Filter:
        settings = self._app.settings
        outputs = [each.output for each in settings.libraries if each.output is not None]
        mine = [where.output] if where.output is not None else []
        return Filter(
            include=self.request.include,
            exclude=self.request.exclude,
            skip=[settings.data_dir, settings.scratch, *mine, *outputs],
        )

    def hold(self, held: ExitStack) -> None:
        """Keep hevcq of another data folder or database out of this library while `held` is open.

        Raises Unavailable if there is one already.
        """
        roots = self.request.roots
        folders = [root if root.is_dir() else root.parent for root in roots]
        homes = folders if self._output is None else [self._output]
        data_dir, farm_id = self._app.settings.data_dir, self._app.catalog.database.farm_id
        where = "of PostgreSQL" if farm_id else f"{os.uname().nodename}:{data_dir}"
        there = [home for home in homes if home.is_dir() and home != home.parent]
        held.enter_context(reserve_libraries(there, farm_id or data_folder_id(data_dir), where))

    def recover(self) -> None:
        folders = recovery_folders(self._app.catalog, self.request.roots, self._output)
        recover(self._ports, folders, self._emit)

    def plan(self) -> IngestPlan:
        """Return what there is to do with what a scan finds.

        Starts listening to the folders if they are to be watched. Raises Stopped if asked to stop.
        """
        if self.request.watch:
            self._start_watching()
        found = self._watch.first() if self._watch is not None else self._scan()
        plan = self._plan_of(found)
        self._require_roots(plan)
        self._planned = plan.items
        return plan

    def _require_roots(self, plan: IngestPlan) -> None:
        """Raise SourceAway if a folder went away as a whole while it was scanned."""
        unreadable = [item.path for item in plan.of(Disposition.UNREADABLE)]
        gone = [path for path in unreadable if not os.path.lexists(path)]
        for root in self.request.roots:
            if any(root in path.parents for path in gone) and not _holds_anything(root):
                raise SourceAway(
                    f"The folder {printable(root)} went away during the scan; nothing was queued.",
                    remedy="Mount its disk, and run the same command again.",
                )

    def _scan(self) -> Iterator[FoundFile | Rejected]:
        found = find(list(self.request.roots), self._chosen)
        library = self.request.library
        if library is not None and library.min_age:
            return old_enough(found, library.min_age, self._app.clock.now())
        return found

    def _start_watching(self) -> None:
        library = self.request.library
        settle_s = SETTLE_S if library is None else library.settle
        look_s = LOOK_S if library is None else _rescan_s(library)
        self._watch = Watch(
            self._scan, self._app.clock, settle_s=settle_s, look_s=look_s, busy=open_for_writing
        )
        self._watch.listen(self.request.roots)

    def _plan_of(self, found: Iterable[FoundFile | Rejected]) -> IngestPlan:
        app, stop = self._app, self._stop

        def probe(path: Path) -> MediaInfo:
            return app.encoder.probe(str(path), stop=stop, quick=True)

        threads = PROBES_PER_SLOT * app.capacity.slots
        return self.session.plan(probe_files(found, app.catalog, probe, threads=threads), stop)

    def start(self) -> None:
        """Queue what was planned, in the background; a library's items wait for their turn."""
        self._queue(self._planned)
        self._planned = ()
        self.session.start(self._uploads_end)

    def _queue(self, items: Sequence[Item]) -> None:
        if self.feed is None:
            saving = self.request.largest_saving_first
            self.session.queue(largest_saving_first(items) if saving else items)
        else:
            self.feed.add(items)

    def step(self) -> bool:
        if self.request.no_wait:
            self.session.enqueuer.raise_error()
            return self.session.enqueuer.busy or self._waiting
        self._queue_new()
        still_open = self.session.step(self._stop)
        return still_open or self._watch is not None or self._waiting

    @property
    def _waiting(self) -> bool:
        return self.feed is not None and self.feed.waiting > 0

    def _queue_new(self) -> None:
        new = self._watch.step() if self._watch is not None else []
        if not new:
            return
        plan = self._plan_of(new)
        self._summary.add_planned(plan)
        self.report_unusable(plan)
        follows = self.session.tracker.follows
        # A job that ended meanwhile, and is about to be put in place, looks like one left behind.
        self._queue([item for item in plan.items if not follows(item.job_id)])

    def note_unusable(self, plan: IngestPlan) -> list[Item]:
        """Record an event of each file that cannot be encoded; return those not recorded in a week."""
        found = plan.of(Disposition.REFUSE, Disposition.UNREADABLE)
        if not found:
            return []
        from hevcq.ports.catalog import Happened
        from hevcq.wiring.contexts import event_log

        log, now = event_log(self._app), self._app.clock.now()
        new = []
        for item in found:
            profile = item.profile.name if item.profile else ""
            what = Happened(
                "video.unusable", now, profile=profile, source=str(item.path), reason=item.reason
            )
            if log.add(what, unless_within_s=UNUSABLE_AGAIN_S):
                new.append(item)
        return new

    def report_unusable(self, plan: IngestPlan, *, once: bool = False) -> None:
        """Record and emit each file that cannot be encoded; with `once`, none that was recorded before."""
        new = self.note_unusable(plan)
        for item in new if once else plan.of(Disposition.REFUSE, Disposition.UNREADABLE):
            self.session.tracker.tell(EventName.FILE_UNUSABLE, item, reason=item.reason)

    def leave_what_may_not_begin(self) -> None:
        """Count as skipped what the library may not begin now, unless it is watched: then it waits."""
        if self.feed is None or self._watch is not None or not self.feed.waiting:
            return
        reason = self.feed.why_not()
        for item in self.feed.drop() if reason else ():
            self._summary.add(IngestResult(item, IngestOutcome.SKIPPED, f"Not queued. {reason}"))

    def end(self) -> None:
        """Stop watching and queueing, and wait for the threads."""
        self._uploads_end.set()
        if self._watch is not None:
            self._watch.stop()
        self.session.enqueuer.join()
        left = self.feed.drop() if self.feed is not None and self._watch is None else ()
        for item in left:
            self._summary.add(IngestResult(item, IngestOutcome.OPEN, NOT_QUEUED))


def _holds_anything(folder: Path) -> bool:
    """Return whether a folder is there and no empty mount point."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _rescan_s(library: Library) -> float:
    """Return the seconds between scans of a library in which nothing is reported to change."""
    if file_system_of(library.path) not in LOCAL:
        return SHARE_RESCAN_S
    matures_s = library.min_age  # which no event announces
    return min(RESCAN_S, max(SHARE_RESCAN_S, matures_s)) if matures_s else RESCAN_S
