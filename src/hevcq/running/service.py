"""The service of this machine: watch the libraries, run workers, read the settings again on request.

One thread steps everything: the workers' pool, each library's session and watch, and the signs of
life for systemd. What takes long (the first scan of a library) calls back several times a second, so
finished encodes are put in place and a stop is heard meanwhile too.
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
from hevcq.running.ingest import FLEET_POLL_S, LOCAL_POLL_S, hand_out_to
from hevcq.settings.libraries import Library, SyncSettings
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import read_profiles
from hevcq.usecases.context import FolderState, alone, folder_state
from hevcq.usecases.ingest.library_rules import listed
from hevcq.usecases.ingest.request import library_request
from hevcq.usecases.ingest.track import IngestSummary
from hevcq.usecases.sync.session import Synced, SyncSession, pause_s
from hevcq.util.log import get_logger
from hevcq.util.signals import Notifier, StopSignals
from hevcq.util.text import printable
from hevcq.wiring.app import App
from hevcq.wiring.contexts import opened
from hevcq.wiring.worker import build_pool, facts_of
from hevcq.worker.pool import WorkerPool
from hevcq.worker.slot import SlotOutcome

LOOK_S = 60.0
"""Seconds between looks whether a library's folder is there and on the same mount."""
SYNC_ENDS_S = 10.0
"""Seconds that a sync gets to notice the stop; it goes on there next time."""
PAGE_ENDS_S = 15.0
"""Seconds that the page gets to end its requests when the service stops."""
LIVE = frozenset({"libraries", "ingest", "sync", "schedule"})
"""Settings that a reload changes; the others are in use by open files and running encodes."""
OF_THE_PAGE = frozenset({"web", "uploads"})


@dataclass(slots=True)
class Opened:
    """A library at work; `identity` is that of its folder when it was opened."""

    library: Library
    identity: tuple[str, int, int]
    folder: FolderIngest
    summary: IngestSummary
    held: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where the service reports: `emit` gets each event, `echo` a line for a person, `notifier` is systemd.

    `page`: this process serves the page, too.
    """

    emit: Listener
    echo: Callable[[str], None]
    notifier: Notifier
    page: bool = False


class Service:
    """Runs until `signals.asked`. `load` reads the settings again when `reload` is set."""

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
        self._wake, self._next_look = threading.Event(), 0.0
        self._tending = False
        self._read, self._stamp = app.settings, app.settings_file.stamp()
        self._workers: WorkerPool | None = None
        self._profiles: Mapping[str, Profile] = {}

    def run(self) -> None:
        """Work until asked to stop.

        Raises Unavailable if a service is at work with this data folder already, ConfigError for
        libraries that cannot be, WorkerUnfit if nothing can be encoded here, and what ended the
        workers before their time.
        """
        data_dir = self._app.settings.data_dir
        busy = Unavailable(
            f"A hevcq service is at work with the data folder {printable(data_dir)} already.",
            remedy="Stop it first, or use another data folder.",
        )
        with alone(data_dir / "service.lock", busy):
            self._run()

    def _run(self) -> None:
        self._require_sound(self._app.settings.libraries, self._app.profiles)
        self._profiles = dict(self._app.profiles)
        self._app.encoder.version()
        _ = self._app.backend, self._app.catalog  # opened by one thread
        if not self._app.settings.on_aws:
            self._workers = build_pool(self._app, on_event=self._worker_event, measured=True)
            self._workers.start()
        syncs = SyncThread(self._app, self._outlets.echo, self._signals.asked)
        syncs.start()
        self._outlets.notifier.ready()
        poll_s = FLEET_POLL_S if self._app.settings.on_aws else LOCAL_POLL_S
        try:
            while self._alive():
                self._look_after()
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

    def _alive(self) -> bool:
        self._outlets.notifier.alive()
        if self._signals.asked.is_set():
            return False
        return self._workers is None or self._workers.step()

    def _look_after(self) -> None:
        if (stamp := self._app.settings_file.stamp()) != self._stamp:
            self._stamp = stamp
            self._reload.set()
        if self._reload.is_set():
            self._reload.clear()
            self._read_again()
        if self._app.clock.monotonic() >= self._next_look:
            self._next_look = self._app.clock.monotonic() + LOOK_S
            self._open_and_close()
        self._tend()

    def _tend(self) -> None:
        self._tending = True
        try:
            folders = [each.folder for each in self._opened.values()]
            hand_out_to(folders, self._app, no_wait=False)
            for each in list(self._opened.values()):
                each.folder.step()
                each.summary.results.clear()  # reported as events; it would grow for years
        finally:
            self._tending = False
        feeds = [each.feed for each in folders if each.feed is not None]
        self._app.processes.tell(waiting=listed(feeds))
        waiting = sum(each.waiting for each in feeds)
        working = sum(each.session.tracker.open for each in folders)
        libraries = "1 library" if len(folders) == 1 else f"{len(folders)} libraries"
        self._outlets.notifier.status(
            f"{libraries}; {working} queued or encoding, {waiting} waiting."
        )

    def _on_event(self, event: IngestEvent) -> None:
        self._outlets.emit(event)
        if event.event is EventName.SCAN_PROGRESS and self._alive() and not self._tending:
            self._tend()

    def _worker_event(self, event: JobEvent) -> None:
        if event.kind is not EventName.JOB_PROGRESS:
            self._wake.set()

    def _open_and_close(self) -> None:
        """Open libraries that are there, and open those anew whose folder is on another mount."""
        wanted = {each.name: each for each in self._app.settings.libraries if each.watch}
        for each in list(self._opened.values()):
            library = wanted.get(each.library.name)
            if library != each.library or folder_state(library).identity != each.identity:
                self._close(each)
        for name, library in wanted.items():
            if name not in self._opened and self._alive():
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
                self._warn(f"Library {printable(library.name)} is not looked after now: {error}")
        else:
            self._reported.pop(library.name, None)

    def _open(self, library: Library, state: FolderState) -> None:
        summary = IngestSummary()
        request = library_request(library, watch=True)
        folder = FolderIngest(self._app, request, self._on_event, self._signals.asked, summary)
        opened = Opened(library, state.identity, folder, summary)
        try:
            folder.hold(opened.held)
            folder.recover()
            plan = folder.plan()
            folder.start()
        except BaseException:
            folder.end()
            opened.held.close()
            raise
        self._opened[library.name] = opened
        folder.report_unusable(plan, once=True)
        counts = {kind.value: count for kind, count in plan.counts().items()}
        get_logger().info("library_opened", library=library.name, mount=state.file_system, **counts)

    def _close(self, each: Opened) -> None:
        """Let a library go; its jobs stay queued, and whoever opens it again follows them."""
        self._opened.pop(each.library.name, None)
        each.folder.end()
        each.held.close()

    def _require_sound(
        self, libraries: tuple[Library, ...], profiles: Mapping[str, Profile]
    ) -> None:
        usual = self._app.settings.ingest.profiles
        for each in libraries:
            library_request(each).chosen_profiles(profiles, usual)

    def _read_again(self) -> None:
        self._outlets.notifier.reloading()
        old = self._read  # the page of this process may have adopted the new ones already
        try:
            with self._app.settings_file.locked():
                new, profiles = self._load(), read_profiles(self._app.settings)
            self._require_sound(new.libraries, {**self._app.profiles, **profiles})
        except HevcqError as error:
            self._warn(f"The settings stay as they were: {error}")
        else:
            # Who sets hevcq up at the page changes how people sign in there, at once.
            old = old.model_copy(update={"web": self._app.settings.web})
            others = LIVE if self._outlets.page else LIVE | OF_THE_PAGE
            fixed = [name for name in Settings.model_fields if name not in others]
            later = [name for name in fixed if getattr(old, name) != getattr(new, name)]
            self._app.adopt_settings(new, LIVE)
            self._read = old.model_copy(update={n: getattr(new, n) for n in LIVE})
            later += self._adopt_profiles(profiles, anew=old.schedule != new.schedule)
            self._open_and_close()
            names = [each.name for each in new.libraries]
            self._outlets.echo(f"Settings read again; libraries: {', '.join(names) or 'none'}.")
            if later:
                self._warn(f"Changed too, but used only from the next start: {', '.join(later)}.")
        self._outlets.notifier.ready()

    def _adopt_profiles(self, found: Mapping[str, Profile], *, anew: bool) -> list[str]:
        """Use changed profiles; return what needs a new start. Libraries then open anew, or if `anew`."""
        _, later = self._app.adopt_profiles(found)
        known = self._profiles
        self._profiles = dict(self._app.profiles)  # its page may have been first
        adopted = [name for name, each in self._profiles.items() if each != known.get(name)]
        if adopted:
            self._outlets.echo(
                f"Profiles read again: {', '.join(sorted(adopted))}; running encodes keep theirs."
            )
            if self._workers is not None:
                self._workers.change_profiles(self._profiles, self._app.worker_backend.queues)
        if adopted or anew:
            for each in list(self._opened.values()):
                self._close(each)
        return [f"profile {name}" for name in later]

    def _warn(self, words: str) -> None:
        if self._app.settings.log_style == "json":
            get_logger().warning("service", message=words)
        self._outlets.echo(words)

    def _end(self) -> None:
        """Stop watching, let encodes end within the grace, and put what is finished in place."""
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
            each.held.close()
        self._opened.clear()
        if error is not None:
            raise error


SHOWN = frozenset({"moved", "copied", "failed", "refused"})
"""What a person wants to read of a service's syncs; the rest is what waits or is known already."""


class SyncThread:
    """Runs the syncs that are due, again and again until `stop`; the settings are read anew each time.

    What cannot run is reported once and tried again, and keeps nothing else from running.
    """

    def __init__(self, app: App, echo: Callable[[str], None], stop: threading.Event) -> None:
        self._app, self._echo, self._stop = app, echo, stop
        self._complained: dict[str, str] = {}
        self._noticed: set[str] = set()
        self._repeated: set[tuple[str, str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="hevcq-syncs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended after `stop`, at most so long; the next start goes on."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._app.clock.wait(self._stop, self._look())

    def _attempt(self, what: str, act: Callable[[], None]) -> None:
        """Do one thing; must not raise, as nobody else would hear of it."""
        try:
            act()
        except Stopped:
            return
        except HevcqError as error:
            words = str(error)
        except Exception as error:  # noqa: BLE001 - the thread must live on
            words = f"this is a bug: {type(error).__name__}: {error}"
        else:
            words = ""
        if words and self._complained.get(what) != words:
            self._echo(f"{what}: {words}")
        self._complained[what] = words

    def _look(self) -> float:
        wanted = self._app.settings.sync
        for each in wanted:
            if self._may_run(each) and not self._stop.is_set():
                self._attempt(f"Sync {printable(each.name)}", partial(self._sync, each))
        return pause_s(each.settle for each in wanted)

    def _may_run(self, sync: SyncSettings) -> bool:
        return sync.may_run(self._app.clock.now(), self._app.settings.schedule.timezone)

    def _sync(self, sync: SyncSettings) -> None:
        with opened(self._app, sync, self._stop) as ports:
            session = SyncSession(ports, sync, self._on_file, self._notice)
            session.reported, session.may_go_on = self._repeated, partial(self._may_run, sync)
            session.run()

    def _notice(self, words: str) -> None:
        if words not in self._noticed:
            self._noticed.add(words)
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

    def drained() -> bool:
        return bool(queues) and all(queue.depth().empty for queue in queues) and pool.idle

    if pool.run(signals, drained) is not SlotOutcome.STOPPED:
        error = pool.error or HevcqError("The worker ended by itself.")
        _sign_off(app, error)
        raise error


def _sign_off(app: App, error: BaseException) -> None:
    """Leave in the list of machines why this one cannot work."""
    backend, broken = app.worker_backend, facts_of(app)
    if backend.machines is not None:
        with suppress(HevcqError):
            reason = {"waits": (str(error),), "slots": 0}
            backend.machines.leave(backend.owner, broken.model_copy(update=reason))
