"""Map rows of the job table to records, and run the SQL that ledger, queue and publisher share.

A row is a job, or a subjob of a split job: one chunk, or the join. Functions that take a connection
run inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from hevcq.backends.embedded.database import Database
from hevcq.domain.job import (
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    job_id,
    subjob_id,
)
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import JobFilter

PAGE = 500

Row = tuple[float, int, tuple[Any, ...]]
"""updated_at, seq and the values of COLUMNS."""

COLUMNS = (
    "job_id, bucket, key, version, size, profile, state, fence, failures, crashes, owner, "
    "lease_until, phase, percent, speed, eta_s, reason, failure_class, rendition_key, "
    "rendition_size, rendition_sha256, certificate_key, created_at, updated_at, started_at, "
    "finished_at, cpu_s, split, whole, parent, part_split, chunk, frames, doubts"
)
BY_ID = f"SELECT {COLUMNS} FROM job WHERE job_id = ?"  # noqa: S608 - constants only
INSERT = """INSERT INTO job
(job_id, bucket, key, version, size, profile, state, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?) ON CONFLICT (job_id) DO NOTHING"""
INSERT_SUBJOB = """INSERT INTO job (job_id, bucket, key, version, size, profile, state, parent, part_split,
chunk, frames, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)"""
SPLIT = """UPDATE job SET state = 'split', split = :split, owner = '', lease_until = 0,
phase = NULL, reason = '', failure_class = NULL, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
MARK_ENQUEUED = """UPDATE job SET split = json_set(split, '$.announced', json('true'))
WHERE job_id = ? AND state = 'split' AND json_extract(split, '$.name') = ?"""
ABANDON_SPLIT = """UPDATE job SET state = 'queued', split = NULL, whole = :reason, reason = :reason,
failure_class = NULL, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state = 'split'"""
# Not if the subjob is done or under a live lease: then the message was a duplicate.
BURY_SPLIT_JOB = """UPDATE job SET state = 'dead', reason = :reason, failure_class = :class,
finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND state = 'split' AND json_extract(split, '$.name') = :split
AND EXISTS (SELECT 1 FROM job AS part WHERE part.job_id = :part AND (part.state IN ('queued', 'dead')
OR (part.state = 'running' AND part.lease_until <= :now)))"""
DELETE_SUBJOBS = "DELETE FROM job WHERE parent <> '' AND parent = ?"
# A late cleanup may run after the job was requeued and split again.
DELETE_SUBJOBS_UNLESS_SPLIT = """DELETE FROM job WHERE parent <> '' AND parent = :job_id
AND NOT EXISTS (SELECT 1 FROM job AS whole WHERE whole.job_id = :job_id AND whole.state = 'split')"""
# The join has no chunk number and sorts last.
SUBJOBS = f"""SELECT {COLUMNS} FROM job WHERE parent <> '' AND parent = ? AND part_split = ?
ORDER BY chunk IS NULL, chunk"""  # noqa: S608 - constants only


def record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record of a row selected as COLUMNS."""
    (name, bucket, key, version, size, profile, state, fence, failures, crashes) = row[:10]
    (owner, lease_until, phase, percent, speed, eta_s, reason, failure_class) = row[10:18]
    (rendition_key, rendition_size, sha256, certificate) = row[18:22]
    (created_at, updated_at, started_at, finished_at, cpu_s) = row[22:27]
    (split, whole, parent, part_split, chunk, frames, suspected_worker_faults) = row[27:]
    progress = rendition = part = None
    if parent:
        part = SubjobOf(job_id=parent, split=part_split, chunk=chunk, frames=frames)
    if phase is not None:
        progress = Progress(phase=Phase(phase), percent=percent, speed=speed, eta_s=eta_s)
    if rendition_key is not None:
        rendition = RenditionRef(
            key=rendition_key, size=rendition_size, sha256=sha256, certificate_key=certificate
        )
    return JobRecord(
        job_id=name,
        source=Source(bucket=bucket, key=key, version=version, size=size),
        profile=profile,
        state=JobState(state),
        fence=fence,
        failures=failures,
        crashes=crashes,
        suspected_worker_faults=suspected_worker_faults,
        owner=owner,
        lease_until=lease_until,
        progress=progress,
        reason=reason,
        failure_class=FailureClass(failure_class) if failure_class else None,
        rendition=rendition,
        created_at=created_at,
        updated_at=updated_at,
        started_at=started_at,
        finished_at=finished_at,
        cpu_s=cpu_s,
        split=Split.model_validate_json(split) if split else None,
        subjob=part,
        do_not_split_reason=whole,
    )


def find(connection: sqlite3.Connection, name: str) -> JobRecord | None:
    """Return the record of a job id, or None if it is unknown."""
    row = connection.execute(BY_ID, (name,)).fetchone()
    return None if row is None else record(row)


def insert(connection: sqlite3.Connection, source: Source, profile: str, now: float) -> bool:
    """Insert a QUEUED job unless it exists; return whether it was inserted. `now` is Unix time."""
    name = job_id(source, profile)
    values = (name, source.bucket, source.key, source.version, source.size, profile, now, now)
    return connection.execute(INSERT, values).rowcount == 1


def ensured(connection: sqlite3.Connection, source: Source, profile: str, now: float) -> JobRecord:
    """Return the job's record, inserting it first if it is unknown."""
    name = job_id(source, profile)
    found = find(connection, name)
    if found is None:
        insert(connection, source, profile, now)
        found = find(connection, name)
    assert found is not None
    return found


def split_job(
    connection: sqlite3.Connection, job: JobRecord, made: Split, frames: Sequence[int], now: float
) -> bool:
    """Split a job and insert its subjobs; return False unless it is RUNNING under the fence of `job`."""
    values = {
        "split": made.model_dump_json(),
        "job_id": job.job_id,
        "fence": job.fence,
        "now": now,
    }
    if connection.execute(SPLIT, values).rowcount != 1:
        return False
    connection.execute(DELETE_SUBJOBS, (job.job_id,))
    chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]
    source = job.source
    rows = [
        (
            subjob_id(job.job_id, made.name, chunk),
            *(source.bucket, source.key, source.version, source.size, job.profile),
            *(job.job_id, made.name, chunk, held, now, now),
        )
        for chunk, held in chunks
    ]
    connection.executemany(INSERT_SUBJOB, rows)
    return True


def subjobs(connection: sqlite3.Connection, job_id: str) -> list[JobRecord]:
    """Return the subjobs of a SPLIT job, chunks in order and the join last; else an empty list."""
    job = find(connection, job_id)
    if job is None or job.state is not JobState.SPLIT or job.split is None:
        return []
    return [record(row) for row in connection.execute(SUBJOBS, (job_id, job.split.name))]


SEQ = "SELECT seq FROM job WHERE job_id = ?"
MAX_SEQ = 2**63 - 1


def pages(database: Database, wanted: JobFilter, state: JobState | None) -> Iterator[Row]:
    """Yield (updated_at, seq, columns) of matching jobs in `state`, or in any, newest first."""
    where, values = _conditions(wanted, state)
    # Only constant fragments are joined; every value is bound.
    sql = (
        f"SELECT updated_at, seq, {COLUMNS} FROM job WHERE {where} "  # noqa: S608
        f"ORDER BY updated_at DESC, seq DESC LIMIT {PAGE}"
    )
    bound = {**values, "updated_at": float("inf"), "seq": 0}
    if wanted.before is not None:
        at, job_id = wanted.before
        there = database.row(SEQ, (job_id,))
        bound |= {"updated_at": at, "seq": MAX_SEQ if there is None else there[0]}
    while True:
        rows = database.rows(sql, bound)
        for row in rows:
            yield row[0], row[1], row[2:]
        if len(rows) < PAGE:
            return
        bound |= {"updated_at": rows[-1][0], "seq": rows[-1][1]}


def _conditions(wanted: JobFilter, state: JobState | None) -> tuple[str, dict[str, Any]]:
    parts = ["parent = ''", "(updated_at, seq) < (:updated_at, :seq)"]
    values: dict[str, Any] = {}
    if state is not None:
        parts.append("state = :state")
        values["state"] = state
    if wanted.profile is not None:
        parts.append("profile = :profile")
        values["profile"] = wanted.profile
    if wanted.source_key is not None:
        parts.append("key = :key")
        values["key"] = wanted.source_key
    below = []
    for number, prefix in enumerate(wanted.key_prefixes):
        name = f":prefix{number}"
        below.append(f"(key >= {name} AND substr(key, 1, length({name})) = {name})")
        values[name[1:]] = prefix
    if below:
        parts.append(f"({' OR '.join(below)})")
    if wanted.updated_after is not None:
        parts.append("updated_at > :after")
        values["after"] = wanted.updated_after
    return " AND ".join(parts), values
