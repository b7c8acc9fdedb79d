"""Every SQL statement of jobs, messages and pauses, and which rows a listing or search of jobs reads.

A row of `job` is a job, or a subjob of a split job: one chunk, or the join. Each transition is one UPDATE
conditional on the old state. Listings and searches read a page at a time.
"""
# ruff: noqa: S608 - statements are put together from constants only

import heapq
import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hevcq.domain.job import JobState
from hevcq.domain.keys import EVERY_PROFILE, INBOX
from hevcq.ports.ledger import JobFilter, ListOrder
from hevcq.sql.database import SKIP_LOCKED, Database, upsert

COLUMNS = (
    "job_id, bucket, key, version, size, profile, state, fence, failures, crashes, "
    "suspected_worker_faults, owner, lease_until, progress, reason, failure_class, rendition, "
    "created_at, updated_at, started_at, finished_at, cpu_s, split, subjob, do_not_split_reason, "
    "certificate_sha256"
)
BY_ID = f"SELECT {COLUMNS} FROM job WHERE job_id = ?"
INSERT_JOB = f"""INSERT INTO job ({COLUMNS}, parent)
VALUES (:{COLUMNS.replace(", ", ", :")}, :parent) ON CONFLICT (job_id) DO NOTHING"""
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
SUBJOBS = f"SELECT {COLUMNS} FROM job WHERE parent <> '' AND parent = ?"
PLACE = "SELECT seq, key, size FROM job WHERE job_id = ?"

# What a start that frees dead processes counts, beside the record of the job.
FORGET_INTERRUPTIONS = "UPDATE job SET place = '', interruptions = 0 WHERE job_id = ?"
RUNNING_OF = """state = 'running'
AND (owner = :owner OR owner >= :owner || ':' AND owner < :owner || ';')"""
"""Jobs that a process runs: its owners are its name, or begin with it and a colon."""
END_LEASES = f"UPDATE job SET lease_until = 0 WHERE {RUNNING_OF}"
LEASED_BY = f"SELECT 1 FROM job WHERE {RUNNING_OF} LIMIT 1"
MAX_INTERRUPTIONS = 200
"""Interruptions from which on each counts as a crash: a job that ends the program each time would else
be tried for ever."""
PERCENT = "CAST(json_extract(progress, '$.percent') AS REAL)"
AT = f"json_extract(progress, '$.phase') || ' ' || CAST({PERCENT} AS INTEGER)"
# Of all numbers in the assignments SQLite takes the old values.
INTERRUPT_JOBS = f"""UPDATE job SET state = 'queued', owner = '', lease_until = 0,
crashes = crashes + CASE WHEN interruptions >= {MAX_INTERRUPTIONS}
OR ({PERCENT} >= 1 AND place = {AT}) THEN 1 ELSE 0 END,
place = CASE WHEN {PERCENT} >= 1 THEN {AT} ELSE place END,
interruptions = interruptions + 1, progress = NULL, failure_class = NULL, updated_at = :now,
reason = 'Interrupted: hevcq or the machine ended while this ran.' WHERE {RUNNING_OF}"""
HAS_LETTER = "SELECT 1 FROM dead_letter WHERE job_id = ? LIMIT 1"
COUNTS = "SELECT profile, state, count FROM job_count WHERE count > 0"
REMEMBER = upsert(
    "remembered",
    "source_sha256, profile, revision, reason, made_at",
    "source_sha256, profile, revision",
)
RECALL = """SELECT reason, made_at FROM remembered
WHERE source_sha256 = ? AND profile = ? AND revision = ?"""
PAUSES = """SELECT profile, by, since, until, running FROM pause
WHERE until IS NULL OR until > ? ORDER BY profile"""
SET_PAUSE = upsert("pause", "profile, by, since, until, running", "profile")
END_PAUSE = """DELETE FROM pause WHERE ?1 IS NULL OR profile = ?1
RETURNING profile, by, since, until, running"""


READY, IN_FLIGHT, DELAYED = 0, 1, 2
MAX_DUE_PER_CLAIM = 128
"""Maximum number of due messages that one claim makes ready; bounds its cost."""

MAX_RETURNED_SCANNED = 64
"""Maximum number of returned messages that a send skips to find the served round; bounds its cost."""

FIRST = 0
"""The round of joins, served before any other: a join needs nothing but its own video's chunks, which
are all done, and frees their space."""
PRIORITY = 2**32
"""Rounds between a message's round and its place one priority lower: all rounds of one come first."""
HEAD = f"""SELECT turn, attempts FROM message WHERE queue = ? AND state = 0 AND turn > 0
AND turn < {PRIORITY} ORDER BY turn LIMIT ?"""
LAST_OF_GROUP = "SELECT MAX(turn) FROM message WHERE queue = ? AND grp = ? AND grp <> ''"
MOVED_IN_HAND = f"""SELECT turn, body FROM message WHERE queue = ? AND state = 1
AND (turn < 0 OR turn >= {PRIORITY})"""
"""What consumers hold that was moved: the tasks that they send for its job keep its place."""
ROUNDS = "SELECT MIN(turn), MAX(turn) FROM message WHERE queue = ? AND state <> 1"
WITH_A_CHOICE = "SELECT body FROM message WHERE queue = ? AND state <> 1 AND body LIKE ?"
"""What a command chose for its jobs is in their message, so its text does not follow from the job."""
MOVED_AT_ONCE = 100
MOVE = f"""UPDATE message SET turn = turn * ? + ? WHERE queue = ? AND state <> 1
AND body IN ({", ".join("?" * MOVED_AT_ONCE)}) RETURNING body"""
INSERT_MESSAGE = """INSERT INTO message (queue, state, turn, visible_at, grp, sent_at, body)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
MAKE_READY = f"""WITH due AS (SELECT id FROM message WHERE queue = ? AND state > 0
AND visible_at <= ? ORDER BY visible_at LIMIT ? {SKIP_LOCKED})
UPDATE message SET state = 0 WHERE id IN (SELECT id FROM due)"""
CLAIM = f"""WITH head AS (SELECT id FROM message WHERE queue = ? AND state = 0
ORDER BY turn, id LIMIT ? {SKIP_LOCKED})
UPDATE message SET state = 1, attempts = attempts + 1, held = attempts + 1, owner = ?,
visible_at = ? WHERE id IN (SELECT id FROM head) RETURNING id, turn, attempts, sent_at, body"""
CLAIM_ONE = """UPDATE message SET state = 1, attempts = attempts + 1, held = attempts + 1, owner = ?,
visible_at = ? WHERE id = ? AND state = 0 RETURNING id, turn, attempts, sent_at, body"""
MAX_LOOKED_AT = 5000
"""Maximum number of waiting messages that a claim reads to find one of a preferred job, about 50 ms;
beyond it the usual order decides."""
ALL_IN_ORDER = "SELECT id, body FROM message WHERE queue = ? AND state = 0 ORDER BY turn, id"
IN_ORDER = f"{ALL_IN_ORDER} LIMIT {MAX_LOOKED_AT}"
FIRST_IN_ORDER = f"{ALL_IN_ORDER} LIMIT 100"
FREE_MESSAGES = """UPDATE message SET state = 0, held = NULL, owner = ''
WHERE state > 0 AND state = 1 AND owner = ?"""
# Never back to 0: a first delivery is known to be no duplicate.
INTERRUPT_MESSAGES = """UPDATE message SET state = 0, held = NULL, owner = '',
attempts = CASE WHEN attempts > 1 THEN attempts - 1 ELSE 1 END WHERE state > 0 AND state = 1 AND owner = ?"""
TOO_LATE = "SELECT 1 FROM message WHERE state = 2 AND visible_at > ? LIMIT 1"
RECALL_TOO_LATE = "UPDATE message SET visible_at = ? WHERE state = 2 AND visible_at > ?"
HELD_BY = "SELECT 1 FROM message WHERE state > 0 AND state = 1 AND owner = ? LIMIT 1"
EXTEND = "UPDATE message SET state = 1, visible_at = ?, owner = ? WHERE id = ? AND held = ?"
ACK = "DELETE FROM message WHERE id = ? AND held = ?"
RELEASE = """UPDATE message SET state = ?, visible_at = ?, held = NULL, owner = ''
WHERE id = ? AND held = ?"""
UNCOUNT = "UPDATE message SET attempts = ?, held = ? WHERE id = ?"
REMOVE = """DELETE FROM message WHERE id = ? AND held = ? RETURNING queue, body, attempts, grp"""
INSERT_DEAD_LETTER = """INSERT INTO dead_letter
(queue, body, job_id, reason, failure_class, attempts, tail, grp, buried_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
DELETE_OBSOLETE_LETTERS = """DELETE FROM dead_letter WHERE job_id = :job_id AND failure_class = 'receives'
AND (SELECT state FROM job WHERE job_id = :job_id) IN ('done', 'skipped')"""
PEEK = """SELECT EXISTS (SELECT 1 FROM message WHERE queue = ?1 AND state = 0),
(SELECT MIN(visible_at) FROM message WHERE queue = ?1 AND state > 0)"""
COUNT = """SELECT
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state = 0),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND visible_at <= ?2),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND state = 1 AND visible_at > ?2),
(SELECT COUNT(*) FROM message WHERE queue = ?1 AND state > 0 AND state = 2 AND visible_at > ?2),
(SELECT COUNT(*) FROM dead_letter WHERE queue = ?1),
(SELECT sent_at FROM message WHERE queue = ?1 AND state = 0 ORDER BY turn, id LIMIT 1),
(SELECT sent_at FROM message WHERE queue = ?1 AND state > 0 ORDER BY visible_at LIMIT 1)"""
LETTERS = """SELECT id, body, reason, failure_class, attempts, tail, buried_at FROM dead_letter
WHERE queue = :queue AND id > :after AND (:job IS NULL OR job_id = :job)
ORDER BY id LIMIT :page"""
FILES_MARK = "SELECT files FROM hevcq_schema"
MARK_FILES = "UPDATE hevcq_schema SET files = ?"
PURGE = "DELETE FROM dead_letter WHERE id = ? AND queue = ?"


SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
PAGE, PART = 200, 64
MAX_NAMED = 3_000
"""Jobs whose path fits a search that are sorted by themselves; of more, a walk through all meets one soon."""
MAX_SEQ = 2**63 - 1
ORDERS = {
    ListOrder.NEWEST: ("updated_at", "DESC"),
    ListOrder.OLDEST: ("updated_at", "ASC"),
    ListOrder.PATH: ("key", "ASC"),
    ListOrder.PATH_BACK: ("key", "DESC"),
    ListOrder.LARGEST: ("size", "DESC"),
    ListOrder.SMALLEST: ("size", "ASC"),
}
INBOX_OF_ALL = f"{INBOX}/{EVERY_PROFILE}"
AMONG = f"seq IN ({', '.join(f':n{number}' for number in range(PART))})"
"""Always as many names, as a statement is kept by its text."""
Row = tuple[Any, ...]
"""The value that is sorted by, seq and the values of COLUMNS."""


def job_rows(database: Database, wanted: JobFilter) -> Iterator[Row]:
    """Yield the rows of matching jobs in the wanted order."""
    by, way = ORDERS[wanted.order]
    # A walk in the order of the paths reads the index that a search for a path reads anyway.
    in_turn = by == "key" and bool(wanted.text)
    found = _named(database, wanted) if wanted.text and not in_turn else None
    if found is not None:
        return found
    alone = by == "updated_at" or in_turn
    every: list[JobState | None] = [None] if alone else list(JobState)
    states: list[JobState | None] = list(wanted.states) or every
    walks = [_walked(database, wanted, state) for state in states]
    return heapq.merge(*walks, reverse=way == "DESC", key=lambda item: item[:2])


def _walked(database: Database, wanted: JobFilter, state: JobState | None) -> Iterator[Row]:
    """Yield the rows of matching jobs in `state`, or in any, in the wanted order."""
    by, way = ORDERS[wanted.order]
    where, bound = conditions(wanted, state)
    bound |= _place(database, wanted)
    statement = f"SELECT {by}, seq, {COLUMNS} FROM job WHERE {where}{{}} ORDER BY {by} {way}, seq {way} LIMIT {PAGE}"
    while True:
        rows = database.rows(statement.format(_beyond(by, way) if "seq" in bound else ""), bound)
        yield from rows
        if len(rows) < PAGE:
            return
        bound |= {"sorted": rows[-1][0], "seq": rows[-1][1]}


def _named(database: Database, wanted: JobFilter) -> Iterator[Row] | None:
    """Return the rows of jobs whose path fits the text, in the wanted order; None of more than MAX_NAMED."""
    by, way = ORDERS[wanted.order]
    like, values = like_text(wanted.text)
    where, bound = conditions(replace(wanted, text=""), None)
    bound |= _place(database, wanted) | values
    beyond = _beyond(by, way) if "seq" in bound else ""
    # The row without a state is how many paths fit; of too many no job is read.
    fitting = f"""WITH named (n) AS MATERIALIZED (SELECT seq FROM job WHERE {like} LIMIT {MAX_NAMED + 1})
        SELECT NULL, COUNT(*), NULL FROM named UNION ALL
        SELECT {by}, seq, state FROM named CROSS JOIN job
        WHERE (SELECT COUNT(*) FROM named) <= {MAX_NAMED} AND seq = n AND {where}{beyond}"""
    rows = database.rows(fitting, bound)
    if any(row[2] is None and row[1] > MAX_NAMED for row in rows):
        return None
    states = wanted.states or frozenset(JobState)
    kept = [row[:2] for row in rows if row[2] in states]
    return _whole(database, by, sorted(kept, reverse=way == "DESC"))


def _whole(database: Database, by: str, found: Sequence[Row]) -> Iterator[Row]:
    statement = f"SELECT {by}, seq, {COLUMNS} FROM job WHERE {AMONG}"
    for start in range(0, len(found), PART):
        part = found[start : start + PART]
        among = {f"n{number}": part[number % len(part)][1] for number in range(PART)}
        rows = {row[1]: row for row in database.rows(statement, among)}
        yield from (rows[seq] for _, seq in part if seq in rows)


def _beyond(by: str, way: str) -> str:
    return f" AND ({by}, seq) {'<' if way == 'DESC' else '>'} (:sorted, :seq)"


def _place(database: Database, wanted: JobFilter) -> dict[str, Any]:
    """Return the values of the job that a listing goes on after, none where it begins."""
    by, way = ORDERS[wanted.order]
    at, job_id = wanted.before or (0.0, "")
    there = database.row(PLACE, (job_id,)) if job_id else None
    if there is not None:
        seq, key, size = there
        return {"sorted": {"key": key, "size": size}.get(by, at), "seq": seq}
    known = bool(job_id) and by == "updated_at"
    return {"sorted": at, "seq": MAX_SEQ if way == "DESC" else -1} if known else {}


def conditions(wanted: JobFilter, state: JobState | None) -> tuple[str, dict[str, Any]]:
    """Return the condition of a listing, and its values."""
    parts, values = ["parent = ''"], dict[str, Any]()
    if wanted.text:  # first: it needs no more than an index has
        like, texts = like_text(wanted.text)
        parts.insert(0, like)
        values |= texts
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
    if wanted.larger_than:
        parts.append("size > :larger")
        values["larger"] = wanted.larger_than
    if wanted.cause is not None:
        parts.append("state = 'dead' AND COALESCE(failure_class, 'internal') = :cause")
        values["cause"] = wanted.cause
    return " AND ".join(parts), values


def like_text(text: str) -> tuple[str, dict[str, str]]:
    """Return the condition that a key holds a text, and its values; `%` is written otherwise in keys.

    LIKE ignores the case of ASCII; other letters are found as typed, small, large or with capitals,
    where what is ASCII fits.
    """
    plain = "".join(each if each.isascii() else "%" for each in text)
    forms = () if text.isascii() else (text, text.lower(), text.upper(), text.title())
    # Every key of a library begins with an inbox: what that holds, such as "all", is looked for behind it.
    start = "_" * len(INBOX_OF_ALL) if text.lower() in f"{INBOX_OF_ALL}/".lower() else ""
    values: dict[str, str] = {}
    for form in dict.fromkeys(form.translate(SMALL) for form in (plain, *forms)):
        literal = form.replace("!", "!!").replace("_", "!_")
        values[f"text{len(values)}"] = f"{start}%{literal}%"
    # Without an escape SQLite compares a tenth faster; PostgreSQL takes a backslash for one.
    escape = " ESCAPE '!'" if set(text) & set("!_\\") else ""
    first, *others = (f"key LIKE :{name}{escape}" for name in values)
    return f"{first} AND ({' OR '.join(others)})" if others else first, values
