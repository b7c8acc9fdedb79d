"""Check this machine and its settings, and send a one-second clip through every profile of a farm."""

import os
import secrets
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import SETTLED, JobRecord, JobState, Phase, Source
from hevcq.domain.keys import INBOX, OUTBOX
from hevcq.domain.profile import Profile
from hevcq.domain.schedule import moment
from hevcq.domain.verdict import FailureClass
from hevcq.errors import ConfigError, HevcqError, StorageError, WorkerUnfit, is_full
from hevcq.ports.backend import Backend
from hevcq.ports.catalog import Remote
from hevcq.ports.encoder import Encoder
from hevcq.ports.ledger import JobFilter
from hevcq.ports.queue import Selection
from hevcq.settings.libraries import SyncSettings
from hevcq.settings.model import Settings
from hevcq.sql.catalog import Catalog
from hevcq.usecases.context import library_words, require_one_name, share_words
from hevcq.util.clock import EARLIEST, Clock
from hevcq.util.host import capacity, existing, free_beside, source_room
from hevcq.util.text import counted, printable, size

MAX_SKEW_S = 5.0
"""Largest difference of file times and this machine's clock: leases compare wall times."""
MIB = 1024 * 1024
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OTHERS = 0o077
"""Rights of other users on a file with a password."""


class Area(StrEnum):
    """What a finding is about; the exit code depends on it."""

    CONFIG = "configuration"
    ENCODER = "ffmpeg"
    FOLDER = "folder"
    CLOCK = "clock"
    DATABASE = "database"
    SYNC = "sync"
    MESSAGES = "messages"
    FARM = "farm"


class Check(NamedTuple):
    """One line of `hevcq doctor`: `look` returns what it found, or raises an error with a remedy.

    Nothing is said of a check that finds "".
    """

    area: Area
    name: str
    look: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Finding:
    area: Area
    name: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """What the checks need; openers are functions, so that a failure to open is a finding."""

    settings: Settings
    clock: Clock
    profiles: Callable[[], Mapping[str, Profile]]
    encoder: Callable[[], Encoder]
    backend: Callable[[], Backend]
    catalog: Callable[[], Catalog]
    remote: Callable[[SyncSettings], Remote]
    messages: Callable[[], str]
    self_test: Callable[[Profile], str]


def wrong(area: Area, name: str, error: HevcqError) -> Finding:
    """Return the finding that a check met this error."""
    return Finding(area, name, ok=False, detail=error.message, remedy=error.remedy)


def examined(checks: Iterable[Check]) -> Iterator[Finding]:
    """Yield the finding of each check; never raises a HevcqError or OSError."""
    for area, name, look in checks:
        try:
            detail = look()
        except HevcqError as error:
            yield wrong(area, name, error)
        except OSError as error:
            remedy = (
                "Free some space." if is_full(error) else "Check the folder and its permissions."
            )
            yield wrong(area, name, StorageError(f"{error.strerror or error}.", remedy=remedy))
        else:
            if detail:
                yield Finding(area, name, ok=True, detail=detail)


def machine_checks(context: DoctorContext) -> Iterator[Check]:
    """Yield every check but those of the page."""
    settings = context.settings
    yield Check(Area.CONFIG, "profiles", lambda: _profiles(context))
    yield Check(Area.CONFIG, "schedule", lambda: _schedule(context))
    for name, look in context.encoder().checks().items():
        yield Check(Area.ENCODER, name, look)
    if not settings.on_aws:
        for used in _used(context):
            yield Check(Area.ENCODER, f"profile {used.name}", partial(context.self_test, used))
        yield Check(Area.FOLDER, "data_dir", lambda: _folder("data_dir", context))
    if settings.backend == "postgres":
        yield Check(Area.FOLDER, "names", lambda: _one_name(context))
    for share in settings.paths:
        look = partial(lambda name: share_words(context.catalog(), name), share)
        yield Check(Area.FOLDER, f"paths {share}", look)
    for library in settings.libraries:
        yield Check(Area.FOLDER, f"library {library.name}", partial(library_words, library))
    yield Check(Area.FOLDER, "scratch", lambda: _folder("scratch", context))
    yield Check(Area.CLOCK, "clock", lambda: _clock(context))
    yield Check(Area.DATABASE, "database", lambda: _database(context))
    if settings.on_aws:
        yield Check(Area.FARM, "queues", lambda: _queues(context))
    for sync in settings.sync:
        yield Check(Area.SYNC, f"sync {sync.name}", partial(sync_words, sync, context.remote))
    yield Check(Area.MESSAGES, "messages", context.messages)


def _one_name(context: DoctorContext) -> str:
    require_one_name(context.catalog())
    return "no video has two names here"


def _profiles(context: DoctorContext) -> str:
    settings, known = context.settings, context.profiles()
    here = not settings.on_aws  # a farm may be for uploads only
    named = dict.fromkeys(settings.ingest.profiles if here else (), "ingest.profiles")
    for each in settings.libraries:
        named |= dict.fromkeys((*each.profiles, *each.chosen), f"The library {each.name}")
    names = ", ".join(sorted(known))
    for name in named.keys() - known.keys():
        raise ConfigError(
            f"{named[name]} names the profile {printable(name)!r}, which there is not.",
            remedy=f"Available: {names}.",
        )
    return names


def _used(context: DoctorContext) -> list[Profile]:
    """Return the profiles that this machine encodes by, as far as its settings and its queues say."""
    settings, known, used = context.settings, dict[str, Profile](), set[str]()
    with suppress(HevcqError):  # the checks of the profiles and of the database say it
        known = dict(context.profiles())
        if settings.has_page:
            used |= {name for name, profile in known.items() if profile.subscribe}
        counts = context.backend().ledger.counts()
        used |= {name for (name, state), count in counts.items() if count and state not in SETTLED}
    used |= {*settings.ingest.profiles}
    for each in settings.libraries:
        used |= {*each.profiles, *each.chosen}
    return [known[name] for name in sorted(used & known.keys())]


def _schedule(context: DoctorContext) -> str:
    """Say whether the hours are open. Raises ConfigError if the gate command cannot be run."""
    settings, now = context.settings.schedule, context.clock.now()
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
    until = "" if change is None else f" until {moment(change, now, hours.schedule.zone)}"
    return f"{'; '.join(settings.windows)}: {state}{until}"


def _folder(name: str, context: DoctorContext) -> str:
    settings = context.settings
    folder = settings.scratch if name == "scratch" else settings.data_dir
    there = existing(folder)
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        remedy = f"Allow this user to write in {there}, or set another {name}."
        raise StorageError(f"{folder} is not writable.", remedy=remedy)
    with tempfile.NamedTemporaryFile(dir=there, prefix=".hevcq-doctor-") as probe:
        probe.write(b"hevcq")
        probe.flush()
        os.fsync(probe.fileno())
    free, least = free_beside(there) // MIB, settings.min_free_mib
    detail = f"{folder}: writable, {size(free * MIB)} free"
    if free < least:
        remedy = (
            f"Work pauses below {least} MiB (min_free_mib): free some space or set another {name}."
        )
        raise StorageError(f"{detail}.", remedy=remedy)
    if name == "scratch":
        slots, copied = capacity(settings.workers).slots, settings.uploads_direct
        room = source_room(free, keep=least, slots=slots, copied=copied)
        detail += f", {slots} slots for sources of up to {size(room * MIB)} each"
    return detail


def _clock(context: DoctorContext) -> str:
    now, settings = context.clock.now(), context.settings
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


def _database(context: DoctorContext) -> str:
    """Open and read the database; creates a new one, as any command would."""
    backend = context.backend()
    ledger, where = backend.ledger, f"{backend.database}: " if backend.database else ""
    counts = ledger.counts()
    dead = sum(count for (_, state), count in counts.items() if state is JobState.DEAD)
    newest = next(iter(ledger.jobs(JobFilter())), None)
    if newest is not None and newest.updated_at > context.clock.now() + 60:
        raise StorageError(
            "The ledger has entries from the future: this machine's clock was set back.",
            remedy="Correct the clock.",
        )
    return f"{where}readable, {counted(sum(counts.values()), 'job')}, {dead} of them dead"


def _queues(context: DoctorContext) -> str:
    """Raise the error of the first profile whose queue is missing; the others go on without it."""
    try:
        queues = context.backend().queues
    except HevcqError:  # the check of the database says it
        return ""
    for name in context.profiles():
        _ = queues[name]
    return "one for each profile"


def sync_words(sync: SyncSettings, open_remote: Callable[[SyncSettings], Remote]) -> str:
    """Return what a sync would do; makes a probe file if it moves. Raises HevcqError if it would not run."""
    if not (sync.target.is_dir() and os.access(sync.target, os.W_OK | os.X_OK)):
        raise StorageError(
            f"There is no writable folder {printable(sync.target)}.",
            remedy="Make it, mount its disk, or allow this user to write there.",
        )
    remote, moves, unsafe = open_remote(sync), sync.mode == "move", ""
    try:
        files = sum(len(remote.folder(folder).files) for folder in sync.folders)
        if moves:
            unsafe = remote.unsafe_to_remove(sync.folders, secrets.token_hex(8), sync.target)
    finally:
        remote.close()
    if unsafe:
        raise ConfigError(
            f"Its files are copied, not moved: the server can't be trusted to delete, {unsafe}.",
            remedy='Set mode = "copy", or use another target or server.',
        )
    words = [f"{'moves' if moves else 'copies'}, {files} files at the top of its folders"]
    parts, file = urlsplit(sync.url), sync.password_file
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        words.append("the password is sent unencrypted (http)")
    if file is not None and file.stat().st_mode & OTHERS:
        words.append(f"other users may read {printable(file)} (chmod 600)")
    return "; ".join(words)


FOLDER = "hevcq-doctor"
"""The folder of the clips below `TODO/<profile>/` and `DONE/<profile>/`; the operator policy allows to
delete renditions there and nowhere else."""
POLL_S = 2.0
FLEET_TIMEOUT_S, LOCAL_TIMEOUT_S = 1200.0, 120.0
"""A fleet may have to start from zero after a quiet spell; workers of this machine run or do not."""


class Stage(StrEnum):
    """Where a clip stopped."""

    UPLOAD = "upload"
    QUEUE = "queue"
    WORKER = "worker"
    PUBLISH = "publish"


REMEDIES: dict[Stage, str] = {
    Stage.UPLOAD: "Look at the input bucket and at this machine's permission to write there.",
    Stage.QUEUE: "Look at the bucket's notification, the topic, its subscription and the queue's policy.",
    Stage.WORKER: "Look at the service's events, then at the workers' log (docs/farm/operations.md).",
    Stage.PUBLISH: "Look at the output bucket, and at the workers' permission to write there.",
}
LOCAL_WORKER = "Start one with `hevcq worker`, or look at its log."


@dataclass(frozen=True, slots=True)
class FarmCheck:
    """What the check needs; `token` makes the keys of this run its own."""

    backend: Backend
    profiles: Mapping[str, Profile]
    encoder: Encoder
    clock: Clock
    token: str
    timeout_s: float | None = None

    @property
    def patience_s(self) -> float:
        if self.timeout_s is not None:
            return self.timeout_s
        return FLEET_TIMEOUT_S if self.backend.announces_uploads else LOCAL_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class SentClip:
    profile: str
    source: Source
    job_id: str


def check_farm(context: FarmCheck) -> Iterator[Finding]:
    """Yield a finding for each profile, as soon as its clip has ended or the time is over.

    Removes what the check left, also when the iteration ends early: renditions and dead letters are
    deleted, unfinished jobs cancelled, and the upload is marked as finished, so that it expires (no
    code of hevcq deletes an upload). Raises no HevcqError.
    """
    sent: list[SentClip] = []
    with tempfile.TemporaryDirectory(prefix="hevcq-doctor-") as folder:
        try:
            for name in sorted(context.profiles):
                try:
                    _ = context.backend.queues[name]
                except HevcqError as error:
                    yield _stopped(name, Stage.QUEUE, error.message, error.remedy)
                    continue
                try:
                    sent.append(_send(context, name, Path(folder)))
                except HevcqError as error:
                    yield _stopped(name, Stage.UPLOAD, error.message, error.remedy)
            yield from _watch(context, list(sent))
        finally:
            left = [what for one in sent for what in _tidy(context, one)]
        if left:
            remedy = "It does no harm; delete it by hand if you like."
            yield Finding(
                Area.FARM, "farm: tidying up", ok=False, detail="; ".join(left), remedy=remedy
            )


def _send(context: FarmCheck, name: str, folder: Path) -> SentClip:
    backend, clip = context.backend, folder / f"{name}-{context.token}.mp4"
    context.encoder.write_test_clip(clip, context.profiles[name])
    key = f"{INBOX}/{name}/{FOLDER}/{clip.name}"
    stop = threading.Event()
    source = backend.store.accept(clip, key, moved=lambda _count: None, stop=stop)
    announced = backend.announces_uploads
    (job,) = backend.task_publisher.publish(source, [name], announced=announced)
    return SentClip(name, source, job.job_id)


def _watch(context: FarmCheck, waiting: list[SentClip]) -> Iterator[Finding]:
    started, never = context.clock.monotonic(), threading.Event()
    while waiting:
        waited = context.clock.monotonic() - started
        late = waited >= context.patience_s
        for one in list(waiting):
            try:
                record = context.backend.ledger.get(one.job_id)
                if not late and (record is None or record.state not in SETTLED):
                    continue
                yield _judged(context, one, record, waited)
            except HevcqError as error:
                if not late:
                    continue
                yield _stopped(one.profile, Stage.QUEUE, error.message, error.remedy)
            waiting.remove(one)
        if waiting:
            context.clock.wait(never, POLL_S)


def _judged(context: FarmCheck, one: SentClip, record: JobRecord | None, waited: float) -> Finding:
    """Return the finding about a clip that has ended, or has had its time."""
    name = one.profile
    if record is None:
        return _stopped(name, Stage.QUEUE, "the ledger forgot its job.")
    published = record.progress is not None and record.progress.phase is Phase.PUBLISH
    stage = Stage.PUBLISH if published else Stage.WORKER
    match record.state:
        case JobState.DONE:
            return _published(context, name, record, waited)
        case JobState.SKIPPED:
            detail = f"queue and worker answer; publishing was not tried: {record.reason}"
            return Finding(Area.FARM, f"farm: {name}", ok=True, detail=detail)
        case JobState.DEAD:
            why = f"the job failed ({record.failure_class}): {record.reason}"
        case JobState.QUEUED if record.fence == 0:
            return _unclaimed(context, name, waited)
        case _ if record.reason:
            why = f"it is not done after {waited:.0f} s; the last try ended: {record.reason}"
        case _:
            at = f" in its phase {record.progress.phase}" if record.progress else ""
            why = f"after {waited:.0f} s a worker has it{at}."
    return _stopped(name, stage, why)


def _unclaimed(context: FarmCheck, name: str, waited: float) -> Finding:
    after = f"after {waited:.0f} s"
    depth = context.backend.queues[name].depth()
    if not depth.empty:
        remedy = "" if context.backend.announces_uploads else LOCAL_WORKER
        return _stopped(
            name, Stage.WORKER, f"{after} its task waits, and no worker took it.", remedy
        )
    return _stopped(name, Stage.QUEUE, f"{after} no task had reached the queue.")


def _published(context: FarmCheck, name: str, record: JobRecord, waited: float) -> Finding:
    made = record.rendition
    there = context.backend.store.stat(made.key) if made else None
    if made is None or there is None or there.sha256 != made.sha256:
        return _stopped(name, Stage.PUBLISH, "its job is done, and its rendition is not there.")
    with context.backend.store.open(made.certificate_key) as stream:
        served = Certificate.read(stream).hevcq_version
    done = f"encoded, verified and published in {waited:.0f} s"
    detail = f"{done} ({made.size} bytes) by hevcq {served}"
    return Finding(Area.FARM, f"farm: {name}", ok=True, detail=detail)


def _stopped(name: str, stage: Stage, why: str, remedy: str = "") -> Finding:
    detail = f"The clip stopped at the {stage}: {why}"
    return Finding(
        Area.FARM, f"farm: {name}", ok=False, detail=detail, remedy=remedy or REMEDIES[stage]
    )


def _tidy(context: FarmCheck, one: SentClip) -> Iterator[str]:
    """Remove what a clip left; yield what could not be removed."""
    backend, store = context.backend, context.backend.store
    try:
        record = backend.ledger.get(one.job_id)
        if record is not None and record.state not in SETTLED:
            backend.ledger.cancel(one.job_id, "hevcq doctor waits no longer.")
        if record is not None and record.failure_class not in (None, FailureClass.CANCELLED):
            queue = backend.queues[one.profile]
            for letter in queue.dead_letters(Selection(job_id=one.job_id)):
                queue.purge(letter)
        prefix = f"{OUTBOX}/{one.profile}/{FOLDER}/{one.profile}-{context.token}."
        for each in list(store.list(prefix)):
            store.delete(each.key)
    except HevcqError as error:
        yield f"{one.profile}: {error.message}"
    # Without the permission to tag, the upload only stays longer.
    with suppress(HevcqError):
        store.mark_source_finished(one.source, collected=True)
