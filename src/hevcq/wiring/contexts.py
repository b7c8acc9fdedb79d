"""Open what some use cases need: the doctor, health checks, uploaded videos and syncs."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq.errors import HevcqError, Unavailable

if TYPE_CHECKING:
    from hevcq.domain.profile import Profile
    from hevcq.ports.catalog import Checked, Remote
    from hevcq.settings.libraries import SyncSettings
    from hevcq.usecases.compare import ComparePorts
    from hevcq.usecases.doctor import DoctorContext
    from hevcq.usecases.health.check import CheckRequest, HealthCheck, HealthPorts
    from hevcq.usecases.sync.move import SyncPorts
    from hevcq.usecases.videos.manage import VideoFarm
    from hevcq.wiring.app import App


def doctor_context(app: App) -> DoctorContext:
    """Return what the checks of this machine need; each is opened by the check that asks for it."""
    from hevcq.usecases.doctor import DoctorContext
    from hevcq.usecases.notify.sender import check_receivers
    from hevcq.wiring.notify import event_log, receivers
    from hevcq.worker.scratch import Scratch

    def self_test(profile: Profile) -> str:
        with closing(Scratch(app.settings.scratch, app.clock)) as scratch, ExitStack() as stack:
            try:
                app.encoder.version()
                folder = stack.enter_context(scratch.job("self-test"))
            except HevcqError:  # the checks of ffmpeg and of the folder say it
                return ""
            app.encoder.self_test(profile, folder, stop=threading.Event())
        return "one second of picture and sound was encoded and verified"

    return DoctorContext(
        app.settings,
        app.clock,
        profiles=lambda: app.profiles,
        encoder=lambda: app.encoder,
        backend=lambda: app.backend,
        catalog=lambda: app.catalog,
        remote=open_remote,
        messages=lambda: check_receivers(lambda: event_log(app), receivers(app)),
        self_test=self_test,
    )


def health_ports(app: App, stop: threading.Event) -> HealthPorts:
    """Return the ports of a check, with its records in the database of the data folder."""
    from hevcq.sql.catalog import HealthRecords
    from hevcq.usecases.health.check import HealthPorts

    records = HealthRecords(app.catalog.database)
    return HealthPorts(app.encoder, records, app.clock, stop, app.scratch)


def open_check(
    app: App,
    request: CheckRequest,
    stop: threading.Event,
    on_file: Callable[[int, int, Path], None],
) -> HealthCheck:
    from hevcq.usecases.health.check import HealthCheck, report
    from hevcq.wiring.notify import event_log

    app.encoder.version()  # no file is blamed for an ffmpeg that is not there
    return HealthCheck(health_ports(app, stop), request, on_file, partial(report, event_log(app)))


def compare_ports(app: App) -> ComparePorts:
    from hevcq.usecases.compare import ComparePorts

    return ComparePorts(app.backend, app.catalog, app.encoder, app.profiles, app.scratch)


def unsound_videos(app: App) -> list[Checked]:
    from hevcq.usecases.health.check import unsound

    return unsound(health_ports(app, threading.Event()).records)


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


def open_remote(sync: SyncSettings) -> Remote:
    """Open the server of a sync; asks it nothing yet.

    Raises ConfigError if the password cannot be read.
    """
    from hevcq.remotes.webdav import Account, WebDavRemote

    return WebDavRemote(Account(sync.url, sync.user, sync.password(), sync.ca_file))
