"""Run the SQL of jobs and messages that ledger, queue and publisher share, within the caller's transaction.

A row of the job table is a job, or a subjob of a split job: one chunk, or the join.

Fair share: each message is assigned to a round ("turn") when it is sent. A task without a group
and the first task of a group join the round after the one being served; each further task of a
group joins the round after that of its predecessor. Rounds are served in order, and messages within
a round in the order of sending. A new task thus waits for the served round and at most one more
task of each group, never for a whole video. The served round gets no new messages and earlier rounds are not reopened,
so no task starves. Joins are served before all rounds. A claim still reads only the head of one index.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hevcq.domain.job import (
    JobRecord,
    JobState,
    Phase,
    Progress,
    RenditionRef,
    Source,
    Split,
    SubjobOf,
    Task,
    TaskKind,
    job_id,
    subjob_id,
)
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import BadMessage
from hevcq.ports.ledger import JobFilter
from hevcq.sqlite.database import Database

PAGE = 500

Row = tuple[float, int, tuple[Any, ...]]
"""updated_at, seq and the values of COLUMNS."""

COLUMNS = (
    "job_id, bucket, key, version, size, profile, state, fence, failures, crashes, owner, "
    "lease_until, phase, percent, speed, eta_s, reason, failure_class, rendition_key, "
    "rendition_size, rendition_sha256, certificate_key, created_at, updated_at, started_at, "
    "finished_at, cpu_s, split, whole, parent, part_split, chunk, frames, doubts, notices, "
    "certificate_sha256"
)
BY_ID = f"SELECT {COLUMNS} FROM job WHERE job_id = ?"  # noqa: S608 - constants only
INSERT_JOB = """INSERT INTO job
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


def job_record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record of a row selected as COLUMNS."""
    (name, bucket, key, version, size, profile, state, fence, failures, crashes) = row[:10]
    (owner, lease_until, phase, percent, speed, eta_s, reason, failure_class) = row[10:18]
    (created_at, updated_at, started_at, finished_at, cpu_s) = row[22:27]
    (split, whole, parent, part_split, chunk, frames, suspected_worker_faults) = row[27:34]
    notices, certificate_sha256 = row[34:]
    progress = part = None
    if parent:
        part = SubjobOf(job_id=parent, split=part_split, chunk=chunk, frames=frames)
    if phase is not None:
        progress = Progress(phase=Phase(phase), percent=percent, speed=speed, eta_s=eta_s)
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
        rendition=_rendition((*row[18:22], certificate_sha256), notices),
        created_at=created_at,
        updated_at=updated_at,
        started_at=started_at,
        finished_at=finished_at,
        cpu_s=cpu_s,
        split=Split.model_validate_json(split) if split else None,
        subjob=part,
        do_not_split_reason=whole,
        certificate_sha256=certificate_sha256,
    )


def _rendition(made: tuple[Any, ...], notices: str) -> RenditionRef | None:
    key, size, sha256, certificate, certificate_sha256 = made
    if key is None:
        return None
    return RenditionRef(
        key=key,
        size=size,
        sha256=sha256,
        certificate_key=certificate,
        certificate_sha256=certificate_sha256,
        notices=tuple(json.loads(notices)),
    )


def find_job(connection: sqlite3.Connection, name: str) -> JobRecord | None:
    """Return the record of a job id, or None if it is unknown."""
    row = connection.execute(BY_ID, (name,)).fetchone()
    return None if row is None else job_record(row)


def insert_job(connection: sqlite3.Connection, source: Source, profile: str, now: float) -> bool:
    """Insert a QUEUED job unless it exists; return whether it was inserted. `now` is Unix time."""
    name = job_id(source, profile)
    values = (name, source.bucket, source.key, source.version, source.size, profile, now, now)
    return connection.execute(INSERT_JOB, values).rowcount == 1


def ensured_job(
    connection: sqlite3.Connection, source: Source, profile: str, now: float
) -> JobRecord:
    """Return the job's record, inserting it first if it is unknown."""
    name = job_id(source, profile)
    found = find_job(connection, name)
    if found is None:
        insert_job(connection, source, profile, now)
        found = find_job(connection, name)
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
    job = find_job(connection, job_id)
    if job is None or job.state is not JobState.SPLIT or job.split is None:
        return []
    return [job_record(row) for row in connection.execute(SUBJOBS, (job_id, job.split.name))]


SEQ = "SELECT seq FROM job WHERE job_id = ?"
MAX_SEQ = 2**63 - 1


def job_pages(database: Database, wanted: JobFilter, state: JobState | None) -> Iterator[Row]:
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


READY, IN_FLIGHT, DELAYED = 0, 1, 2
MAX_DUE_PER_CLAIM = 128
"""Maximum number of due messages that one claim makes ready; bounds its cost."""

MAX_RETURNED_SCANNED = 64
"""Maximum number of returned messages that a send skips to find the served round; bounds its cost."""

FIRST = 0
"""The round of joins, served before any other: a join needs nothing but its own video's chunks, which
are all done, and frees their space."""
HEAD = """SELECT turn, attempts FROM message WHERE queue = ? AND state = 0 AND turn > 0
ORDER BY turn LIMIT ?"""
LAST_OF_GROUP = "SELECT MAX(turn) FROM message WHERE queue = ? AND grp = ? AND grp <> ''"
INSERT_MESSAGE = """INSERT INTO message (queue, state, turn, visible_at, grp, sent_at, body)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
MAKE_READY = """UPDATE message SET state = 0 WHERE id IN (SELECT id FROM message
WHERE queue = ? AND state > 0 AND visible_at <= ? ORDER BY visible_at LIMIT ?)"""
CLAIM = """UPDATE message SET state = 1, attempts = attempts + 1, held = attempts + 1, owner = ?,
visible_at = ? WHERE id IN (SELECT id FROM message WHERE queue = ? AND state = 0
ORDER BY turn, id LIMIT ?) RETURNING id, turn, attempts, sent_at, body"""
CLAIM_PARTS = CLAIM.replace("state = 0\nORDER", "state = 0 AND (grp <> '' OR turn = 0)\nORDER")
"""Claims only parts of split videos: chunks have their video's group, and joins the first round."""
CLAIM_ONE = """UPDATE message SET state = 1, attempts = attempts + 1, held = attempts + 1, owner = ?,
visible_at = ? WHERE id = ? AND state = 0 RETURNING id, turn, attempts, sent_at, body"""
MAX_LOOKED_AT = 5000
"""Maximum number of waiting messages that a claim reads to find one of a preferred job, about 50 ms;
beyond it the usual order decides."""
IN_ORDER = f"""SELECT id, body FROM message WHERE queue = ? AND state = 0
ORDER BY turn, id LIMIT {MAX_LOOKED_AT}"""  # noqa: S608 - constants only
FREE_OWNER = """UPDATE message SET state = 0, held = NULL, owner = ''
WHERE state > 0 AND state = 1 AND owner = ?"""
# Never back to 0: a first delivery is known to be no duplicate.
INTERRUPT_OWNER = """UPDATE message SET state = 0, held = NULL, owner = '',
attempts = MAX(1, attempts - 1) WHERE state > 0 AND state = 1 AND owner = ?"""
TOO_LATE = "SELECT 1 FROM message WHERE state = 2 AND visible_at > ? LIMIT 1"
RECALL_TOO_LATE = "UPDATE message SET visible_at = ? WHERE state = 2 AND visible_at > ?"
HELD_BY = "SELECT 1 FROM message WHERE state > 0 AND state = 1 AND owner = ? LIMIT 1"
EXTEND = "UPDATE message SET state = 1, visible_at = ?, owner = ? WHERE id = ? AND held = ?"
ACK = "DELETE FROM message WHERE id = ? AND held = ?"
RELEASE = """UPDATE message SET state = ?, visible_at = ?, held = NULL, owner = ''
WHERE id = ? AND held = ?"""
REMOVE = """DELETE FROM message WHERE id = ? AND held = ? RETURNING queue, body, attempts, grp"""
INSERT_DEAD_LETTER = """INSERT INTO dead_letter
(queue, body, job_id, reason, failure_class, attempts, tail, grp, buried_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
DELETE_OBSOLETE_LETTERS = """DELETE FROM dead_letter WHERE job_id = :job_id AND failure_class = 'receives'
AND (SELECT state FROM job WHERE job_id = :job_id) IN ('done', 'skipped')"""
REDRIVE_LETTER = "DELETE FROM dead_letter WHERE id = ? AND queue = ? RETURNING body, grp"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send."""

    body: str
    group: str = ""
    first: bool = False


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message just claimed, as a row of the table; `sent_at` is Unix time."""

    number: int
    turn: int
    attempts: int
    sent_at: float
    body: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """One receive of a message; `held` is its attempt number."""

    number: int
    held: int


def outgoing(tasks: Sequence[Task]) -> list[Outgoing]:
    """Return the messages of tasks."""
    return [Outgoing(task.body(), task.group, task.kind is TaskKind.JOIN) for task in tasks]


def send(
    connection: sqlite3.Connection,
    queue: str,
    messages: Sequence[Outgoing],
    *,
    now: float,
    delay_s: float = 0.0,
) -> None:
    """Insert messages, each in its fair-share round, visible after `delay_s` seconds."""
    joining = _served(connection, queue) + 1
    last: dict[str, int] = {}
    state = DELAYED if delay_s > 0 else READY
    rows = []
    for message in messages:
        turn = FIRST if message.first else joining
        if message.group and not message.first:
            if message.group not in last:
                found = connection.execute(LAST_OF_GROUP, (queue, message.group)).fetchone()[0]
                last[message.group] = found or 0
            turn = last[message.group] = max(joining, last[message.group] + 1)
        rows.append((queue, state, turn, now + max(0.0, delay_s), message.group, now, message.body))
    connection.executemany(INSERT_MESSAGE, rows)


def _served(connection: sqlite3.Connection, queue: str) -> int:
    """Return the served round, which is the round of the first message that was never claimed.

    A returned message keeps its old round. New messages must not join that round, or they would
    overtake all messages sent since.
    """
    served = 0
    for turn, attempts in connection.execute(HEAD, (queue, MAX_RETURNED_SCANNED)):
        served = turn
        if attempts == 0:
            break
    return served


@dataclass(frozen=True, slots=True)
class Order:
    """What a consumer asks for: at most `limit` messages, those of `preferred` jobs first.

    With `parts_only` only chunks and joins of split videos, whosever they are.
    """

    queue: str
    limit: int
    owner: str
    preferred: frozenset[str] = frozenset()
    parts_only: bool = False


def claim_messages(
    connection: sqlite3.Connection, order: Order, *, now: float, until: float
) -> list[ClaimedMessage]:
    """Make due messages ready, then claim some in order, hidden until `until` (Unix time).

    If a message of a preferred job is ready, only the first such message is claimed.
    """
    connection.execute(MAKE_READY, (order.queue, now, max(MAX_DUE_PER_CLAIM, order.limit)))
    chosen = order.preferred and not order.parts_only
    first = _first_preferred(connection, order) if chosen else None
    if first is not None:
        rows = connection.execute(CLAIM_ONE, (order.owner, until, first)).fetchall()
    else:
        values = (order.owner, until, order.queue, order.limit)
        sql = CLAIM_PARTS if order.parts_only else CLAIM
        rows = connection.execute(sql, values).fetchall()
    return sorted(
        (ClaimedMessage(*row) for row in rows), key=lambda taken: (taken.turn, taken.number)
    )


def _first_preferred(connection: sqlite3.Connection, order: Order) -> int | None:
    for number, body in connection.execute(IN_ORDER, (order.queue,)):
        if job_of(body) in order.preferred:
            return int(number)
    return None


def bury(connection: sqlite3.Connection, receipt: Receipt, why: Bury, *, now: float) -> bool:
    """Move a received message to the dead letters; return False if the receipt is stale."""
    row = connection.execute(REMOVE, (receipt.number, receipt.held)).fetchone()
    if row is None:
        return False
    queue, body, attempts, group = row
    tail = json.dumps(list(why.tail))
    letter = (queue, body, job_of(body), why.reason, why.failure_class, attempts, tail, group, now)
    connection.execute(INSERT_DEAD_LETTER, letter)
    return True


def bury_exhausted(connection: sqlite3.Connection, taken: ClaimedMessage, *, now: float) -> Bury:
    """Bury a message that reached its queue's receive limit, and return the recorded reason.

    This receive is not counted.
    """
    received = taken.attempts - 1
    connection.execute(
        "UPDATE message SET attempts = ?, held = ? WHERE id = ?", (received, received, taken.number)
    )
    reason = f"Received {received} times without being settled."
    why = Bury(reason=reason, failure_class=FailureClass.RECEIVES)
    bury(connection, Receipt(taken.number, received), why, now=now)
    return why


def delete_obsolete_letters(connection: sqlite3.Connection, job_id: str) -> None:
    """Delete the dead letters for exceeded receives of a job that is now done.

    A slow worker may finish a job after its message was buried; its dead letter needs no action.
    """
    connection.execute(DELETE_OBSOLETE_LETTERS, {"job_id": job_id})


def finish(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any]) -> sqlite3.Cursor:
    """Run the statement that finishes a job, and delete its obsolete dead letters."""
    done = connection.execute(sql, values)
    delete_obsolete_letters(connection, values["job_id"])
    return done


def redrive(connection: sqlite3.Connection, queue: str, letter: int, *, now: float) -> bool:
    """Replace a dead letter by a new message; return False if the letter is gone."""
    row = connection.execute(REDRIVE_LETTER, (letter, queue)).fetchone()
    if row is None:
        return False
    send(connection, queue, [Outgoing(*row)], now=now)
    return True


def job_of(body: str) -> str:
    """Return the job id in a message body, or an empty string if it cannot be read."""
    task = task_of(body)
    return task.job_id if task is not None else ""


def task_of(body: str) -> Task | None:
    """Return the task in a message body, or None if it cannot be read."""
    try:
        return Task.parse(body)
    except BadMessage:
        return None
