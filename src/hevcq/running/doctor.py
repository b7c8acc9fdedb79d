"""Check this machine: settings, ffmpeg, folders, clock, database, syncs and receivers of messages."""

import os
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial

from hevcq.domain.job import SETTLED, JobState
from hevcq.domain.profile import Profile
from hevcq.domain.schedule import local_moment
from hevcq.errors import ConfigError, HevcqError, StorageError, WorkerUnfit
from hevcq.ports.ledger import JobFilter
from hevcq.usecases.context import library_words, require_one_name, share_words
from hevcq.usecases.event_dispatch import check_receivers
from hevcq.usecases.farm_check import Area, Check, sync_words
from hevcq.usecases.ingest.request import IngestRequest, library_request
from hevcq.util.capacity import capacity, free_disk_bytes, max_source_bytes, nearest_existing
from hevcq.util.clock import EARLIEST
from hevcq.util.text import counted, size
from hevcq.wiring.app import App
from hevcq.wiring.contexts import event_log, open_remote, receivers

MAX_SKEW_S = 5.0
"""Largest accepted difference between file times and this machine's clock: leases compare wall times."""
MIB = 1024 * 1024


def machine_checks(app: App) -> Iterator[Check]:
    """Yield every check except the web page's."""
    settings = app.settings
    yield Check(Area.CONFIG, "profiles", lambda: _profiles(app))
    yield Check(Area.CONFIG, "schedule", lambda: _schedule(app))
    for name, check in app.encoder.checks().items():
        yield Check(Area.ENCODER, name, check)
    if not settings.on_aws:
        for profile in _used_profiles(app):
            yield Check(Area.ENCODER, f"profile {profile.name}", partial(_self_test, app, profile))
        yield Check(Area.FOLDER, "data_dir", lambda: _folder("data_dir", app))
    if settings.backend == "postgres":
        yield Check(Area.FOLDER, "names", lambda: _one_name(app))
    for share in settings.paths:
        check = partial(lambda name: share_words(app.catalog, name), share)
        yield Check(Area.FOLDER, f"paths {share}", check)
    for library in settings.libraries:
        yield Check(Area.FOLDER, f"library {library.name}", partial(library_words, library))
    yield Check(Area.FOLDER, "scratch", lambda: _folder("scratch", app))
    yield Check(Area.CLOCK, "clock", lambda: _clock(app))
    yield Check(Area.DATABASE, "database", lambda: _database(app))
    if settings.on_aws:
        yield Check(Area.FARM, "queues", lambda: _queues(app))
    for sync in settings.sync:
        yield Check(Area.SYNC, f"sync {sync.name}", partial(sync_words, sync, open_remote))
    yield Check(
        Area.MESSAGES, "messages", lambda: check_receivers(lambda: event_log(app), receivers(app))
    )


def _one_name(app: App) -> str:
    require_one_name(app.catalog)
    return "no video has two names here"


def _profiles(app: App) -> str:
    profiles, default = app.profiles, app.settings.ingest.profiles
    if not app.settings.on_aws:  # a farm may be for uploads only
        IngestRequest(()).chosen_profiles(profiles, default)
    for library in app.settings.libraries:
        library_request(library).chosen_profiles(profiles, default)
    return ", ".join(sorted(profiles))


def _used_profiles(app: App) -> list[Profile]:
    """Return the profiles that this machine's settings name or its queue has jobs of."""
    settings, profiles, used = app.settings, dict[str, Profile](), set[str]()
    with suppress(HevcqError):  # the checks of the profiles and the database report it
        profiles = dict(app.profiles)
        if settings.has_page:
            used |= {name for name, profile in profiles.items() if profile.subscribe}
        counts = app.backend.ledger.counts()
        used |= {name for (name, state), count in counts.items() if count and state not in SETTLED}
    used |= {*settings.ingest.profiles}
    for library in settings.libraries:
        used |= {*library.chosen}
    return [profiles[name] for name in sorted(used & profiles.keys())]


def _schedule(app: App) -> str:
    """Return whether work may run now, and until when. Raises ConfigError if the gate command is missing."""
    settings, now = app.settings.schedule, app.clock.now()
    command = shlex.split(settings.gate_command)[:1]
    if command and shutil.which(command[0]) is None:
        raise ConfigError(
            f"The program {command[0]} was not found.",
            remedy="Correct schedule.gate_command: nothing is encoded while it cannot be asked.",
        )
    if not settings.windows:
        return "always open"
    hours = settings.hours()
    change = hours.schedule.next_change(now)
    state = "open" if hours.schedule.open_at(now) else "closed"
    until = "" if change is None else f" until {local_moment(change, now, hours.schedule.zone)}"
    return f"{'; '.join(settings.windows)}: {state}{until}"


def _folder(name: str, app: App) -> str:
    settings = app.settings
    folder = settings.scratch if name == "scratch" else settings.data_dir
    there = nearest_existing(folder)
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        remedy = f"Allow this user to write in {there}, or set another {name}."
        raise StorageError(f"{folder} is not writable.", remedy=remedy)
    with tempfile.NamedTemporaryFile(dir=there, prefix=".hevcq-doctor-") as probe:
        probe.write(b"hevcq")
        probe.flush()
        os.fsync(probe.fileno())
    free, least = free_disk_bytes(there) // MIB, settings.min_free_mib
    detail = f"{folder}: writable, {size(free * MIB)} free"
    if free < least:
        remedy = (
            f"Work pauses below {least} MiB (min_free_mib): free some space or set another {name}."
        )
        raise StorageError(f"{detail}.", remedy=remedy)
    if name == "scratch":
        slots, copied = capacity(settings.workers).slots, settings.uploads_direct
        room = max_source_bytes(free, keep=least, slots=slots, copied=copied)
        detail += f", {slots} slots for sources of up to {size(room * MIB)} each"
    return detail


def _clock(app: App) -> str:
    now, settings = app.clock.now(), app.settings
    if now < EARLIEST:
        remedy = "Set the clock, e.g. with NTP: leases depend on it."
        raise WorkerUnfit("The clock is years behind.", remedy=remedy)
    folders = [each for each in {settings.data_dir, settings.files_dir} if each.is_dir()]
    for folder in folders:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hevcq-doctor-") as probe:
            skew = os.fstat(probe.fileno()).st_mtime - now
        if abs(skew) > MAX_SKEW_S:
            raise WorkerUnfit(
                f"File times in {folder} differ from this machine's clock by {skew:+.0f} s.",
                remedy="Synchronise this machine and the file server with one time source.",
            )
    if not folders:
        return "plausible"
    return f"plausible, file times agree within {MAX_SKEW_S:.0f} s"


def _database(app: App) -> str:
    """Open and read the database; creates a new one, as any command would."""
    backend = app.backend
    ledger, where = backend.ledger, f"{backend.database}: " if backend.database else ""
    counts = ledger.counts()
    dead = sum(count for (_, state), count in counts.items() if state is JobState.DEAD)
    newest = next(iter(ledger.jobs(JobFilter())), None)
    if newest is not None and newest.updated_at > app.clock.now() + 60:
        raise StorageError(
            "The ledger has entries from the future: this machine's clock was set back.",
            remedy="Correct the clock.",
        )
    return f"{where}readable, {counted(sum(counts.values()), 'job')}, {dead} of them dead"


def _queues(app: App) -> str:
    """Raise the error of the first profile whose queue is missing."""
    try:
        queues = app.backend.queues
    except HevcqError:  # the check of the database reports it
        return ""
    for name in app.profiles:
        _ = queues[name]
    return "one for each profile"


def _self_test(app: App, profile: Profile) -> str:
    with ExitStack() as stack:
        try:
            app.encoder.version()
            folder = stack.enter_context(app.scratch(0))
        except HevcqError:  # the checks of ffmpeg and the folder report it
            return ""
        app.encoder.self_test(profile, folder, stop=threading.Event())
    return "one second of picture and sound was encoded and verified"
