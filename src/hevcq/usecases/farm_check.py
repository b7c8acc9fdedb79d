"""Run checks of `hevcq doctor`: the frame for all of them, syncs, and a test clip through each profile of a farm."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from hevcq.domain.certificate import Certificate
from hevcq.domain.job import SETTLED, JobRecord, JobState, Phase
from hevcq.domain.keys import INBOX, OUTBOX
from hevcq.domain.verdict import FailureClass
from hevcq.errors import ConfigError, HevcqError, StorageError, is_full
from hevcq.settings.libraries import SyncSettings
from hevcq.usecases.context import Tools
from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.remotes.webdav import WebDavRemote

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OTHERS = 0o077
"""Rights of other users on a file with a password."""


class Area(StrEnum):
    """The subject of a finding; the exit code depends on it."""

    CONFIG = "configuration"
    ENCODER = "ffmpeg"
    FOLDER = "folder"
    CLOCK = "clock"
    DATABASE = "database"
    SYNC = "sync"
    MESSAGES = "messages"
    FARM = "farm"


class Check(NamedTuple):
    """One line of `hevcq doctor`: `look` returns its finding, or raises an error with a remedy.

    An empty finding is not printed.
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


def wrong(area: Area, name: str, error: HevcqError) -> Finding:
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


def sync_words(sync: SyncSettings, open_remote: Callable[[SyncSettings], WebDavRemote]) -> str:
    """Return what a sync would do. Raises HevcqError if it would not run.

    For a sync that moves files, it tries a deletion on the server with a file of its own.
    """
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
"""The folder of the clips below `TODO/<profile>/` and `DONE/<profile>/`; the operator policy allows
deleting renditions only there."""
POLL_S = 2.0
FLEET_TIMEOUT_S, LOCAL_TIMEOUT_S = 1200.0, 120.0
"""A fleet may have to start from zero; workers of this machine run already or never will."""


REMEDIES = {
    "upload": "Look at the input bucket and at this machine's permission to write there.",
    "queue": "Look at the bucket's notification, the topic, its subscription and the queue's policy.",
    "worker": "Look at the service's events, then at the workers' log (docs/farm/operations.md).",
    "publish": "Look at the output bucket, and at the workers' permission to write there.",
}
"""Remedies by the stage at which a clip stopped."""
LOCAL_WORKER = "Start one with `hevcq worker`, or look at its log."


def check_farm(tools: Tools, token: str) -> Iterator[Finding]:
    """Yield a finding for each profile, as soon as its clip has ended or timed out.

    `token` makes the keys of this run unique.

    In the end, even if the iteration stops early, renditions and dead letters are deleted, unfinished
    jobs cancelled, and the upload is marked as finished so that it expires (no code of hevcq deletes
    an upload). Raises no HevcqError.
    """
    sent: list[JobRecord] = []
    with tempfile.TemporaryDirectory(prefix="hevcq-doctor-") as folder:
        try:
            for name in sorted(tools.profiles):
                try:
                    _ = tools.backend.queues[name]
                except HevcqError as error:
                    yield _stopped(name, "queue", error.message, error.remedy)
                    continue
                try:
                    sent.append(_send(tools, name, Path(folder) / f"{name}-{token}.mp4"))
                except HevcqError as error:
                    yield _stopped(name, "upload", error.message, error.remedy)
            yield from _await_clips(tools, list(sent))
        finally:
            left = [what for one in sent for what in _remove_traces(tools, one)]
        if left:
            remedy = "It does no harm; delete it by hand if you like."
            yield Finding(
                Area.FARM, "farm: tidying up", ok=False, detail="; ".join(left), remedy=remedy
            )


def _send(tools: Tools, name: str, clip: Path) -> JobRecord:
    backend = tools.backend
    tools.encoder.write_test_clip(clip)
    key = f"{INBOX}/{name}/{FOLDER}/{clip.name}"
    stop = threading.Event()
    source = backend.store.accept(clip, key, moved=lambda _count: None, stop=stop)
    announced = backend.announces_uploads
    (job,) = backend.task_publisher.publish(source, [name], announced=announced)
    return job


def _await_clips(tools: Tools, waiting: list[JobRecord]) -> Iterator[Finding]:
    started, never = tools.clock.monotonic(), threading.Event()
    patience_s = FLEET_TIMEOUT_S if tools.backend.announces_uploads else LOCAL_TIMEOUT_S
    while waiting:
        waited = tools.clock.monotonic() - started
        late = waited >= patience_s
        for one in list(waiting):
            try:
                record = tools.backend.ledger.get(one.job_id)
                if not late and (record is None or record.state not in SETTLED):
                    continue
                yield _finding(tools, one.profile, record, waited)
            except HevcqError as error:
                if not late:
                    continue
                yield _stopped(one.profile, "queue", error.message, error.remedy)
            waiting.remove(one)
        if waiting:
            tools.clock.wait(never, POLL_S)


def _finding(tools: Tools, name: str, record: JobRecord | None, waited: float) -> Finding:
    if record is None:
        return _stopped(name, "queue", "the ledger forgot its job.")
    published = record.progress is not None and record.progress.phase is Phase.PUBLISH
    stage = "publish" if published else "worker"
    match record.state:
        case JobState.DONE:
            return _published(tools, name, record, waited)
        case JobState.SKIPPED:
            detail = f"queue and worker answer; publishing was not tried: {record.reason}"
            return Finding(Area.FARM, f"farm: {name}", ok=True, detail=detail)
        case JobState.DEAD:
            why = f"the job failed ({record.failure_class}): {record.reason}"
        case JobState.QUEUED if record.fence == 0:
            after = f"after {waited:.0f} s"
            if tools.backend.queues[name].depth().empty:
                return _stopped(name, "queue", f"{after} no task had reached the queue.")
            remedy = "" if tools.backend.announces_uploads else LOCAL_WORKER
            words = f"{after} its task waits, and no worker took it."
            return _stopped(name, "worker", words, remedy)
        case _ if record.reason:
            why = f"it is not done after {waited:.0f} s; the last try ended: {record.reason}"
        case _:
            at = f" in its phase {record.progress.phase}" if record.progress else ""
            why = f"after {waited:.0f} s a worker has it{at}."
    return _stopped(name, stage, why)


def _published(tools: Tools, name: str, record: JobRecord, waited: float) -> Finding:
    ref = record.rendition
    stored = tools.backend.store.stat(ref.key) if ref else None
    if ref is None or stored is None or stored.sha256 != ref.sha256:
        return _stopped(name, "publish", "its job is done, and its rendition is not there.")
    with tools.backend.store.open(ref.certificate_key) as stream:
        version = Certificate.read(stream).hevcq_version
    done = f"encoded, verified and published in {waited:.0f} s"
    detail = f"{done} ({ref.size} bytes) by hevcq {version}"
    return Finding(Area.FARM, f"farm: {name}", ok=True, detail=detail)


def _stopped(name: str, stage: str, why: str, remedy: str = "") -> Finding:
    detail = f"The clip stopped at the {stage}: {why}"
    return Finding(
        Area.FARM, f"farm: {name}", ok=False, detail=detail, remedy=remedy or REMEDIES[stage]
    )


def _remove_traces(tools: Tools, one: JobRecord) -> Iterator[str]:
    """Remove a clip's traces; yield the errors."""
    backend, store = tools.backend, tools.backend.store
    try:
        record = backend.ledger.get(one.job_id)
        if record is not None and record.state not in SETTLED:
            backend.ledger.cancel(one.job_id, "hevcq doctor waits no longer.")
        if record is not None and record.failure_class not in (None, FailureClass.CANCELLED):
            queue = backend.queues[one.profile]
            for letter in queue.dead_letters(one.job_id):
                queue.purge(letter)
        prefix = f"{OUTBOX}/{one.profile}/{FOLDER}/{PurePosixPath(one.source.key).stem}."
        for each in list(store.list(prefix)):
            store.delete(each.key)
    except HevcqError as error:
        yield f"{one.profile}: {error.message}"
    # Without the permission to tag, the upload only stays longer.
    with suppress(HevcqError):
        store.mark_source_finished(one.source, collected=True)
