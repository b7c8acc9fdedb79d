"""The service of this machine: watch the libraries, run workers, reload the settings on request.

One thread steps everything: the workers' pool, each library's session and watch, and the signs of
life for systemd. The first scan of a library takes long, and calls back several times a second, so
that finished encodes are put in place and a stop is noticed meanwhile.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial

from hevcq.domain.events import EventName, IngestEvent, JobEvent, Listener
from hevcq.domain.profile import Profile
from hevcq.errors import ConfigError, HevcqError, Stopped, Unavailable
from hevcq.running.folder import FolderIngest
from hevcq.running.ingest import FLEET_POLL_S, LOCAL_POLL_S, queue_next_items
from hevcq.settings.libraries import Library, SyncSettings
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import read_profiles
from hevcq.usecases.context import FolderState, folder_state, hold_lock_file
from hevcq.usecases.ingest.library_rules import waiting_rows
from hevcq.usecases.ingest.request import library_request
from hevcq.usecases.ingest.track import IngestSummary
from hevcq.usecases.sync.session import Synced, SyncSession, pause_s
from hevcq.util.log import get_logger
from hevcq.util.signals import Notifier, StopSignals
from hevcq.util.text import printable
from hevcq.wiring.app import App
from hevcq.wiring.contexts import open_sync
from hevcq.wiring.worker import build_pool, facts_of
from hevcq.worker.pool import WorkerPool
from hevcq.worker.slot import SlotOutcome

FOLDER_CHECK_S = 60.0
"""Seconds between checks whether each library's folder exists and is on the same mount."""
SYNC_ENDS_S = 10.0
"""Seconds that a sync gets to notice the stop; the next start continues it."""
PAGE_ENDS_S = 15.0
"""Seconds that the page gets to end its requests when the service stops."""
RELOADED = frozenset({"libraries", "ingest", "sync", "schedule"})
"""Settings that a reload changes; the others are in use by open files and running encodes."""
OF_THE_PAGE = frozenset({"web", "uploads"})


@dataclass(slots=True)
class Opened:
    """An open library; `identity` is its folder's when it was opened."""

    library: Library
    identity: tuple[str, int, int]
    folder: FolderIngest
    summary: IngestSummary
    locks: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where the service reports: `emit` gets each event, `echo` a line for a person, `notifier` is systemd.

    `page` says whether this process serves the page too.
    """

    emit: Listener
    echo: Callable[[str], None]
    notifier: Notifier
    page: bool = False


class Service:
    """Runs until `signals.asked`. When `reload` is set, it reads the settings again by `load`."""

    def __init__(
        self,
        app: App,
        signals: StopSignals,
        outlets: Outlets,
        reload: threading.Event,
        load: Callable[[], Settings],
    ) -> None:
        self._app, self._signals, self._outlets = app, signals, outlets
        self._reload, self._load = reload, load
        self._opened: dict[str, Opened] = {}
        self._reported: dict[str, str] = {}
        self._wake, self._next_folder_check = threading.Event(), 0.0
        self._stepping = False
        self._loaded, self._stamp = app.settings, app.settings_file.stamp()
        self._workers: WorkerPool | None = None
        self._profiles: Mapping[str, Profile] = {}

    def run(self) -> None:
        """Work until asked to stop.

        Raises Unavailable if a service is at work with this data folder already, ConfigError for
        libraries that are not possible, WorkerUnfit if nothing can be encoded here, and the error that
        ended the workers early.
        """
        data_dir = self._app.settings.data_dir
        busy = Unavailable(
            f"A hevcq service is at work with the data folder {printable(data_dir)} already.",
            remedy="Stop it first, or use another data folder.",
        )
        with hold_lock_file(data_dir / "service.lock", busy):
            self._run()

    def _run(self) -> None:
        self._require_profiles(self._app.settings.libraries, self._app.profiles)
        self._profiles = dict(self._app.profiles)
        self._app.encoder.version()
        _ = self._app.backend, self._app.catalog  # opened before there is another thread
        if not self._app.settings.on_aws:
            self._workers = build_pool(self._app, on_event=self._on_worker_event, measured=True)
            self._workers.start()
        syncs = SyncThread(self._app, self._outlets.echo, self._signals.asked)
        syncs.start()
        self._outlets.notifier.ready()
        poll_s = FLEET_POLL_S if self._app.settings.on_aws else LOCAL_POLL_S
        try:
            while self._may_go_on():
                self._step()
                self._app.clock.wait(self._wake, poll_s)
                self._wake.clear()
        except Stopped:
            pass  # asked to stop in a scan
        finally:
            self._end()
            syncs.join(SYNC_ENDS_S)

    def shows(self, line: Mapping[str, object]) -> bool:
        """Return whether a line of the log repeats an event that a library's display shows."""
        job = str(line.get("job", ""))
        if line.get("event") not in {EventName.JOB_BURIED.value, EventName.JOB_RETRY.value}:
            return False
        return any(each.folder.session.tracker.follows(job) for each in [*self._opened.values()])

    def _may_go_on(self) -> bool:
        """Give systemd a sign of life and step the workers; return False after a stop, or if they ended."""
        self._outlets.notifier.alive()
        if self._signals.asked.is_set():
            return False
        return self._workers is None or self._workers.step()

    def _step(self) -> None:
        if (stamp := self._app.settings_file.stamp()) != self._stamp:
            self._stamp = stamp
            self._reload.set()
        if self._reload.is_set():
            self._reload.clear()
            self._reload_settings()
        if self._app.clock.monotonic() >= self._next_folder_check:
            self._next_folder_check = self._app.clock.monotonic() + FOLDER_CHECK_S
            self._open_and_close()
        self._step_libraries()

    def _step_libraries(self) -> None:
        self._stepping = True
        try:
            folders = [each.folder for each in self._opened.values()]
            queue_next_items(folders, self._app, no_wait=False)
            for each in list(self._opened.values()):
                each.folder.step()
                each.summary.results.clear()  # reported as events; the list would grow for years
        finally:
            self._stepping = False
        feeds = [folder.feed for folder in folders if folder.feed is not None]
        self._app.processes.tell(waiting=waiting_rows(feeds))
        waiting = sum(feed.waiting for feed in feeds)
        working = sum(folder.session.tracker.open for folder in folders)
        libraries = "1 library" if len(folders) == 1 else f"{len(folders)} libraries"
        self._outlets.notifier.status(
            f"{libraries}; {working} queued or encoding, {waiting} waiting."
        )

    def _on_event(self, event: IngestEvent) -> None:
        self._outlets.emit(event)
        if event.event is EventName.SCAN_PROGRESS and self._may_go_on() and not self._stepping:
            self._step_libraries()

    def _on_worker_event(self, event: JobEvent) -> None:
        if event.kind is not EventName.JOB_PROGRESS:
            self._wake.set()

    def _open_and_close(self) -> None:
        """Open the watched libraries whose folder exists; reopen one whose folder is on another mount."""
        watched = {each.name: each for each in self._app.settings.libraries if each.watch}
        for each in list(self._opened.values()):
            library = watched.get(each.library.name)
            if library != each.library or folder_state(library).identity != each.identity:
                self._close(each)
        for name, library in watched.items():
            if name not in self._opened and self._may_go_on():
                self._try_to_open(library)

    def _try_to_open(self, library: Library) -> None:
        state = folder_state(library)
        try:
            if state.problem:
                raise ConfigError(state.problem)
            self._open(library, state)
        except Stopped:
            raise
        except HevcqError as error:
            if self._reported.get(library.name) != str(error):
                self._reported[library.name] = str(error)
                self._warn(f"Library {printable(library.name)} cannot be watched now: {error}")
        else:
            self._reported.pop(library.name, None)

    def _open(self, library: Library, state: FolderState) -> None:
        summary = IngestSummary()
        request = library_request(library, watch=True)
        folder = FolderIngest(self._app, request, self._on_event, self._signals.asked, summary)
        opened = Opened(library, state.identity, folder, summary)
        try:
            folder.lock(opened.locks)
            folder.recover()
            plan = folder.plan()
            folder.start()
        except BaseException:
            folder.end()
            opened.locks.close()
            raise
        self._opened[library.name] = opened
        folder.report_unusable(plan, once=True)
        counts = {kind.value: count for kind, count in plan.counts().items()}
        get_logger().info("library_opened", library=library.name, mount=state.file_system, **counts)

    def _close(self, each: Opened) -> None:
        """Close a library; its jobs stay queued, and whoever opens it again follows them."""
        self._opened.pop(each.library.name, None)
        each.folder.end()
        each.locks.close()

    def _require_profiles(
        self, libraries: tuple[Library, ...], profiles: Mapping[str, Profile]
    ) -> None:
        """Raise the error of the first library whose profiles cannot be used."""
        default = self._app.settings.ingest.profiles
        for library in libraries:
            library_request(library).chosen_profiles(profiles, default)

    def _reload_settings(self) -> None:
        self._outlets.notifier.reloading()
        old = self._loaded  # not the app's, which this process's page may have changed already
        try:
            with self._app.settings_file.locked():
                new, profiles = self._load(), read_profiles(self._app.settings)
            self._require_profiles(new.libraries, {**self._app.profiles, **profiles})
        except HevcqError as error:
            self._warn(f"The settings stay as they were: {error}")
        else:
            # A person who sets hevcq up at the page changes the sign-in there at once.
            old = old.model_copy(update={"web": self._app.settings.web})
            ignored = RELOADED if self._outlets.page else RELOADED | OF_THE_PAGE
            fixed = [name for name in Settings.model_fields if name not in ignored]
            later = [name for name in fixed if getattr(old, name) != getattr(new, name)]
            self._app.adopt_settings(new, RELOADED)
            self._loaded = old.model_copy(update={n: getattr(new, n) for n in RELOADED})
            later += self._adopt_profiles(profiles, reopen=old.schedule != new.schedule)
            self._open_and_close()
            names = [each.name for each in new.libraries]
            self._outlets.echo(f"Settings read again; libraries: {', '.join(names) or 'none'}.")
            if later:
                self._warn(f"Changed too, but used only from the next start: {', '.join(later)}.")
        self._outlets.notifier.ready()

    def _adopt_profiles(self, profiles: Mapping[str, Profile], *, reopen: bool) -> list[str]:
        """Use changed profiles; return which need a restart. Reopens libraries if any changed, or if `reopen`."""
        _, later = self._app.adopt_profiles(profiles)
        before = self._profiles
        self._profiles = dict(
            self._app.profiles
        )  # this process's page may have adopted some already
        adopted = [name for name, each in self._profiles.items() if each != before.get(name)]
        if adopted:
            self._outlets.echo(
                f"Profiles read again: {', '.join(sorted(adopted))}; running encodes keep theirs."
            )
            if self._workers is not None:
                self._workers.change_profiles(self._profiles, self._app.worker_backend.queues)
        if adopted or reopen:
            for each in list(self._opened.values()):
                self._close(each)
        return [f"profile {name}" for name in later]

    def _warn(self, words: str) -> None:
        if self._app.settings.log_style == "json":
            get_logger().warning("service", message=words)
        self._outlets.echo(words)

    def _end(self) -> None:
        """Stop watching, let encodes end within the grace period, and put finished renditions in place."""
        self._outlets.notifier.stopping()
        self._signals.asked.set()
        self._app.processes.tell(waiting=[])
        for each in self._opened.values():
            each.folder.end()
        error = None
        if self._workers is not None:
            error = self._workers.stop(self._signals.insisted, self._wake)
        for each in self._opened.values():
            if not self._signals.insisted.is_set():
                each.folder.session.tracker.step(self._signals.insisted)
            each.locks.close()
        self._opened.clear()
        if error is not None:
            raise error


SHOWN = frozenset({"moved", "copied", "failed", "refused"})
"""The fates of files that a service echoes. The others mean that a file waits or was known before."""


class SyncThread:
    """Runs the syncs that are due until `stop`, by the settings in force at each round.

    A sync that cannot run is reported once and tried again, and stops no other sync.
    """

    def __init__(self, app: App, echo: Callable[[str], None], stop: threading.Event) -> None:
        self._app, self._echo, self._stop = app, echo, stop
        self._last_problems: dict[str, str] = {}
        self._echoed: set[str] = set()
        self._reported_files: set[tuple[str, str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="hevcq-syncs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """After `stop`, wait at most so many seconds for the thread; the next start continues its work."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._app.clock.wait(self._stop, self._run_due())

    def _run_due(self) -> float:
        """Run the syncs that may run now; return the seconds until the next round."""
        syncs = self._app.settings.sync
        for sync in syncs:
            if self._may_run(sync) and not self._stop.is_set():
                self._try_sync(sync)
        return pause_s(sync.settle for sync in syncs)

    def _may_run(self, sync: SyncSettings) -> bool:
        return sync.may_run(self._app.clock.now(), self._app.settings.schedule.timezone)

    def _try_sync(self, sync: SyncSettings) -> None:
        """Run one sync; echo its error instead of raising it, which nobody else would notice."""
        name, problem = f"Sync {printable(sync.name)}", ""
        try:
            self._sync(sync)
        except Stopped:
            return
        except HevcqError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - the thread must live on
            problem = f"this is a bug: {type(error).__name__}: {error}"
        if problem and self._last_problems.get(name) != problem:
            self._echo(f"{name}: {problem}")
        self._last_problems[name] = problem

    def _sync(self, sync: SyncSettings) -> None:
        with open_sync(self._app, sync, self._stop) as ports:
            session = SyncSession(ports, sync, self._on_file, self._echo_once)
            session.reported, session.may_go_on = self._reported_files, partial(self._may_run, sync)
            session.run()

    def _echo_once(self, words: str) -> None:
        if words not in self._echoed:
            self._echoed.add(words)
            self._echo(words)

    def _on_file(self, each: Synced) -> None:
        if each.fate.value in SHOWN:
            where = "" if each.target is None else f" → {printable(each.target)}"
            why = f" ({printable(each.reason)})" if each.reason else ""
            self._echo(f"{each.fate.value} {printable(each.path)}{where}{why}")


def run_pool(
    pool: WorkerPool, app: App, signals: StopSignals, *, drain: Sequence[str] = ()
) -> None:
    """Run a pool until a stop signal, or until the queues of the profiles `drain` are empty.

    Raises the error that ended the pool, or HevcqError if it stopped without one.
    """
    queues = [app.worker_backend.queues[name] for name in drain]

    def is_drained() -> bool:
        return bool(queues) and all(queue.depth().empty for queue in queues) and pool.idle

    if pool.run(signals, is_drained) is not SlotOutcome.STOPPED:
        error = pool.error or HevcqError("The worker ended by itself.")
        _record_end(app, error)
        raise error


def _record_end(app: App, error: BaseException) -> None:
    """Record in the list of machines why this one cannot work."""
    backend, facts = app.worker_backend, facts_of(app)
    if backend.machines is not None:
        with suppress(HevcqError):
            reason = {"waits": (str(error),), "slots": 0}
            backend.machines.leave(backend.owner, facts.model_copy(update=reason))
