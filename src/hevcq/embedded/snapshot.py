"""A light look at a data folder for `hevcq status`: standard library only, no locks, no writes.

`hevcq status` is bounded by the start-up of Python itself, so what costs milliseconds to import
(pathlib, typing, json) is not imported before it is needed.
"""

# ruff: noqa: PTH100, PTH110, PTH118
from __future__ import annotations

import os
import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DATABASE = "hevcq.db"
APPLICATION_ID = 0x68657663
"""The file's mark, "hevc" (https://www.sqlite.org/pragma.html#pragma_application_id)."""
VERSION = 3
"""The version these questions are for: of `schema.SCRIPTS`, which costs milliseconds to import."""

QUEUES = """SELECT queue, state, visible_at > :now, COUNT(*) FROM message
GROUP BY queue, state, visible_at > :now"""
LETTER_COUNTS = "SELECT queue, COUNT(*) FROM dead_letter GROUP BY queue"
JOBS = "SELECT profile, state, COUNT(*) FROM job WHERE parent = '' GROUP BY profile, state"
RUNNING = """SELECT job_id, profile, key, owner, fence, phase, percent, speed, eta_s, started_at,
lease_until FROM job WHERE state = 'running' AND parent = '' ORDER BY updated_at DESC LIMIT :limit"""
LETTERS = """SELECT id, queue, job_id, reason, failure_class, attempts, buried_at, body
FROM dead_letter ORDER BY id DESC LIMIT :limit"""


def read_snapshot(data_dir: str | os.PathLike[str], limit: int, now: float) -> dict[str, Any]:
    """Return what is where, ready for `json.dumps`.

    Keys: `queues` {profile: {ready, in_flight, delayed, dead}}, `jobs` {profile: {state: count}},
    `running` and `dead_letters` (newest first, at most `limit` each), `at` (`now`, wall seconds), and
    `exists` (false where there is no database yet). Lets sqlite3.Error and OSError through: the
    caller then opens the folder the thorough way, which explains what is wrong.
    """
    path = os.path.join(os.path.abspath(data_dir), DATABASE)
    empty: dict[str, Any] = {"queues": {}, "jobs": {}, "running": [], "dead_letters": []}
    if not os.path.exists(path):
        return {"exists": False, "at": now, **empty}
    connection = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=5.0)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        _require_known(connection)
        values = {"limit": limit, "now": now}
        return {
            "exists": True,
            "at": now,
            "queues": _queues(connection, values),
            "jobs": _jobs(connection),
            "running": [dict(row) for row in connection.execute(RUNNING, values)],
            "dead_letters": [_letter(row) for row in connection.execute(LETTERS, values)],
        }
    finally:
        connection.close()


def _require_known(connection: sqlite3.Connection) -> None:
    """Raise DatabaseError for a database of another version: its words may mean other things."""
    asked = ("PRAGMA application_id", "PRAGMA user_version")
    found = [connection.execute(question).fetchone()[0] for question in asked]
    if found != [APPLICATION_ID, VERSION]:
        raise sqlite3.DatabaseError("another version")


def _quoted(path: str) -> str:
    """Escape what ends a path in a URI (https://www.sqlite.org/uri.html)."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _queues(connection: sqlite3.Connection, values: dict[str, Any]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}

    def add(queue: str, where: str, count: int) -> None:
        numbers = found.setdefault(queue, {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0})
        numbers[where] += count

    for queue, state, hidden, count in connection.execute(QUEUES, values):
        add(queue, ("ready", "in_flight", "delayed")[state] if hidden else "ready", count)
    for queue, count in connection.execute(LETTER_COUNTS):
        add(queue, "dead", count)
    return found


def _jobs(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for profile, state, count in connection.execute(JOBS):
        found.setdefault(profile, {})[state] = count
    return found


def _letter(row: sqlite3.Row) -> dict[str, Any]:
    import json

    letter = dict(row)
    letter["letter_id"] = str(letter.pop("id"))
    body = letter.pop("body")
    try:
        letter["key"] = json.loads(body)["source"]["key"]
    except (ValueError, KeyError, TypeError):
        letter["key"] = ""
    return letter
