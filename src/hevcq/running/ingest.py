"""Run an ingest with its workers, and stop both in order; submit one video."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.events import EventName, IngestEvent, JobEvent, Listener
from hevcq.domain.profile import Profile
from hevcq.errors import NoSuchVideo, UsageError, WorkerUnfit
from hevcq.running.folder import FolderIngest
from hevcq.settings.libraries import Library, library_of
from hevcq.usecases.ingest.decide import NOT_INGESTED, TO_PROCESS, Disposition, IngestPlan, Item
from hevcq.usecases.ingest.forecast import total
from hevcq.usecases.ingest.library_rules import hand_out, most_queued, waiting_rows
from hevcq.usecases.ingest.request import IngestRequest, library_request
from hevcq.usecases.ingest.track import IngestSummary
from hevcq.usecases.operations.pausing import why_closed
from hevcq.util.signals import StopSignals
from hevcq.util.text import encodable, printable
from hevcq.wiring.app import App
from hevcq.wiring.contexts import notify_now
from hevcq.wiring.worker import build_pool
from hevcq.worker.pool import WorkerPool

LOCAL_POLL_S = 0.5
"""Longest time in seconds between reads of this machine's ledger."""
FIRST_POLL_S = 0.01
"""Seconds between checks whether the first video is queued."""
PAUSE_CHECK_S, FLEET_PAUSE_CHECK_S = 1.0, 30.0
"""Seconds between checks whether work is paused; on AWS each check reads the ledger."""
FLEET_POLL_S = 3.0
"""Seconds between reads of a fleet's ledger: each costs read units, and jobs take minutes."""


class IngestApplication:
    """Run ingest requests on an opened app, embedded or on AWS.

    Call `recover`, `plan` and `work` in this order, or `recover` and `collect_finished`. Events go
    to `emit`; `summary` counts the results of the jobs. `signals.asked` stops it in order, and
    `signals.insisted` at once.
    """

    def __init__(
        self,
        app: App,
        requests: Sequence[IngestRequest],
        emit: Listener,
        signals: StopSignals,
    ) -> None:
        """Build the sessions; raise UsageError, ConfigError, WorkerUnfit (no ffmpeg) or StorageError."""
        self._app, self._emit, self._signals = app, emit, signals
        self.summary = IngestSummary()
        self._folders = [
            FolderIngest(app, request, emit, signals.asked, self.summary) for request in requests
        ]
        for profile in () if app.settings.on_aws else self._profiles:
            app.encoder.require_metric(profile)
        self._no_wait = any(request.no_wait for request in requests)
        self._wake = threading.Event()
        self._workers: WorkerPool | None = None
        self._pause_reason, self._next_pause_check = "", app.clock.monotonic()

    @property
    def _profiles(self) -> list[Profile]:
        profiles = {each.name: each for folder in self._folders for each in folder.profiles}
        return list(profiles.values())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep hevcq with another data folder or database out of these libraries.

        Raises Unavailable if one is at work here already.
        """
        with ExitStack() as locks:
            for folder in self._folders:
                folder.lock(locks)
            yield

    def recover(self) -> None:
        for folder in self._folders:
            folder.recover()

    def plan(self) -> IngestPlan:
        """Scan the folders; return the plan of their files.

        Starts listening to the folders if they are to be watched. Raises Stopped if asked to stop.
        """
        plans = [folder.plan() for folder in self._folders]
        if len(plans) == 1:
            return plans[0]
        outputs = [plan.output for plan in plans if plan.output is not None]
        return IngestPlan(
            items=tuple(item for plan in plans for item in plan.items),
            forecast=total(plan.forecast for plan in plans),
            cpu=total(plan.cpu for plan in plans),
            output=total(outputs) if outputs else None,
            sampled=sum(plan.sampled for plan in plans),
        )

    def record_failures(self, plan: IngestPlan, *, hide_old: bool) -> IngestPlan:
        """Record the files that cannot be encoded. With `hide_old`, return old failures as skipped.

        A failure is old if an earlier run failed, or refused the file within a week.
        """
        new = {id(item) for item in self._folders[0].record_unusable(plan)}
        if not hide_old:
            return plan
        items = [
            replace(item, disposition=Disposition.SKIP)
            if item.disposition in NOT_INGESTED and id(item) not in new
            else item
            for item in plan.items
        ]
        return replace(plan, items=tuple(items))

    def work(self, items: Sequence[Item]) -> None:
        """Queue the planned `items`, and follow them to their end, or until asked to stop.

        If the enqueuing or the workers fail, stops everything and raises their error.
        """
        feeds = [folder.feed for folder in self._folders if folder.feed is not None]
        poll_s = FLEET_POLL_S if self._app.settings.on_aws else LOCAL_POLL_S
        try:
            self._start(items)
            while self._step():
                if feeds:
                    self._app.processes.tell(waiting=waiting_rows(feeds))
                self._app.clock.wait(self._wake, poll_s)
                self._wake.clear()
        finally:
            self._app.processes.tell(waiting=[])
            self._end()

    def collect_finished(self) -> None:
        for folder in self._folders:
            folder.session.collect_finished(self._signals.asked)
        self.summary.interrupted = self._signals.asked.is_set()

    def _start(self, items: Sequence[Item]) -> None:
        """Queue the items in the background; start workers here if this machine is to encode them."""
        self._require_cap()
        for folder in self._folders:
            folder.start()
        watch = any(folder.request.watch for folder in self._folders)
        has_work = any(item.disposition in TO_PROCESS for item in items)
        if not self._app.settings.on_aws and not self._no_wait and (has_work or watch):
            names = [profile.name for profile in self._profiles]
            self._workers = build_pool(self._app, names, on_event=self._on_worker_event)
            self._wait_for_first()
            self._workers.start()

    def _wait_for_first(self) -> None:
        """Wait at most a second for a queued item, so that workers do not begin with older jobs."""
        sessions = [folder.session for folder in self._folders]
        for _ in range(round(1 / FIRST_POLL_S)):
            is_queued = any(session.tracker.open for session in sessions)
            if is_queued or not any(session.enqueuer.busy for session in sessions):
                return
            self._app.clock.wait(self._signals.asked, FIRST_POLL_S)

    def _step(self) -> bool:
        if self._signals.asked.is_set():
            return False
        if self._workers is not None and not self._workers.step():
            return False
        self._require_cap()
        queue_next_items(self._folders, self._app, no_wait=self._no_wait)
        if not self._no_wait:
            self._report_pause()
        still_open = [folder.step() for folder in self._folders]
        self._require_fit()
        return any(still_open)

    def _require_cap(self) -> None:
        if self._app.settings.on_aws:  # elsewhere the workers check the cap
            self._app.daily_cap.require()

    def _require_fit(self) -> None:
        """Raise WorkerUnfit if only jobs remain that ffmpeg cannot encode here; they stay queued."""
        if self._workers is None or any(folder.request.watch for folder in self._folders):
            return
        sessions = [folder.session for folder in self._folders]
        remaining = set[str]().union(*(session.tracker.profiles for session in sessions))
        problems = [self._workers.why_unfit(name) for name in remaining]
        if problems and all(problems) and not any(each.enqueuer.busy for each in sessions):
            raise WorkerUnfit(" ".join(problems))

    def _why_paused(self) -> str:
        names = [profile.name for profile in self._profiles]
        if self._workers is not None:
            reasons = [self._workers.why_paused(name) for name in names]
        else:
            now = self._app.clock.now()
            closed = why_closed(self._app.backend.ledger, names, self._app.hours, now)
            reasons = [each.reason for each in closed for _ in each.profiles]
        all_paused = len(reasons) == len(names) and all(reasons)
        return " ".join(dict.fromkeys(reasons)) if all_paused else ""

    def _report_pause(self) -> None:
        """Check now and then whether all work is paused; emit an event when that changes."""
        now = self._app.clock.monotonic()
        if now < self._next_pause_check:
            return
        on_aws = self._app.settings.on_aws
        self._next_pause_check = now + (FLEET_PAUSE_CHECK_S if on_aws else PAUSE_CHECK_S)
        reason = self._why_paused()
        if reason != self._pause_reason:
            self._pause_reason = reason
            name = EventName.PAUSED if reason else EventName.RESUMED
            # The display shows it behind "Paused: ".
            self._emit_words(name, reason.removeprefix("Paused ") or "Resumed.")

    def _emit_words(self, name: EventName, words: str) -> None:
        self._emit(IngestEvent(event=name, at=self._app.clock.now(), reason=words))

    def _end(self) -> None:
        """Stop everything in order, collect finished jobs, count the rest."""
        asked = self._signals.asked.is_set()
        try:
            if asked:
                self._emit_stopping()
        finally:  # work must return to its queue even if emitting fails
            error = self._stop(asked=asked)
        for folder in self._folders:
            if not self._no_wait and not self._signals.insisted.is_set():
                # Jobs finished within the grace are still placed, unless a second signal came.
                folder.session.tracker.step(self._signals.insisted)
            folder.session.finish(queued=self._no_wait)
        watched = any(folder.request.watch for folder in self._folders)
        self.summary.interrupted = asked and (watched or not self.summary.settled)
        if not self._signals.insisted.is_set():  # a receiver may take its time
            notify_now(self._app)
        if error is not None:
            raise error

    def _stop(self, *, asked: bool) -> BaseException | None:
        self._signals.asked.set()
        for folder in self._folders:
            folder.end()
        if self._workers is None:
            return None
        if not asked and not any(folder.session.open for folder in self._folders):
            self._workers.drain(self._signals.insisted, self._wake, self._emit_waiting)
        return self._workers.stop(self._signals.insisted, self._wake)

    def _on_worker_event(self, event: JobEvent) -> None:
        if event.kind is EventName.JOB_PROGRESS and event.progress is not None:
            # The progress of a chunk is not its video's; the ledger adds those up.
            for folder in () if event.part else self._folders:
                folder.session.tracker.note(event.job_id, event.progress)
        else:
            self._wake.set()

    def _emit_waiting(self) -> None:
        words = "Done here. An encode of another folder is finishing; Ctrl-C stops it."
        self._emit_words(EventName.STOPPING, words)

    def _emit_stopping(self) -> None:
        grace = self._app.settings.stop_grace_s
        words = f"Stopping: encodes get {grace:.0f} s to finish. Ctrl-C again to stop now."
        if not any(folder.session.tracker.open for folder in self._folders):
            words = "Stopping."
        self._emit_words(EventName.STOPPING, words)


def queue_next_items(folders: Sequence[FolderIngest], app: App, *, no_wait: bool) -> None:
    """Queue the next items of libraries while the queue has room; with `no_wait`, all of them."""
    by_feed = {id(folder.feed): folder for folder in folders if folder.feed is not None}
    if not by_feed:
        return
    feeds = [folder.feed for folder in folders if folder.feed is not None]
    most = most_queued(app.capacity.slots if not app.settings.on_aws else None)
    queued = sum(
        each.session.enqueuer.waiting_files + each.session.tracker.open for each in folders
    )
    waiting = sum(feed.waiting for feed in feeds)
    for feed, items in hand_out(feeds, waiting if no_wait else min(waiting, most - queued)):
        by_feed[id(feed)].session.queue(items)
    for folder in by_feed.values():
        folder.skip_disallowed()


@dataclass(frozen=True, slots=True)
class Submitted:
    """The result of submitting a video for one profile; `job` is "" if there is none.

    `result` is queue (now), join (queued before), done, collect (not yet in place), skip, refuse,
    failed, unreadable, or on AWS the job's state. `reason` says why.
    """

    profile: str
    result: str
    job: str = ""
    reason: str = ""


def submit_path(app: App, text: str, profiles: Sequence[str]) -> list[Submitted]:
    """Queue a file of a library by its rules, for these of its profiles (none: all).

    An existing job stays as it is. Only renditions that the library itself would make are queued, so
    that the library's service puts them in place. Raises UsageError for a path outside of the
    libraries, NoSuchVideo, UnknownProfile, ConfigError.
    """
    if "\0" in text or encodable(text) != text or not text.startswith("/"):
        raise UsageError("The path must be a whole one, from / on.")
    named = Path(os.path.abspath(text))  # noqa: PTH100 - links are kept
    real = Path(os.path.realpath(named))
    library = library_of(app.settings.libraries, named)
    if library is None or not real.is_relative_to(library.place_on_disk):
        raise UsageError(
            f"{printable(text)} is in no library of this machine.",
            remedy="Add its folder as a library; paths are those that this machine sees.",
        )
    if not real.is_file():
        raise NoSuchVideo(f"There is no file {printable(text)}.")
    request = _file_request(library, real)
    default = app.settings.ingest.profiles
    offered = [profile.name for profile in request.chosen_profiles(app.profiles, default)]
    if other := [name for name in profiles if name not in offered]:
        raise UsageError(
            f"The library {library.name} does not make {other[0]}, only {', '.join(offered)}.",
            remedy="Add it to the library's profiles.",
        )
    if profiles:
        chosen = library.model_copy(update={"profiles": tuple(profiles)})
        request = replace(request, library=chosen)
    queued: dict[str, str] = {}

    def remember_job(event: IngestEvent) -> None:
        if event.event is EventName.JOB_QUEUED and event.profile and event.job:
            queued[event.profile] = event.job

    ingest = IngestApplication(app, [request], remember_job, StopSignals())
    with ingest.lock():
        items = ingest.plan().items
        ingest.work(items)
    return [_submitted(item, queued) for item in items]


def _file_request(library: Library, real: Path) -> IngestRequest:
    """Return the request for one file; in a mirror its output is the folder of that name there."""
    request = replace(library_request(library, no_wait=True), roots=(real,), include=())
    if request.output is None:
        return request
    return replace(request, output=request.output / real.parent.relative_to(library.place_on_disk))


def _submitted(item: Item, queued: dict[str, str]) -> Submitted:
    profile = item.profile.name if item.profile is not None else ""
    job, result = item.job_id or queued.get(profile, ""), item.disposition.value
    if item.disposition is Disposition.QUEUE and not job:
        result = Disposition.FAILED.value
    return Submitted(profile, result, job, item.reason)


def submit_key(app: App, key: str, profiles: Sequence[str]) -> list[Submitted]:
    """Queue the newest version of an object of the input bucket for these profiles, or the subscribed ones.

    Raises UsageError, NoSuchVideo, UnknownProfile.
    """
    if not app.settings.on_aws:
        raise UsageError("A key names an object in S3, and this farm is not on AWS; send a path.")
    source = next((each for each in app.backend.store.sources(key) if each.key == key), None)
    if source is None:
        raise NoSuchVideo(f"There is no object {printable(key)} in the input bucket.")
    chosen = profiles or [name for name, each in app.profiles.items() if each.subscribe]
    jobs = app.backend.task_publisher.publish(source, list(chosen), announced=False)
    return [Submitted(job.profile, job.state.value, job.job_id, job.reason) for job in jobs]
