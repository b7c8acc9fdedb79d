"""Keep failed and refused videos as they are: no run reports them again until somebody retries them.

Each becomes a skipped job, which every part of hevcq knows. A file that changed since is another video.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hevcq.domain.job import JobRecord, JobState, Source, job_id
from hevcq.domain.keys import EVERY_PROFILE, key_for_path
from hevcq.errors import PermanentError
from hevcq.library.filesystem import fingerprint_of
from hevcq.ports.backend import Backend
from hevcq.ports.catalog import Mode, Placement
from hevcq.ports.ledger import Granted
from hevcq.sql.catalog import Catalog
from hevcq.sql.event_log import EventLog
from hevcq.usecases.context import Ports
from hevcq.usecases.operations.dead_letters import DeadLetterFilter, find, purge
from hevcq.usecases.operations.reprocess import jobs_named
from hevcq.usecases.placement.lock import placing

KEPT = "Kept as it is, as asked."
UNUSABLE = "video.unusable"
LEASE_S = 60.0
PAGE = 1000


def keep_failed(
    backend: Backend, catalog: Catalog, names: Iterable[str], who: str
) -> Iterator[JobRecord]:
    """Let the failed jobs of paths, folders, keys or job ids end as skipped; yield each.

    The dead letter goes last, so that one whose job a kill left queued is found again.
    """
    for name in names:
        for job in list(jobs_named(backend, name, catalog)):
            letters = DeadLetterFilter([job.profile], job=job.job_id)
            known = job.profile in backend.queues
            left = job.state is JobState.QUEUED and known and any(find(backend.queues, letters))
            if job.state is not JobState.DEAD and not left:
                continue
            backend.ledger.reopen(job.job_id, who=who, why="acknowledged")
            if _skip(backend, job.source, job.profile, job.reason):
                if known:
                    list(purge(backend.queues, letters))
                yield job


def keep_unusable(
    ports: Ports, log: EventLog, paths: Sequence[Path], profiles: Sequence[str]
) -> Iterator[tuple[Path, str]]:
    """Record named files, and those below folders that were refused within a week, as skipped.

    Yields path and profile of each. A file that is encoded, or is being encoded, stays as it is.
    """
    refused = reported(log)
    for path in paths:
        below = {each: why for each, why in refused.items() if path in each[0].parents}
        wanted = {(path, ""): refused.get((path, ""), "")} if path.is_file() else below
        for (file, profile), why in wanted.items():
            for name in [profile] if profile else profiles:
                if _record(ports, file, name, why):
                    yield file, name


def reported(log: EventLog) -> dict[tuple[Path, str], str]:
    """Return why files were refused in the last week, by path and profile ("": any)."""
    seq, found = 0, dict[tuple[Path, str], str]()
    while page := log.after(seq, PAGE):
        for event in page:
            if event.name == UNUSABLE:
                found[Path(event.source), event.profile] = event.reason
        seq = page[-1].seq
    return found


def _record(ports: Ports, path: Path, profile: str, why: str) -> bool:
    backend = ports.backend
    key = key_for_path(os.fspath(path), EVERY_PROFILE, backend.namespace())
    try:
        facts = path.lstat()
        source = backend.store.accept(path, key, moved=lambda _: None, stop=threading.Event())
    except (OSError, PermanentError):
        return False  # gone since, or unreadable: nothing tells it from another file
    name = job_id(source, profile)
    with placing(ports):
        if ports.catalog.placement(name) is None:
            fingerprint, now = fingerprint_of(facts), ports.clock.now()
            note = Placement(
                name,
                path.parent,
                path,
                fingerprint,
                profile,
                Mode.BESIDE,
                path,
                0.0,
                updated_at=now,
            )
            ports.catalog.record_placements([note])
    return _skip(backend, source, profile, why)


def _skip(backend: Backend, source: Source, profile: str, why: str) -> bool:
    claim = backend.ledger.claim(source, profile, owner=backend.owner, lease_s=LEASE_S)
    if not isinstance(claim, Granted):
        return False
    reason = why.removeprefix(KEPT).strip()
    backend.ledger.skip(job_id(source, profile), claim.fence, f"{KEPT} {reason}".strip())
    return True
