"""Ingest one folder or library: scan and watch it, plan its files, queue what its rules allow now."""

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
from hevcq.usecases.ingest.session import Accept, Ingest, Refine
from hevcq.usecases.ingest.track import IngestOutcome, IngestResult, IngestSummary
from hevcq.usecases.placement.collect import Collector
from hevcq.usecases.placement.originals import recover, recovery_folders
from hevcq.usecases.proofs import Proofs
from hevcq.util.text import printable
from hevcq.wiring.app import App

RESCAN_S = 3600.0
"""Seconds between scans of a library whose changes the system reports, since an event may be lost."""

UNUSABLE_AGAIN_S = 7 * 86_400.0
"""Seconds before a restarted service reports a file again that cannot be encoded."""


class FolderIngest:
    """The ingest of one request, without workers; `stop` ends its scans and uploads.

    Call `recover`, `plan` and `start`, then `step` until it returns False, and `end` last.
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
        destination = request.destination(self.profiles)
        self._output = destination.output
        app.encoder.version()
        require_shares(app.catalog, request.roots)
        self._ports, self._summary = app.ports, summary
        self.session = self._build_session(destination)
        self._filter = self._build_filter(destination)
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

    def _build_session(self, destination: Destination) -> Ingest:
        app, profiles = self._app, self.profiles
        local = not app.settings.on_aws
        if (
            not self.request.collect_only
        ):  # a missing queue must be found before anything is uploaded
            _ = [app.backend.queues[profile.name] for profile in profiles]
        fleets = [profile.fleet for profile in profiles]
        subscribed = {each.name for each in app.profiles.values() if each.subscribe}
        rates = learned_rates(app.catalog, profiles)
        ports = app.catalog, app.backend.ledger, app.encoder, app.profiles, app.scratch
        proofs = Proofs(*ports, stop=self._stop, verify_before_replace=not local)
        finish = self._source_finisher()
        return Ingest(
            self._ports,
            Collector(self._ports, proofs, discard=local, mark_source_finished=finish),
            proofs,
            self._emit,
            roots=self.request.roots,
            free_bytes=self.request.free_bytes,
            budget_s=self.request.budget_s,
            max_cpu_s=self.request.max_cost / app.settings.prices.cost(1.0),
            refine=self._build_refine(destination.mode),
            profiles=tuple(profiles),
            where=destination,
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
            accept=self._build_acceptance(rates),
            summary=self._summary,
        )

    def _source_finisher(self) -> Callable[[Source], bool]:
        """Return the function that tags a finished source if the settings ask for it (aws.tag_done)."""
        app = self._app
        if not app.settings.aws.tag_done:
            return lambda _source: False
        from hevcq.usecases.operations.reprocess import SourceFinisher

        return SourceFinisher(app.backend, app.profiles, app.catalog)

    def _build_refine(self, mode: Mode) -> Refine | None:
        app, request = self._app, self.request
        ports = app.encoder, app.scratch, app.clock, self._stop, self._emit
        sampling = Sampling(*ports, request.sample_s, app.capacity.cores)
        if not (request.fit_bytes or request.half):
            return sampling if request.sample_s else None
        profile = profile_to_fit(self.profiles)
        return Fitting(sampling, profile, request.fit_bytes, mode, app.aim_profiles)

    def _build_acceptance(self, rates: Costs) -> Accept | None:
        library = self.request.library
        if library is None:
            return None
        profiles = frozenset(library.profiles or self._app.settings.ingest.profiles)
        return Acceptance(library, profiles, rates)

    def _build_filter(self, destination: Destination) -> Filter:
        settings = self._app.settings
        outputs = [destination.output, *(library.output for library in settings.libraries)]
        return Filter(
            include=self.request.include,
            exclude=self.request.exclude,
            skip=[settings.data_dir, settings.scratch, *filter(None, outputs)],
        )

    def lock(self, locks: ExitStack) -> None:
        """Keep hevcq with another data folder or database out of this library while `locks` is open.

        Raises Unavailable if one is at work here already.
        """
        roots = self.request.roots
        folders = [root if root.is_dir() else root.parent for root in roots]
        homes = folders if self._output is None else [self._output]
        data_dir, farm_id = self._app.settings.data_dir, self._app.catalog.database.farm_id
        holder = "of PostgreSQL" if farm_id else f"{os.uname().nodename}:{data_dir}"
        present = [home for home in homes if home.is_dir() and home != home.parent]
        locks.enter_context(reserve_libraries(present, farm_id or data_folder_id(data_dir), holder))

    def recover(self) -> None:
        folders = recovery_folders(self._app.catalog, self.request.roots, self._output)
        recover(self._ports, folders, self._emit)

    def plan(self) -> IngestPlan:
        """Scan the folder; return the plan of its files.

        Starts listening to the folders if they are to be watched. Raises Stopped if asked to stop.
        """
        if self.request.watch:
            self._start_watching()
        files = self._watch.first() if self._watch is not None else self._scan()
        plan = self._plan_files(files)
        self._require_roots(plan)
        self._planned = plan.items
        return plan

    def _require_roots(self, plan: IngestPlan) -> None:
        """Raise SourceAway if a whole root folder disappeared during the scan."""
        unreadable = [item.path for item in plan.of(Disposition.UNREADABLE)]
        missing = [path for path in unreadable if not os.path.lexists(path)]
        for root in self.request.roots:
            if any(root in path.parents for path in missing) and not _holds_anything(root):
                raise SourceAway(
                    f"The folder {printable(root)} went away during the scan; nothing was queued.",
                    remedy="Mount its disk, and run the same command again.",
                )

    def _scan(self) -> Iterator[FoundFile | Rejected]:
        files = find(list(self.request.roots), self._filter)
        library = self.request.library
        if library is not None and library.min_age:
            return old_enough(files, library.min_age, self._app.clock.now())
        return files

    def _start_watching(self) -> None:
        library = self.request.library
        settle_s = SETTLE_S if library is None else library.settle
        look_s = LOOK_S if library is None else _rescan_s(library)
        self._watch = Watch(
            self._scan, self._app.clock, settle_s=settle_s, look_s=look_s, busy=open_for_writing
        )
        self._watch.listen(self.request.roots)

    def _plan_files(self, files: Iterable[FoundFile | Rejected]) -> IngestPlan:
        app, stop = self._app, self._stop

        def probe(path: Path) -> MediaInfo:
            return app.encoder.probe(str(path), stop=stop, quick=True)

        threads = PROBES_PER_SLOT * app.capacity.slots
        return self.session.plan(probe_files(files, app.catalog, probe, threads=threads), stop)

    def start(self) -> None:
        """Queue the planned items in the background; a library's items wait for their turn."""
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
        """Queue new files and follow the queued ones once; return whether anything is still to do."""
        if self.request.no_wait:
            self.session.enqueuer.raise_error()
            return self.session.enqueuer.busy or self._has_waiting
        self._queue_new()
        still_open = self.session.step(self._stop)
        return still_open or self._watch is not None or self._has_waiting

    @property
    def _has_waiting(self) -> bool:
        return self.feed is not None and self.feed.waiting > 0

    def _queue_new(self) -> None:
        new = self._watch.step() if self._watch is not None else []
        if not new:
            return
        plan = self._plan_files(new)
        self._summary.add_planned(plan)
        self.report_unusable(plan)
        follows = self.session.tracker.follows
        # A job that ended meanwhile and is about to be put in place looks like an abandoned one.
        self._queue([item for item in plan.items if not follows(item.job_id)])

    def record_unusable(self, plan: IngestPlan) -> list[Item]:
        """Record an event for each file that cannot be encoded; return those with none in the last week."""
        unusable = plan.of(Disposition.REFUSE, Disposition.UNREADABLE)
        if not unusable:
            return []
        from hevcq.ports.catalog import Happened
        from hevcq.wiring.contexts import event_log

        log, now = event_log(self._app), self._app.clock.now()
        new = []
        for item in unusable:
            profile = item.profile.name if item.profile else ""
            event = Happened(
                "video.unusable", now, profile=profile, source=str(item.path), reason=item.reason
            )
            if log.add(event, unless_within_s=UNUSABLE_AGAIN_S):
                new.append(item)
        return new

    def report_unusable(self, plan: IngestPlan, *, once: bool = False) -> None:
        """Record and emit each file that cannot be encoded; with `once`, none recorded in the last week."""
        new = self.record_unusable(plan)
        for item in new if once else plan.of(Disposition.REFUSE, Disposition.UNREADABLE):
            self.session.tracker.tell(EventName.FILE_UNUSABLE, item, reason=item.reason)

    def skip_disallowed(self) -> None:
        """Count the items that the library may not begin now as skipped; a watched library keeps them waiting."""
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
        remaining = self.feed.drop() if self.feed is not None and self._watch is None else ()
        for item in remaining:
            self._summary.add(IngestResult(item, IngestOutcome.OPEN, NOT_QUEUED))


def _holds_anything(folder: Path) -> bool:
    """Return whether a folder exists and is not empty, as a mount point without its disk is."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _rescan_s(library: Library) -> float:
    """Return the seconds between scans of a library while the system reports no change in it."""
    if file_system_of(library.path) not in LOCAL:
        return SHARE_RESCAN_S
    min_age_s = library.min_age  # no event announces that a file has reached it
    return min(RESCAN_S, max(SHARE_RESCAN_S, min_age_s)) if min_age_s else RESCAN_S
