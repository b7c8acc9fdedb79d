"""Open what some use cases need: uploaded videos, syncs, the event log, and receivers of events."""

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
def opened(app: App, sync: SyncSettings, stop: threading.Event) -> Iterator[SyncPorts]:
    """Open one sync and close it afterwards; only one process at a time has it open.

    Raises ConfigError, StorageError, or Unavailable if another process has it open.
    """
    from hevcq.sql.catalog import SyncJournal
    from hevcq.usecases.context import alone
    from hevcq.usecases.sync.move import SyncPorts

    busy = Unavailable(
        f"Another process is busy with the sync {sync.name}.", remedy="Let it end first."
    )
    fs = app.library_ports.files(stop)
    here = alone(app.settings.data_dir / f"sync-{sync.name}.lock", busy)
    with here, fs.lock(f"sync {sync.name}", busy):
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
    """Open the server of a sync; asks it nothing yet.

    Raises ConfigError if the password cannot be read.
    """
    from hevcq.remotes.webdav import WebDavRemote

    return WebDavRemote(sync.url, sync.user, sync.password(), sync.ca_file)


def event_log(app: App) -> EventLog:
    return EventLog(app.catalog.database, app.clock)


def roll_up(app: App, log: EventLog) -> RollUp:
    def root(path: Path) -> Path | None:
        found = library_of(app.settings.libraries, path)
        return None if found is None else found.path

    return RollUp(log, app.catalog, root)


def gathered(app: App) -> EventLog:
    """Return the event log with everything summed up that is known now. Raises StorageError, Unavailable."""
    log = event_log(app)
    gather = _gather(app, log)
    if gather is not None:
        gather()
    roll_up(app, log).step()
    return log


def _gather(app: App, log: EventLog) -> Callable[[], int] | None:
    """Return what reads the ends of jobs from a fleet's ledger; None where jobs write their events."""
    if not app.settings.on_aws:
        return None
    return partial(gather_ends, log, app.backend.ledger, app.clock)


def event_watch(app: App) -> EventWatch:
    from hevcq.usecases.event_dispatch import BatchWatch, Dispatcher, EventWatch
    from hevcq.usecases.placement.originals import expiring

    log, found = event_log(app), receivers(app)
    gather = _gather(app, log)
    if gather is not None:  # before the receivers begin: they get nothing of the past
        gather()
    ends = gather or BatchWatch(log, app.worker_backend.ledger, app.clock).step
    summed = roll_up(app, log).step  # last: it forgets what is old
    if not found:
        return EventWatch(log, app.clock, [ends, summed])
    sender = Dispatcher(log, found, app.clock, app.settings.schedule.hours().schedule.zone)
    tasks = [ends, sender.step, summed]
    return EventWatch(log, app.clock, tasks, partial(expiring, app.library_ports))


def watched_events(app: App) -> EventWatch | None:
    """Return what sends the events of a pool; None for a fleet's worker, which notifies nobody and keeps no log."""
    settings = app.settings
    receives = settings.notify or settings.webhook or settings.media_server
    return event_watch(app) if not settings.on_aws or receives else None


def video_messages(app: App) -> Callable[[Happened], bool] | None:
    """Return what reports the ends of videos where their records are shared by several servers.

    None if the event log does (a data folder), or nobody wants to know. Raises ConfigError.
    """
    from hevcq.usecases.event_dispatch import DirectDispatcher

    if not app.settings.on_aws:
        return None
    ends = ("video.ready", "video.failed")
    found = [each for each in receivers(app) if any(map(each.wants, ends))]
    return DirectDispatcher(found) if found else None


def notify_now(app: App) -> None:
    """Send at the end of a command what happened in it; never raises a HevcqError."""
    try:
        event_watch(app).step()
    except HevcqError as error:
        get_logger().warning("messages_wait", reason=str(error))


def receivers(app: App) -> list[Receiver]:
    """Return all receivers.

    Raises ConfigError if a secret cannot be read, an address is none, or a package is missing.
    """
    settings = app.settings
    if not (settings.notify or settings.webhook or settings.media_server):
        return []
    from hevcq.remotes.message_delivery import receivers_of

    return receivers_of(settings, app.clock)


def try_receiver(app: App, number: int) -> tuple[str, str]:
    """Send a test to one of all receivers, by its number; return its name, and why it failed or ""."""
    from hevcq.usecases.event_dispatch import try_receivers

    one = receivers(app)[number]
    ((name, problem),) = try_receivers(event_log(app), [one], (), app.clock.now())
    return name, problem
