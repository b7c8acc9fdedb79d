"""Visible objects as rows: one row names the version that readers see."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from hevcq.ports.store import Publication, StoredObject

PAGE = 500

COLUMNS = "key, version, size, sha256, metadata, modified_at"
FIND = f"SELECT {COLUMNS}, job_id, fence FROM object WHERE key = ?"  # noqa: S608 - constants
LIST = f"""SELECT {COLUMNS} FROM object WHERE key > :after AND key >= :prefix
AND substr(key, 1, length(:prefix)) = :prefix ORDER BY key LIMIT {PAGE}"""  # noqa: S608
WRITE = """INSERT INTO object (key, version, size, sha256, metadata, modified_at, job_id, fence)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
DELETE = "DELETE FROM object WHERE key = ? RETURNING version"
DISCARD = "INSERT INTO discarded (key, version) VALUES (?, ?)"
DISCARDED = "SELECT key, version FROM discarded"
FORGET = "DELETE FROM discarded WHERE version = ?"
GRANTED = "SELECT fence FROM job WHERE job_id = ?"
NAMED = "SELECT 1 FROM object WHERE key = ? AND version = ?"


@dataclass(frozen=True, slots=True)
class Visible:
    """An object and who published it."""

    stored: StoredObject
    job_id: str
    fence: int


def stale(there: Visible, publication: Publication) -> bool:
    """Return whether the publication comes too late: the same job is there, no fence below."""
    return there.job_id == publication.job_id and there.fence >= publication.fence


def granted_since(connection: sqlite3.Connection, publication: Publication) -> int | None:
    """Return the fence that the ledger granted after the publication's, or None."""
    row = connection.execute(GRANTED, (publication.job_id,)).fetchone()
    return int(row[0]) if row is not None and row[0] > publication.fence else None


def find(connection: sqlite3.Connection, key: str) -> Visible | None:
    """Return the object at `key`, or None."""
    row = connection.execute(FIND, (key,)).fetchone()
    return None if row is None else Visible(stored_object(row[:6]), row[6], row[7])


def stored_object(row: tuple[Any, ...]) -> StoredObject:
    """Return the object of a row that was selected as COLUMNS."""
    key, version, size, sha256, metadata, modified_at = row
    return StoredObject(key, version, size, sha256, json.loads(metadata), modified_at)


def write(
    connection: sqlite3.Connection, stored: StoredObject, job_id: str, fence: int
) -> str | None:
    """Make a version the visible one; return the one that was, noted as discarded."""
    old = delete(connection, stored.key)
    metadata = json.dumps(dict(stored.metadata), sort_keys=True)
    head = (stored.key, stored.version, stored.size, stored.sha256, metadata)
    connection.execute(WRITE, (*head, stored.modified_at, job_id, fence))
    return old


def delete(connection: sqlite3.Connection, key: str) -> str | None:
    """Make nothing visible at `key`; return the version that was, noted as discarded."""
    row = connection.execute(DELETE, (key,)).fetchone()
    if row is None:
        return None
    connection.execute(DISCARD, (key, row[0]))
    return str(row[0])
