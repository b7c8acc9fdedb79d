"""An ingest as one application, with workers beside it and an orderly stop; submitting one video."""

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
from hevcq.usecases.ingest.decide import (
    NOT_INGESTED,
    TO_PROCESS,
    Disposition,
    IngestPlan,
    Item,
)
from hevcq.usecases.ingest.forecast import total
from hevcq.usecases.ingest.library_rules import hand_out, listed, most_queued
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
"""Seconds between looks whether the first video is queued."""
PAUSE_EVERY_S = 1.0
"""Seconds between looks whether work is held back; on AWS each is a read of the ledger."""
FLEET_PAUSE_EVERY_S = 30.0
FLEET_POLL_S = 3.0
"""Seconds between reads of a fleet's ledger: each costs read units, and jobs take minutes."""


class IngestApplication:
    """Runs ingest requests on an opened app, in either way of running.

    Call `recover`, `plan` and `work` in this order, or `recover` and `collect_finished`. Events go
    to `emit`; `summary` counts what became of each job. `signals.asked` stops it in order, and
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
            FolderIngest(app, each, emit, signals.asked, self.summary) for each in requests
        ]
        for profile in () if app.settings.on_aws else self._profiles:
            app.encoder.require_metric(profile)
        self._no_wait = any(each.no_wait for each in requests)
        self._wake = threading.Event()
        self._workers: WorkerPool | None = None
        self._paused, self._next_look = "", app.clock.monotonic()

    @property
    def _profiles(self) -> list[Profile]:
        return list({each.name: each for one in self._folders for each in one.profiles}.values())

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep hevcq with another data folder out of these libraries.

        Raises Unavailable if there is one already.
        """
        with ExitStack() as held:
            for folder in self._folders:
                folder.hold(held)
            yield

    def recover(self) -> None:
        for folder in self._folders:
            folder.recover()

    def plan(self) -> IngestPlan:
        """Return what there is to do with what a scan finds.

        Starts listening to the folders if they are to be watched. Raises Stopped if asked to stop.
        """
        plans = [folder.plan() for folder in self._folders]
        if len(plans) == 1:
            return plans[0]
        outputs = [each.output for each in plans if each.output is not None]
        return IngestPlan(
            items=tuple(item for each in plans for item in each.items),
            forecast=total(each.forecast for each in plans),
            cpu=total(each.cpu for each in plans),
            output=total(outputs) if outputs else None,
            sampled=sum(each.sampled for each in plans),
        )

    def only_news(self, plan: IngestPlan, *, quiet: bool) -> IngestPlan:
        """Record what cannot be encoded. If `quiet`, return the plan with old failures as skipped.

        Old is what failed in an earlier run, or was refused by one within a week.
        """
        new = {id(item) for item in self._folders[0].note_unusable(plan)}
        if not quiet:
            return plan
        items = [
            replace(item, disposition=Disposition.SKIP)
            if item.disposition in NOT_INGESTED and id(item) not in new
            else item
            for item in plan.items
        ]
        return replace(plan, items=tuple(items))

    def work(self, items: Sequence[Item]) -> None:
        """Queue what was planned, the `items`, and follow it to its end, or until asked to stop.

        Raises what ended the intake or the workers before their time, after all has stopped.
        """
        feeds = [each.feed for each in self._folders if each.feed is not None]
        try:
            self._start(items)
            while self._step():
                if feeds:
                    self._app.processes.tell(waiting=listed(feeds))
                self._app.clock.wait(self._wake, self._poll_s())
                self._wake.clear()
        finally:
            self._app.processes.tell(waiting=[])
            self._end()

    def collect_finished(self) -> None:
        for folder in self._folders:
            folder.session.collect_finished(self._signals.asked)
        self.summary.interrupted = self._signals.asked.is_set()

    def _poll_s(self) -> float:
        return FLEET_POLL_S if self._app.settings.on_aws else LOCAL_POLL_S

    def _start(self, items: Sequence[Item]) -> None:
        """Queue the items in the background, and start workers where they belong."""
        self._require_cap()
        for folder in self._folders:
            folder.start()
        watch = any(folder.request.watch for folder in self._folders)
        live = any(item.disposition in TO_PROCESS for item in items)
        if not self._app.settings.on_aws and not self._no_wait and (live or watch):
            names = [profile.name for profile in self._profiles]
            self._workers = build_pool(self._app, names, on_event=self._worker_event)
            self._await_first()
            self._workers.start()

    def _await_first(self) -> None:
        """Wait a second for a first queued item, or the workers would begin with what others left."""
        sessions = [folder.session for folder in self._folders]
        for _ in range(round(1 / FIRST_POLL_S)):
            if any(each.tracker.open for each in sessions) or not any(
                each.enqueuer.busy for each in sessions
            ):
                return
            self._app.clock.wait(self._signals.asked, FIRST_POLL_S)

    def _step(self) -> bool:
        if self._signals.asked.is_set():
            return False
        if self._workers is not None and not self._workers.step():
            return False
        self._require_cap()
        hand_out_to(self._folders, self._app, no_wait=self._no_wait)
        if not self._no_wait:
            self._report_pause()
        still_open = [folder.step() for folder in self._folders]
        self._require_fit()
        return any(still_open)

    def _require_cap(self) -> None:
        if self._app.settings.on_aws:  # elsewhere the workers look
            self._app.daily_cap.require()

    def _require_fit(self) -> None:
        """Raise WorkerUnfit if nothing is left but what ffmpeg cannot make here; it stays queued."""
        if self._workers is None or any(folder.request.watch for folder in self._folders):
            return
        sessions = [folder.session for folder in self._folders]
        left = set[str]().union(*(each.tracker.profiles for each in sessions))
        problems = [self._workers.why_unfit(name) for name in left]
        if problems and all(problems) and not any(each.enqueuer.busy for each in sessions):
            raise WorkerUnfit(" ".join(problems))

    def _why_paused(self) -> str:
        names = [profile.name for profile in self._profiles]
        if self._workers is not None:
            reasons = [self._workers.why_paused(name) for name in names]
        else:
            now = self._app.clock.now()
            shut = why_closed(self._app.backend.ledger, names, self._app.hours, now)
            reasons = [each.reason for each in shut for _ in each.profiles]
        every = len(reasons) == len(names) and all(reasons)
        return " ".join(dict.fromkeys(reasons)) if every else ""

    def _report_pause(self) -> None:
        """Say that work is held back, or that it goes on; look now and then."""
        now = self._app.clock.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + (
            FLEET_PAUSE_EVERY_S if self._app.settings.on_aws else PAUSE_EVERY_S
        )
        reason = self._why_paused()
        if reason != self._paused:
            self._paused = reason
            name = EventName.PAUSED if reason else EventName.RESUMED
            self._say(name, reason.removeprefix("Paused ") or "Resumed.")  # shown behind "Paused: "

    def _say(self, name: EventName, words: str) -> None:
        self._emit(IngestEvent(event=name, at=self._app.clock.now(), reason=words))

    def _end(self) -> None:
        """Stop everything in order, collect finished jobs, count the rest."""
        asked = self._signals.asked.is_set()
        try:
            if asked:
                self._emit_stopping()
        finally:  # also if emitting fails, work returns to its queue
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

    def _worker_event(self, event: JobEvent) -> None:
        if event.kind is EventName.JOB_PROGRESS and event.progress is not None:
            # A chunk's progress is not its video's, which the ledger adds up.
            for folder in () if event.part else self._folders:
                folder.session.tracker.note(event.job_id, event.progress)
        else:
            self._wake.set()

    def _emit_waiting(self) -> None:
        words = "Done here. An encode of another folder is finishing; Ctrl-C stops it."
        self._say(EventName.STOPPING, words)

    def _emit_stopping(self) -> None:
        grace = self._app.settings.stop_grace_s
        words = f"Stopping: encodes get {grace:.0f} s to finish. Ctrl-C again to stop now."
        if not any(folder.session.tracker.open for folder in self._folders):
            words = "Stopping."
        self._say(EventName.STOPPING, words)


def hand_out_to(folders: Sequence[FolderIngest], app: App, *, no_wait: bool) -> None:
    """Queue the next items of libraries, as far as there is room; all of them with `no_wait`."""
    feeding = {id(each.feed): each for each in folders if each.feed is not None}
    if not feeding:
        return
    feeds = [each.feed for each in feeding.values() if each.feed is not None]
    most = most_queued(app.capacity.slots if not app.settings.on_aws else None)
    ahead = sum(one.session.enqueuer.left + one.session.tracker.open for one in folders)
    room = sum(each.waiting for each in feeds)
    for feed, items in hand_out(feeds, room if no_wait else min(room, most - ahead)):
        feeding[id(feed)].session.queue(items)
    for folder in feeding.values():
        folder.leave_what_may_not_begin()


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a video for one profile; `job` is "" where there is none.

    `result`: queue (now), join (queued before), done, collect (not yet in place), skip, refuse, failed,
    unreadable, or on AWS the job's state. `reason` says why.
    """

    profile: str
    result: str
    job: str = ""
    reason: str = ""


def submit_path(app: App, text: str, profiles: Sequence[str]) -> list[Submitted]:
    """Queue a file of a library by its rules, for these of its profiles (none: all); a job stays as it is.

    Only what the library itself would make is queued, so that whoever looks after it puts it in place.
    Raises UsageError for a path outside of the libraries, NoSuchVideo, UnknownProfile, ConfigError.
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
    usual = app.settings.ingest.profiles
    offered = [each.name for each in request.chosen_profiles(app.profiles, usual)]
    if other := [name for name in profiles if name not in offered]:
        raise UsageError(
            f"The library {library.name} does not make {other[0]}, only {', '.join(offered)}.",
            remedy="Add it to the library's profiles.",
        )
    if profiles:
        chosen = library.model_copy(update={"profiles": tuple(profiles)})
        request = replace(request, library=chosen)
    queued: dict[str, str] = {}

    def note(event: IngestEvent) -> None:
        if event.event is EventName.JOB_QUEUED and event.profile and event.job:
            queued[event.profile] = event.job

    ingest = IngestApplication(app, [request], note, StopSignals())
    with ingest.in_use():
        items = ingest.plan().items
        ingest.work(items)
    return [_submitted(item, queued) for item in items]


def _file_request(library: Library, real: Path) -> IngestRequest:
    """Return the request for one file: of a mirror, its own folder there."""
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
    found = (each for each in app.backend.store.sources(key) if each.key == key)
    source = next(found, None)
    if source is None:
        raise NoSuchVideo(f"There is no object {printable(key)} in the input bucket.")
    wanted = profiles or [name for name, each in app.profiles.items() if each.subscribe]
    jobs = app.backend.task_publisher.publish(source, list(wanted), announced=False)
    return [Submitted(job.profile, job.state.value, job.job_id, job.reason) for job in jobs]
