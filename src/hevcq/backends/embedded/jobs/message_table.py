"""Run the SQL of queues on a connection within the caller's transaction.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hevcq.domain.job import Task, TaskKind
from hevcq.domain.verdict import Bury, FailureClass
from hevcq.errors import BadMessage

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
INSERT = """INSERT INTO message (queue, state, turn, visible_at, grp, sent_at, body)
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
    connection.executemany(INSERT, rows)


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


def claim(
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
