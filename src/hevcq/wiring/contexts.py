"""Open the parts of an app that only some use cases need: uploads, syncs, the event log and its receivers."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq.errors import HevcqError, Unavailable
from hevcq.settings.libraries import SyncSettings, library_of
from hevcq.sql.event_log import EventLog
from hevcq.usecases.stats import RollUp, gather_ends
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from hevcq.ports.catalog import Happened, Receiver
    from hevcq.remotes.webdav import WebDavRemote
    from hevcq.usecases.event_dispatch import EventWatch
    from hevcq.usecases.sync.move import SyncPorts
    from hevcq.usecases.videos.manage import VideoFarm
    from hevcq.wiring.app import App


def video_farm(app: App) -> VideoFarm:
    from hevcq.usecases.videos.manage import VideoFarm

    settings = app.settings
    local = not settings.on_aws
    return VideoFarm(
        videos=app.videos,
        files=app.video_files,
        backend=app.backend,
        profiles=app.profiles,
        limits=settings.uploads,
        clock=app.clock,
        chance=secrets.token_bytes,
        catalog=app.catalog if local else None,
        least_free=settings.min_free_mib << 20 if local else 0,
    )


@contextmanager
def open_sync(app: App, sync: SyncSettings, stop: threading.Event) -> Iterator[SyncPorts]:
    """Open the ports of one sync, and close them afterwards; only one process at a time has them open.

    Raises ConfigError, StorageError, or Unavailable if another process has them open.
    """
    from hevcq.sql.catalog import SyncJournal
    from hevcq.usecases.context import hold_lock_file
    from hevcq.usecases.sync.move import SyncPorts

    busy = Unavailable(
        f"Another process is busy with the sync {sync.name}.", remedy="Let it end first."
    )
    fs = app.library_ports.files(stop)
    own_lock = hold_lock_file(app.settings.data_dir / f"sync-{sync.name}.lock", busy)
    with own_lock, fs.lock(f"sync {sync.name}", busy):
        remote = open_remote(sync)
        try:
            yield SyncPorts(
                remote,
                SyncJournal(app.catalog.database),
                app.clock,
                fs,
                stop,
                token=secrets.token_hex(8),
                least_free=app.settings.min_free_mib << 20,
            )
        finally:
            remote.close()


def open_remote(sync: SyncSettings) -> WebDavRemote:
    """Return the server of a sync; sends no request yet. Raises ConfigError if the password cannot be read."""
    from hevcq.remotes.webdav import WebDavRemote

    return WebDavRemote(sync.url, sync.user, sync.password(), sync.ca_file)


def event_log(app: App) -> EventLog:
    return EventLog(app.catalog.database, app.clock)


def roll_up(app: App, log: EventLog) -> RollUp:
    def root(path: Path) -> Path | None:
        library = library_of(app.settings.libraries, path)
        return None if library is None else library.path

    return RollUp(log, app.catalog, root)


def up_to_date_log(app: App) -> EventLog:
    """Return the event log with all events so far gathered and summed. Raises StorageError, Unavailable."""
    log = event_log(app)
    gather = _gatherer(app, log)
    if gather is not None:
        gather()
    roll_up(app, log).step()
    return log


def _gatherer(app: App, log: EventLog) -> Callable[[], int] | None:
    """Return a function that reads the ends of jobs from a fleet's ledger; None where jobs write events."""
    if not app.settings.on_aws:
        return None
    return partial(gather_ends, log, app.backend.ledger, app.clock)


def event_watch(app: App) -> EventWatch:
    from hevcq.usecases.event_dispatch import BatchWatch, Dispatcher, EventWatch
    from hevcq.usecases.placement.originals import expiring_soon

    log, all_receivers = event_log(app), receivers(app)
    gather = _gatherer(app, log)
    if gather is not None:  # before the receivers begin, so that they get no past events
        gather()
    ends = gather or BatchWatch(log, app.worker_backend.ledger, app.clock).step
    sums = roll_up(app, log).step  # last, because it deletes old events
    if not all_receivers:
        return EventWatch(log, app.clock, [ends, sums])
    zone = app.settings.schedule.hours().schedule.zone
    dispatcher = Dispatcher(log, all_receivers, app.clock, zone)
    tasks = [ends, dispatcher.step, sums]
    return EventWatch(log, app.clock, tasks, partial(expiring_soon, app.library_ports))


def pool_events(app: App) -> EventWatch | None:
    """Return the event watch of a pool; None for a fleet's worker without receivers, which keeps no log."""
    settings = app.settings
    has_receivers = settings.notify or settings.webhook or settings.media_server
    return event_watch(app) if not settings.on_aws or has_receivers else None


def video_messages(app: App) -> Callable[[Happened], bool] | None:
    """Return a function that sends the ends of videos whose records several servers share (on AWS).

    None if the event log does that (in a data folder), or no receiver wants them. Raises ConfigError.
    """
    from hevcq.usecases.event_dispatch import DirectDispatcher

    if not app.settings.on_aws:
        return None
    ends = ("video.ready", "video.failed")
    interested = [each for each in receivers(app) if any(map(each.wants, ends))]
    return DirectDispatcher(interested) if interested else None


def notify_now(app: App) -> None:
    """Send a command's events at its end; never raises a HevcqError."""
    try:
        event_watch(app).step()
    except HevcqError as error:
        get_logger().warning("messages_wait", reason=str(error))


def receivers(app: App) -> list[Receiver]:
    """Return all receivers of events.

    Raises ConfigError if a secret cannot be read, an address is invalid, or a package is missing.
    """
    settings = app.settings
    if not (settings.notify or settings.webhook or settings.media_server):
        return []
    from hevcq.remotes.message_delivery import receivers_of

    return receivers_of(settings, app.clock)


def try_receiver(app: App, number: int) -> tuple[str, str]:
    """Send a test message to the receiver with this number; return its name, and why it failed or ""."""
    from hevcq.usecases.event_dispatch import try_receivers

    receiver = receivers(app)[number]
    ((name, problem),) = try_receivers(event_log(app), [receiver], (), app.clock.now())
    return name, problem
