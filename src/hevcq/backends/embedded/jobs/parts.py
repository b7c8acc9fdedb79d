"""The SQL of split jobs, as functions on a connection inside a transaction of the caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from hevcq.backends.embedded.jobs.job_table import COLUMNS, find, record
from hevcq.domain.job import JobRecord, JobState, Split, part_id

INSERT = """INSERT INTO job (job_id, bucket, key, version, size, profile, state, parent, part_split,
chunk, frames, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)"""
SPLIT = """UPDATE job SET state = 'split', split = :split, owner = '', lease_until = 0,
phase = NULL, reason = '', failure_class = NULL, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state = 'running'"""
ANNOUNCE = """UPDATE job SET split = json_set(split, '$.announced', json('true'))
WHERE job_id = ? AND state = 'split' AND json_extract(split, '$.name') = ?"""
UNSPLIT = """UPDATE job SET state = 'queued', split = NULL, whole = :reason, reason = :reason,
failure_class = NULL, updated_at = :now
WHERE job_id = :job_id AND fence = :fence AND state = 'split'"""
# Not where the part is done, or somebody holds it: then the message was one too many.
BURY_UNCLAIMED = """UPDATE job SET state = 'dead', reason = :reason, failure_class = :class,
finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND state = 'split' AND json_extract(split, '$.name') = :split
AND EXISTS (SELECT 1 FROM job AS part WHERE part.job_id = :part AND (part.state IN ('queued', 'dead')
OR (part.state = 'running' AND part.lease_until <= :now)))"""
FORGET = "DELETE FROM job WHERE parent <> '' AND parent = ?"
# Who forgets may come late, when the job was queued and split again.
FORGET_UNLESS_SPLIT = """DELETE FROM job WHERE parent <> '' AND parent = :job_id
AND NOT EXISTS (SELECT 1 FROM job AS whole WHERE whole.job_id = :job_id AND whole.state = 'split')"""
# The join has no number, and comes last.
PARTS = f"""SELECT {COLUMNS} FROM job WHERE parent <> '' AND parent = ? AND part_split = ?
ORDER BY chunk IS NULL, chunk"""  # noqa: S608 - constants only


def split(
    connection: sqlite3.Connection, job: JobRecord, made: Split, frames: Sequence[int], now: float
) -> bool:
    """Split a job that is RUNNING under the fence of `job`, and put its parts in; False if not."""
    values = {
        "split": made.model_dump_json(),
        "job_id": job.job_id,
        "fence": job.fence,
        "now": now,
    }
    if connection.execute(SPLIT, values).rowcount != 1:
        return False
    connection.execute(FORGET, (job.job_id,))
    chunks: list[tuple[int | None, int]] = [*enumerate(frames), (None, 0)]
    source = job.source
    rows = [
        (
            part_id(job.job_id, made.name, chunk),
            *(source.bucket, source.key, source.version, source.size, job.profile),
            *(job.job_id, made.name, chunk, held, now, now),
        )
        for chunk, held in chunks
    ]
    connection.executemany(INSERT, rows)
    return True


def parts(connection: sqlite3.Connection, job_id: str) -> list[JobRecord]:
    """Return the parts of a SPLIT job, chunks in order and the join last; else nothing."""
    job = find(connection, job_id)
    if job is None or job.state is not JobState.SPLIT or job.split is None:
        return []
    return [record(row) for row in connection.execute(PARTS, (job_id, job.split.name))]
