"""Check this machine: configuration, ffmpeg, folders, clock, database."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from hevcq.domain.job import JobState
from hevcq.domain.pause import moment
from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError, is_full
from hevcq.ports.backend import Backend
from hevcq.ports.encoder import Check, Encoder
from hevcq.ports.ledger import JobFilter
from hevcq.ports.signer import Keyring
from hevcq.settings.libraries import Library
from hevcq.settings.model import Settings
from hevcq.usecases.library_state import checks, folder_state
from hevcq.util.clock import EARLIEST, Clock
from hevcq.util.host import capacity, free_beside, source_room
from hevcq.util.text import counted, printable

MAX_SKEW_S = 5.0
"""Largest difference of file times and this machine's clock: leases compare wall times."""
MIB = 1024 * 1024


class Area(StrEnum):
    """What a finding is about; the exit code depends on it."""

    CONFIG = "configuration"
    ENCODER = "ffmpeg"
    FOLDER = "folder"
    CLOCK = "clock"
    DATABASE = "database"
    SYNC = "sync"
    FARM = "farm"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    area: Area
    check: Check


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """What the checks need; openers are functions, so that a failure to open is a finding."""

    settings: Settings
    clock: Clock
    profiles: Callable[[], Mapping[str, Profile]]
    encoder: Callable[[], Encoder]
    backend: Callable[[], Backend]
    keyring: Callable[[], Keyring]
    clock_problem: Callable[[], str]


def settings_finding(detail: str, *, wrong: bool = False, remedy: str = "") -> Finding:
    """Return the finding about the settings, which are loaded before the checks run."""
    return Finding(Area.CONFIG, Check("settings", ok=not wrong, detail=detail, remedy=remedy))


def wrong(area: Area, name: str, error: HevcqError) -> Finding:
    """Return the finding that a check met this error."""
    return Finding(area, Check(name, ok=False, detail=error.message, remedy=error.remedy))


def run_checks(context: DoctorContext) -> Iterator[Finding]:
    """Yield the result of each check, with a remedy where it failed; never raises a HevcqError."""
    settings = context.settings
    yield from _try(Area.CONFIG, "profiles", lambda: _profiles(context))
    yield from _try(Area.CONFIG, "certificates", lambda: _signatures(context))
    yield from _try(Area.CONFIG, "schedule", lambda: _schedule(context))
    yield from _try(Area.ENCODER, "ffmpeg", lambda: context.encoder().doctor())
    if settings.backend == "embedded":
        yield from _try(
            Area.FOLDER, "data_dir", lambda: _folder("data_dir", settings.data_dir, context)
        )
    for library in settings.libraries:
        look = partial(_library, library)
        yield from _try(Area.FOLDER, f"library {library.name}", look)
    yield from _try(Area.FOLDER, "scratch", lambda: _folder("scratch", settings.scratch, context))
    yield from _try(Area.CLOCK, "clock", lambda: _clock(context))
    yield from _try(Area.DATABASE, "database", lambda: _database(context))
    if settings.backend == "aws":
        yield from _try(Area.FARM, "queues", lambda: _queues(context))


def _try(area: Area, name: str, look: Callable[[], list[Check]]) -> Iterator[Finding]:
    try:
        checks = look()
    except HevcqError as error:
        checks = [Check(name, ok=False, detail=error.message, remedy=error.remedy)]
    except OSError as error:
        remedy = "Free some space." if is_full(error) else "Check the folder and its permissions."
        detail = f"{error.strerror or error}."
        checks = [Check(name, ok=False, detail=detail, remedy=remedy)]
    for check in checks:
        yield Finding(area, check)


def _profiles(context: DoctorContext) -> list[Check]:
    settings, known = context.settings, context.profiles()
    here = settings.backend == "embedded"  # a farm may be for uploads only
    named = dict.fromkeys(settings.ingest.profiles if here else (), "ingest.profiles")
    for each in settings.libraries:
        named |= dict.fromkeys((*each.profiles, *each.chosen), f"The library {each.name}")
    names = ", ".join(sorted(known))
    for name in named.keys() - known.keys():
        wrong_name = f"{named[name]} names the profile {printable(name)!r}, which there is not."
        return [Check("profiles", ok=False, detail=wrong_name, remedy=f"Available: {names}.")]
    return [Check("profiles", ok=True, detail=names)]


def _schedule(context: DoctorContext) -> list[Check]:
    """Say whether the hours are open, and whether the gate command can be run."""
    settings, now = context.settings.schedule, context.clock.now()
    command = shlex.split(settings.gate_command)[:1]
    if command and shutil.which(command[0]) is None:
        remedy = "Correct schedule.gate_command: nothing is encoded while it cannot be asked."
        detail = f"The program {command[0]} was not found."
        return [Check("schedule", ok=False, detail=detail, remedy=remedy)]
    hours = settings.hours()
    if not settings.windows:
        return [Check("schedule", ok=True, detail="always open")]
    change = hours.schedule.next_change(now)
    state = "open" if hours.schedule.open_at(now) else "closed"
    until = "" if change is None else f" until {moment(change, now, hours.schedule.zone)}"
    return [Check("schedule", ok=True, detail=f"{'; '.join(settings.windows)}: {state}{until}")]


def _signatures(context: DoctorContext) -> list[Check]:
    """Show the public key that other farms list in `trusted_keys`."""
    ring = context.keyring()
    detail = "not signed (aws.signing_key is empty): --replace runs the gates again on this machine"
    if ring.signer is not None:
        key = ring.signer.public_key()
        detail = f"signed by {key}" if key else "signed by a key that the first encode makes"
    listed = f"; {len(ring.listed)} other trusted keys" if ring.listed else ""
    return [Check("certificates", ok=True, detail=f"{detail}{listed}")]


def _folder(name: str, folder: Path, context: DoctorContext) -> list[Check]:
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        remedy = f"Allow this user to write in {there}, or set another {name}."
        return [Check(name, ok=False, detail=f"{folder} is not writable.", remedy=remedy)]
    with tempfile.NamedTemporaryFile(dir=there, prefix=".hevcq-doctor-") as probe:
        probe.write(b"hevcq")
        probe.flush()
        os.fsync(probe.fileno())
    free = free_beside(there) // MIB
    least = context.settings.min_free_mib
    detail = f"{folder}: writable, {free} MiB free"
    if name == "scratch":
        slots = capacity(context.settings.workers).slots
        copied = context.settings.backend != "embedded"
        room = source_room(free, keep=least, slots=slots, copied=copied)
        detail += f", {slots} slots for sources of up to {room} MiB each"
    if free >= least:
        return [Check(name, ok=True, detail=detail)]
    remedy = f"Work pauses below {least} MiB (min_free_mib): free some space or set another {name}."
    return [Check(name, ok=False, detail=detail, remedy=remedy)]


def _library(library: Library) -> list[Check]:
    return list(checks(library, folder_state(library)))


def _clock(context: DoctorContext) -> list[Check]:
    now = context.clock.now()
    if now < EARLIEST:
        remedy = "Set the clock, e.g. with NTP: leases depend on it."
        return [Check("clock", ok=False, detail="The clock is years behind.", remedy=remedy)]
    folder = context.settings.data_dir
    if not folder.is_dir():
        return [Check("clock", ok=True, detail="plausible")]
    jumped = context.clock_problem()
    if jumped:
        return [Check("clock", ok=False, detail=jumped, remedy="Is it right now? Compare `date`.")]
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".hevcq-doctor-") as probe:
        skew = os.fstat(probe.fileno()).st_mtime - now
    if abs(skew) > MAX_SKEW_S:
        detail = f"File times in {folder} differ from this machine's clock by {skew:+.0f} s."
        remedy = "Synchronise this machine and the file server with one time source."
        return [Check("clock", ok=False, detail=detail, remedy=remedy)]
    return [
        Check("clock", ok=True, detail=f"plausible, file times agree within {MAX_SKEW_S:.0f} s")
    ]


def _database(context: DoctorContext) -> list[Check]:
    """Open and read the database; creates a new one, as any command would."""
    backend = context.backend()
    counts = backend.ledger.counts()
    total = sum(counts.values())
    dead = sum(count for (_, state), count in counts.items() if state is JobState.DEAD)
    newest = next(iter(backend.ledger.jobs(JobFilter())), None)
    if newest is not None and newest.updated_at > context.clock.now() + 60:
        detail = "The ledger has entries from the future: this machine's clock was set back."
        return [Check("database", ok=False, detail=detail, remedy="Correct the clock.")]
    return [
        Check("database", ok=True, detail=f"readable, {counted(total, 'job')}, {dead} of them dead")
    ]


def _queues(context: DoctorContext) -> list[Check]:
    """Return a check for each profile whose queue is missing; the others go on without it."""
    try:
        queues = context.backend().queues
    except HevcqError:  # the check of the database says it
        return []
    found = []
    for name in context.profiles():
        try:
            _ = queues[name]
        except HevcqError as error:
            check = Check(f"queue {name}", ok=False, detail=error.message, remedy=error.remedy)
            found.append(check)
    return found
