"""Which rows a listing or a search of jobs reads, in which order, a page at a time.

Only constant fragments are joined; every value is bound.
"""
# ruff: noqa: S608 - see there

import heapq
import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hevcq.backends.sql.statements import COLUMNS, PLACE
from hevcq.domain.job import JobState
from hevcq.domain.keys import EVERY_PROFILE, INBOX
from hevcq.ports.ledger import JobFilter, ListOrder
from hevcq.sql.database import Database

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
