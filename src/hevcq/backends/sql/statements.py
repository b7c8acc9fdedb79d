"""The SQL statements of jobs, messages and pauses, and the queries of a job listing or search.

A row of `job` is a job, or a subjob of a split job: a chunk or the join. Each transition is one UPDATE
conditional on the old state. Listings and searches read page by page.
"""
# ruff: noqa: S608 - statements are built from constants only

import heapq
import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hevcq.domain.job import MAX_INTERRUPTIONS, JobState
from hevcq.domain.keys import EVERY_PROFILE, INBOX
from hevcq.ports.ledger import JobFilter, ListOrder
from hevcq.sql.database import SKIP_LOCKED, Database, upsert

COLUMNS = (
    "job_id, bucket, key, version, size, profile, state, fence, failures, crashes, "
    "suspected_worker_faults, owner, lease_until, progress, reason, failure_class, rendition, "
    "created_at, updated_at, started_at, finished_at, cpu_s, split, subjob, do_not_split_reason, "
    "certificate_sha256"
)
SELECT_JOB = f"SELECT {COLUMNS} FROM job WHERE job_id = ?"
INSERT_JOB = f"""INSERT INTO job ({COLUMNS}, parent)
VALUES (:{COLUMNS.replace(", ", ", :")}, :parent) ON CONFLICT (job_id) DO NOTHING"""
# Unless the subjob is done or leased: then the message was a duplicate.
BURY_SPLIT_JOB = """UPDATE job SET state = 'dead', reason = :reason, failure_class = :class,
finished_at = :now, updated_at = :now
WHERE job_id = :job_id AND state = 'split' AND json_extract(split, '$.name') = :split
AND EXISTS (SELECT 1 FROM job AS part WHERE part.job_id = :part AND (part.state IN ('queued', 'dead')
OR (part.state = 'running' AND part.lease_until <= :now)))"""
DELETE_SUBJOBS = "DELETE FROM job WHERE parent <> '' AND parent = ?"
# A late cleanup may run after the job was requeued and split again.
DELETE_SUBJOBS_UNLESS_SPLIT = """DELETE FROM job WHERE parent <> '' AND parent = :job_id
AND NOT EXISTS (SELECT 1 FROM job AS whole WHERE whole.job_id = :job_id AND whole.state = 'split')"""
SELECT_SUBJOBS = f"SELECT {COLUMNS} FROM job WHERE parent <> '' AND parent = ?"
SELECT_CURSOR = "SELECT seq, key, size FROM job WHERE job_id = ?"

# Interruptions are counted in columns outside the job's record, when a start frees dead processes.
FORGET_INTERRUPTIONS = "UPDATE job SET place = '', interruptions = 0 WHERE job_id = ?"
RUN_BY_OWNER = """state = 'running'
AND (owner = :owner OR owner >= :owner || ':' AND owner < :owner || ';')"""
"""The running jobs of a process: their owner is its name, or begins with its name and a colon."""
END_LEASES = f"UPDATE job SET lease_until = 0 WHERE {RUN_BY_OWNER}"
LEASED_BY = f"SELECT 1 FROM job WHERE {RUN_BY_OWNER} LIMIT 1"
PERCENT = "CAST(json_extract(progress, '$.percent') AS REAL)"
REACHED = f"json_extract(progress, '$.phase') || ' ' || CAST({PERCENT} AS INTEGER)"
# All columns on the right sides have their old values. A second interruption at the same progress counts
# as a crash.
INTERRUPT_JOBS = f"""UPDATE job SET state = 'queued', owner = '', lease_until = 0,
crashes = crashes + CASE WHEN interruptions >= {MAX_INTERRUPTIONS}
OR ({PERCENT} >= 1 AND place = {REACHED}) THEN 1 ELSE 0 END,
place = CASE WHEN {PERCENT} >= 1 THEN {REACHED} ELSE place END,
interruptions = interruptions + 1, progress = NULL, failure_class = NULL, updated_at = :now,
reason = 'Interrupted: hevcq or the machine ended while this ran.' WHERE {RUN_BY_OWNER}"""
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

FIRST_TURN = 0
"""The round of joins, which are served first: all chunks of the video are done, and joining them frees
their space."""
PRIORITY = 2**32
"""Number of rounds in one priority: all rounds of a higher priority come first."""
SERVED_TURNS = f"""SELECT turn, attempts FROM message WHERE queue = ? AND state = 0 AND turn > 0
AND turn < {PRIORITY} ORDER BY turn LIMIT ?"""
LAST_OF_GROUP = "SELECT MAX(turn) FROM message WHERE queue = ? AND grp = ? AND grp <> ''"
SELECT_MOVED_IN_FLIGHT = f"""SELECT turn, body FROM message WHERE queue = ? AND state = 1
AND (turn < 0 OR turn >= {PRIORITY})"""
"""Messages in flight whose priority was changed: tasks that are sent for their jobs inherit it."""
TURN_RANGE = "SELECT MIN(turn), MAX(turn) FROM message WHERE queue = ? AND state <> 1"
SELECT_WITH_CHOICES = "SELECT body FROM message WHERE queue = ? AND state <> 1 AND body LIKE ?"
"""Messages that contain options of a command: such a body cannot be derived from the job."""
MOVE_BATCH = 100
MOVE = f"""UPDATE message SET turn = turn * ? + ? WHERE queue = ? AND state <> 1
AND body IN ({", ".join("?" * MOVE_BATCH)}) RETURNING body"""
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
"""Maximum number of waiting messages that a claim searches for a preferred job, which takes about 50 ms.
Beyond it the usual order decides."""
ALL_IN_ORDER = "SELECT id, body FROM message WHERE queue = ? AND state = 0 ORDER BY turn, id"
IN_ORDER = f"{ALL_IN_ORDER} LIMIT {MAX_LOOKED_AT}"
FIRST_IN_ORDER = f"{ALL_IN_ORDER} LIMIT 100"
FREE_MESSAGES = """UPDATE message SET state = 0, held = NULL, owner = ''
WHERE state > 0 AND state = 1 AND owner = ?"""
# Never back to 0: attempt 1 means that the message is no duplicate.
INTERRUPT_MESSAGES = """UPDATE message SET state = 0, held = NULL, owner = '',
attempts = CASE WHEN attempts > 1 THEN attempts - 1 ELSE 1 END WHERE state > 0 AND state = 1 AND owner = ?"""
EXCESSIVE_DELAY = "SELECT 1 FROM message WHERE state = 2 AND visible_at > ? LIMIT 1"
RECALL_EXCESSIVE_DELAYS = "UPDATE message SET visible_at = ? WHERE state = 2 AND visible_at > ?"
HELD_BY = "SELECT 1 FROM message WHERE state > 0 AND state = 1 AND owner = ? LIMIT 1"
EXTEND = "UPDATE message SET state = 1, visible_at = ?, owner = ? WHERE id = ? AND held = ?"
ACK = "DELETE FROM message WHERE id = ? AND held = ?"
RELEASE = """UPDATE message SET state = ?, visible_at = ?, held = NULL, owner = ''
WHERE id = ? AND held = ?"""
SET_ATTEMPTS = "UPDATE message SET attempts = ?, held = ? WHERE id = ?"
DELETE_HELD = (
    """DELETE FROM message WHERE id = ? AND held = ? RETURNING queue, body, attempts, grp"""
)
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
SELECT_LETTERS = """SELECT id, body, reason, failure_class, attempts, tail, buried_at FROM dead_letter
WHERE queue = :queue AND id > :after AND (:job IS NULL OR job_id = :job)
ORDER BY id LIMIT :page"""
FILES_MARK = "SELECT files FROM hevcq_schema"
MARK_FILES = "UPDATE hevcq_schema SET files = ?"
DELETE_LETTER = "DELETE FROM dead_letter WHERE id = ? AND queue = ?"


ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
PAGE, PART = 200, 64
MAX_NAMED = 3_000
"""Up to this many jobs that match a search are selected and sorted. More matches are found sooner by
walking through all jobs in order."""
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
DIED_OF_CAUSE = "state = 'dead' AND COALESCE(failure_class, 'internal') = :cause"
AMONG = f"seq IN ({', '.join(f':n{number}' for number in range(PART))})"
"""Always the same number of placeholders, because statements are cached by their text."""
Row = tuple[Any, ...]
"""The value of the sort column, `seq`, and the values of COLUMNS."""


def job_rows(database: Database, query: JobFilter) -> Iterator[Row]:
    """Yield the rows of matching jobs in the order of the query."""
    by, way = ORDERS[query.order]
    # A walk in the order of the paths reads the same index as a search for a path.
    by_path = by == "key" and bool(query.text)
    rows = _search_paths(database, query) if query.text and not by_path else None
    if rows is not None:
        return rows
    one_index = by == "updated_at" or by_path
    every: list[JobState | None] = [None] if one_index else list(JobState)
    states: list[JobState | None] = list(query.states) or every
    walks = [_walk_index(database, query, state) for state in states]
    return heapq.merge(*walks, reverse=way == "DESC", key=lambda item: item[:2])


def _walk_index(database: Database, query: JobFilter, state: JobState | None) -> Iterator[Row]:
    """Yield the rows of matching jobs in `state` (None: in any state), in the order of the query."""
    by, way = ORDERS[query.order]
    where, bound = filter_condition(query, state)
    bound |= _cursor_values(database, query)
    statement = f"SELECT {by}, seq, {COLUMNS} FROM job WHERE {where}{{}} ORDER BY {by} {way}, seq {way} LIMIT {PAGE}"
    while True:
        rows = database.rows(
            statement.format(_after_cursor(by, way) if "seq" in bound else ""), bound
        )
        yield from rows
        if len(rows) < PAGE:
            return
        bound |= {"sorted": rows[-1][0], "seq": rows[-1][1]}


def _search_paths(database: Database, query: JobFilter) -> Iterator[Row] | None:
    """Return the rows of jobs whose path matches the text, in order; None if more than MAX_NAMED match."""
    by, way = ORDERS[query.order]
    like, values = path_condition(query.text)
    where, bound = filter_condition(replace(query, text=""), None)
    bound |= _cursor_values(database, query) | values
    beyond = _after_cursor(by, way) if "seq" in bound else ""
    # The row without a state counts the matching paths; no job is read if they are too many.
    fitting = f"""WITH named (n) AS MATERIALIZED (SELECT seq FROM job WHERE {like} LIMIT {MAX_NAMED + 1})
        SELECT NULL, COUNT(*), NULL FROM named UNION ALL
        SELECT {by}, seq, state FROM named CROSS JOIN job
        WHERE (SELECT COUNT(*) FROM named) <= {MAX_NAMED} AND seq = n AND {where}{beyond}"""
    rows = database.rows(fitting, bound)
    if any(row[2] is None and row[1] > MAX_NAMED for row in rows):
        return None
    states = query.states or frozenset(JobState)
    matches = [row[:2] for row in rows if row[2] in states]
    return _read_rows(database, by, sorted(matches, reverse=way == "DESC"))


def _read_rows(database: Database, by: str, matches: Sequence[Row]) -> Iterator[Row]:
    statement = f"SELECT {by}, seq, {COLUMNS} FROM job WHERE {AMONG}"
    for start in range(0, len(matches), PART):
        part = matches[start : start + PART]
        among = {f"n{number}": part[number % len(part)][1] for number in range(PART)}
        rows = {row[1]: row for row in database.rows(statement, among)}
        yield from (rows[seq] for _, seq in part if seq in rows)


def _after_cursor(by: str, way: str) -> str:
    return f" AND ({by}, seq) {'<' if way == 'DESC' else '>'} (:sorted, :seq)"


def _cursor_values(database: Database, query: JobFilter) -> dict[str, Any]:
    """Return the sort values of the job after which the listing continues; none for its first page."""
    by, way = ORDERS[query.order]
    at, job_id = query.before or (0.0, "")
    row = database.row(SELECT_CURSOR, (job_id,)) if job_id else None
    if row is not None:
        seq, key, size = row
        return {"sorted": {"key": key, "size": size}.get(by, at), "seq": seq}
    has_time = bool(job_id) and by == "updated_at"
    return {"sorted": at, "seq": MAX_SEQ if way == "DESC" else -1} if has_time else {}


def filter_condition(query: JobFilter, state: JobState | None) -> tuple[str, dict[str, Any]]:
    """Return the condition of a listing or search, and its values."""
    parts, values = ["parent = ''"], dict[str, Any]()
    if query.text:  # first, because an index alone answers it
        like, texts = path_condition(query.text)
        parts.insert(0, like)
        values |= texts
    for condition, name, value in (
        ("state = :state", "state", state),
        ("profile = :profile", "profile", query.profile),
        ("key = :key", "key", query.source_key),
        ("updated_at > :after", "after", query.updated_after),
        ("size > :larger", "larger", query.larger_than or None),
        (DIED_OF_CAUSE, "cause", query.cause),
    ):
        if value is not None:
            parts.append(condition)
            values[name] = value
    below = []
    for number, prefix in enumerate(query.key_prefixes):
        name = f":prefix{number}"
        below.append(f"(key >= {name} AND substr(key, 1, length({name})) = {name})")
        values[name[1:]] = prefix
    if below:
        parts.append(f"({' OR '.join(below)})")
    return " AND ".join(parts), values


def path_condition(text: str) -> tuple[str, dict[str, str]]:
    """Return the condition that a key contains a text, and its values. Keys encode `%`.

    LIKE ignores case in ASCII only. So the ASCII parts must match, and the other letters as typed, in
    lower case, in upper case or in title case.
    """
    plain = "".join(letter if letter.isascii() else "%" for letter in text)
    forms = () if text.isascii() else (text, text.lower(), text.upper(), text.title())
    # Every key of a library begins with an inbox: a text in its name, such as "all", must not match there.
    start = "_" * len(INBOX_OF_ALL) if text.lower() in f"{INBOX_OF_ALL}/".lower() else ""
    values: dict[str, str] = {}
    for form in dict.fromkeys(form.translate(ASCII_LOWER) for form in (plain, *forms)):
        literal = form.replace("!", "!!").replace("_", "!_")
        values[f"text{len(values)}"] = f"{start}%{literal}%"
    # SQLite compares a tenth faster without ESCAPE; PostgreSQL's default escape is a backslash.
    escape = " ESCAPE '!'" if set(text) & set("!_\\") else ""
    first, *others = (f"key LIKE :{name}{escape}" for name in values)
    return f"{first} AND ({' OR '.join(others)})" if others else first, values
