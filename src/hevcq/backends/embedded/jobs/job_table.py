"""Job rows: how one becomes a JobRecord, and the insert that ledger and fan-out share."""

from __future__ import annotations

import sqlite3
from typing import Any

from hevcq.domain.job import (
    JobRecord,
    JobState,
    PartOf,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
    job_id,
)
from hevcq.domain.verdict import FailureClass

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


def record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record of a row that was selected as COLUMNS."""
    (name, bucket, key, version, size, profile, state, fence, failures, crashes) = row[:10]
    (owner, lease_until, phase, percent, speed, eta_s, reason, failure_class) = row[10:18]
    (rendition_key, rendition_size, sha256, certificate) = row[18:22]
    (created_at, updated_at, started_at, finished_at, cpu_s) = row[22:27]
    (split, whole, parent, part_split, chunk, frames, doubts) = row[27:]
    progress = rendition = part = None
    if parent:
        part = PartOf(job_id=parent, split=part_split, chunk=chunk, frames=frames)
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
        doubts=doubts,
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
        part=part,
        whole=whole,
    )


def find(connection: sqlite3.Connection, name: str) -> JobRecord | None:
    """Return the record of a job id, or None."""
    row = connection.execute(BY_ID, (name,)).fetchone()
    return None if row is None else record(row)


def insert(connection: sqlite3.Connection, source: Source, profile: str, now: float) -> bool:
    """Insert a QUEUED job unless there is one; return whether it was new."""
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
